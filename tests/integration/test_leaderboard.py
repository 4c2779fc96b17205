"""The leaderboard: its rate of false differences, and its queries on the real database."""

import json

import numpy as np
import pytest
from scipy import stats as reference
from sqlalchemy import text

from service.comparisons import leaderboard
from service.specs.training import TrainSpec
from service.storage import database
from tests.connections import statements
from tests.thoroughness import replicates

SPEC = TrainSpec.model_validate({"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}})


def ranked(values) -> list[dict[int, float]]:
    """Rows in a board's order, from values of shape (optimizers, seeds)."""
    return [dict(enumerate(row)) for row in sorted(values.tolist(), key=lambda row: -sum(row))]


class TestBehindFirst:
    @pytest.mark.parametrize(("optimizers", "boards"), [(5, 2000), (10, 1000), (45, 500)])
    def test_equal_optimizers_differ_on_at_most_one_board_in_twenty(self, optimizers, boards):
        """Holm over the pairs with the first row alone is wrong on 6, 11 and 23 % of boards; above 40, Bonferroni."""
        boards = replicates(boards)
        draw = np.random.default_rng(0)
        wrong = 0
        for _ in range(boards):
            values = 0.9 + 0.01 * draw.standard_normal((optimizers, 5)) + 0.01 * draw.standard_normal(5)
            _, adjusted = leaderboard.behind_first(ranked(values))
            wrong += min(adjusted) <= 0.05
        assert wrong / boards <= 0.05 + 2.6 * (0.05 * 0.95 / boards) ** 0.5  # a rate of 5 % passes with 99.5 %

    def test_p_values_are_adjusted_by_holm_over_all_pairs(self):
        a, b, c = np.random.default_rng(0).normal([[0.9], [0.88], [0.8]], 0.01, (3, 6))
        behind, adjusted = leaderboard.behind_first([dict(enumerate(row)) for row in (a, b, c)])
        p = [reference.ttest_rel(x, y).pvalue for x, y in ((a, b), (a, c), (b, c))]
        assert [pair.p for pair in behind] == pytest.approx(p[:2])
        assert p[1] < p[2] < p[0]
        assert adjusted == pytest.approx([1 * p[0], 3 * p[1]])

    def test_many_rows_are_adjusted_for_all_pairs(self):
        values = np.random.default_rng(2).normal(0.9, 0.01, (45, 6))
        values[1:] -= 0.2
        behind, adjusted = leaderboard.behind_first(ranked(values))
        assert adjusted == pytest.approx([min(1.0, 45 * 44 / 2 * pair.p) for pair in behind])
        assert max(adjusted) < 0.05

    def test_row_without_values_is_not_tested(self):
        _, adjusted = leaderboard.behind_first([{0: 0.9, 1: 0.91}, {0: 0.8, 1: 0.82}, {}])
        assert adjusted[0] is not None
        assert adjusted[1] is None

    def test_single_row_has_no_difference(self):
        assert leaderboard.behind_first([{0: 0.9}]) == ([], [])


def put(settings: int, seeds: int, *, offset: float = 0.0, device: str = "x", **fields: object) -> None:
    """Store finished runs of Adam: `settings` learning rates with `seeds` seeds each."""
    spec = SPEC.model_dump(mode="json") | fields
    environment = {"torch": "2", "device_kind": "cpu", "engine_version": 2, "data_hash": "aa", "device_name": device}
    with database.transaction() as session:
        session.execute(
            text(
                """
                INSERT INTO jobs (id, user_id, spec, dataset, model, optimizer, needs_cuda, tags, priority,
                                  max_failures, cancel_requested, attempt, failures, seq, step, status, reason,
                                  environment, summary, finished_at)
                SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1),
                       jsonb_set(jsonb_set(CAST(:spec AS jsonb), '{seed}', to_jsonb(seed)),
                                 '{optimizer,params,lr}', to_jsonb(rate * 0.0001)),
                       'digits', 'mlp', 'adam', false, '{}', 0, 1,
                       false, 1, 0, 1, 13, 'succeeded', 'completed', CAST(:environment AS jsonb),
                       jsonb_build_object('metrics', jsonb_build_object('samples_per_second', 9, 'test_accuracy',
                                          0.9 + :offset - rate * 0.0001 + (rate * 31 + seed * 17) % 13 * 0.001)), now()
                FROM generate_series(1, :settings) AS rate, generate_series(1, :seeds) AS seed
                """
            ),
            {"spec": json.dumps(spec), "environment": json.dumps(environment), "settings": settings, "seeds": seeds,
             "offset": offset},
        )  # fmt: skip


def show(api, **query: str) -> dict:
    return api.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"} | query).json()


def test_metric_of_single_batches_is_refused(api):
    (error,) = show(api, metric="train_loss")["errors"]
    assert error["pointer"] == "metric"
    assert "choose val_loss or test_loss" in error["detail"]


def test_times_are_ranked_by_device_and_by_what_takes_time(api):
    put(2, 3, device="x")
    put(2, 3, device="y")
    put(2, 3, log_every_steps=1)
    assert [board["runs"] for board in show(api)["boards"]] == [6]
    boards = show(api, metric="samples_per_second")["boards"]
    assert [board["runs"] for board in boards] == [6, 6, 6]
    assert {board["setting"]["environment.device_name"] for board in boards} == {"x", "y"}
    put(2, 3, budget={"epochs": None, "steps": None, "seconds": 60}, log_every_steps=1)
    put(2, 3, budget={"epochs": None, "steps": None, "seconds": 60}, log_every_steps=2)
    assert [board["runs"] for board in show(api)["boards"]] == [6, 6, 6]


class TestManyRuns:
    def test_rows_with_the_most_runs_are_read(self, api):
        put(leaderboard.MAX_ROWS + 5, 2, offset=0.05)
        put(3, 4, batch_size=32)
        boards = show(api)["boards"]
        assert [board["runs"] for board in boards] == [2 * (leaderboard.MAX_ROWS - 3), 12]
        assert [row["n"] for row in boards[1]["standings"]] == [4, 4, 4]

    def test_boards_with_the_most_runs_are_shown(self, api):
        for number in range(leaderboard.MAX_BOARDS + 2):
            put(1, 1 + (number >= 2), batch_size=1 + number)
        boards = show(api)["boards"]
        assert {board["setting"]["batch_size"] for board in boards} == set(range(3, leaderboard.MAX_BOARDS + 3))

    def test_twenty_thousand_runs_take_two_queries(self, api):
        put(1000, 20)
        with database.transaction() as session:
            session.execute(text("ANALYZE jobs"))
        with database.transaction() as session, statements() as executed:
            answer = leaderboard.leaderboard(session, "digits", "mlp", "test_accuracy")
        assert len(executed) == 2
        assert [len(board.standings) for board in answer.boards] == [leaderboard.MAX_ROWS]
