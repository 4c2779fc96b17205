"""Comparisons over HTTP on the real database, from the request to the answer."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, text, update

from service.comparisons import lifecycle
from service.comparisons.design.requests import COMPARISON_EXAMPLE
from service.config import settings
from service.datasets import layouts
from service.jobs import claims
from service.metrics import read
from service.specs.training import ENGINE_VERSION
from service.storage import database
from service.storage.tables import Job, Worker
from tests.integration.comparisons.asking import (
    ENVIRONMENT,
    REQUEST,
    WORKER,
    advance,
    ask,
    finish_one,
    job_ids,
    score,
    show,
    specs,
    work,
)


class TestLifecycle:
    def test_from_request_to_verdict(self, ada):
        started = ask(ada)
        assert (started["status"], started["progress"]["phase"]) == ("running", "tuning")
        assert started["progress"]["jobs"] == 2 + 3  # the trials, and what needs no tuning
        assert work() == 2 + 3 + 3
        ended = show(ada, started)
        assert (ended["status"], ended["progress"]["phase"], ended["progress"]["succeeded"]) == (
            "succeeded",
            "finished",
            8,
        )
        assert ended["tasks"][0]["verdict"]["best"] == "adam"
        assert ended["finished_at"] is not None
        assert ended["progress"]["seconds_used"] == 8 * 1.5

    def test_tuning_never_reads_the_test_set_and_the_best_trial_is_rerun(self, ada):
        started = ask(ada)
        work()
        trials = specs(job_ids(started, "tuning"))
        assert not any(spec["evaluate_test"] for spec in trials)
        best = max(trials, key=score)["optimizer"]
        reported = [spec for spec in specs(job_ids(started, "report")) if spec["optimizer"]["name"] == "adam"]
        assert [spec["optimizer"] for spec in reported] == [best] * 3
        assert not {spec["seed"] for spec in reported} & {spec["seed"] for spec in trials}

    def test_repeated_advance_changes_nothing(self, ada):
        started = ask(ada)
        for _ in range(3):
            advance()
        assert len(job_ids(started)) == 5

    def test_later_looks_only_while_undecided(self, ada):
        started = ask(ada, seeds={"max": 20, "looks": [5, 20]})
        assert work() == 2 + 5 + 5
        ended = show(ada, started)
        assert ended["tasks"][0]["verdict"]["decided"]
        assert ended["progress"]["jobs_at_most"] == 2 + 20 + 20

    def test_idempotency_key_returns_the_same_comparison(self, ada):
        answers = [
            ada.post("/v1/comparisons", json=REQUEST, headers={"Idempotency-Key": "once"}).json() for _ in range(2)
        ]
        assert answers[0] == answers[1]
        assert len(ada.get("/v1/comparisons").json()["data"]) == 1
        other = ada.post("/v1/comparisons", json=REQUEST | {"seeds": 4}, headers={"Idempotency-Key": "once"})
        assert other.status_code == 422

    def test_lists_by_page_and_jobs_by_comparison(self, ada):
        first, second = ask(ada), ask(ada, seeds=4)
        page = ada.get("/v1/comparisons", params={"limit": 1}).json()
        assert [one["id"] for one in page["data"]] == [second["id"]]
        rest = ada.get("/v1/comparisons", params={"after": page["next"]}).json()
        assert [one["id"] for one in rest["data"]] == [first["id"]]
        listed = ada.get("/v1/jobs", params={"comparison": first["id"]}).json()["data"]
        assert {UUID(job["id"]) for job in listed} == job_ids(first)

    def test_tags_and_priority_reach_the_jobs(self, ada):
        started = ask(ada, tags={"study": "x"}, priority=7)
        found = ada.get("/v1/jobs", params={"tag": "study:x"}).json()["data"]
        assert {UUID(job["id"]) for job in found} == job_ids(started)
        assert {job["priority"] for job in found} == {7}


class TestDryRun:
    def test_returns_the_plan_and_runs_nothing(self, ada):
        response = ada.post(
            "/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"seeds": {"max": 9, "looks": [3, 9]}}
        )
        assert response.status_code == 200, response.text
        planned = response.json()
        assert (planned["jobs_at_least"], planned["jobs_at_most"], planned["reused"]) == (2 + 6, 2 + 18, 0)
        assert planned["seconds_at_most"] is None
        assert len(planned["plan"]["nominal_p"]) == 2
        assert "never read the test set" in planned["methods"]
        assert ada.get("/v1/jobs").json()["data"] == []

    def test_estimates_from_earlier_runs(self, ada):
        ask(ada)
        work()
        tasks = [REQUEST["tasks"][0] | {"budget": {"epochs": 30}}]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        for one in planned["estimates"]:
            assert one["seconds"] == pytest.approx(1.5 / 39 * 390)
            assert one["runs"] > 0
        assert planned["seconds_at_most"] == pytest.approx(15.0 * 8)

    def test_optimizer_without_runs_is_as_slow_as_the_slowest(self, ada):
        ask(ada)
        work()
        optimizers = ["adam", "lion"]
        planned = ada.post(
            "/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"optimizers": optimizers, "tuning": None}
        ).json()
        assert [(one["optimizer"].split()[0], one["runs"] > 0) for one in planned["estimates"]] == [
            ("adam", True),
            ("lion", False),
        ]
        assert planned["estimates"][1]["seconds"] == pytest.approx(1.5)

    def test_estimates_use_runs_of_the_same_kind_of_task(self, ada):
        ask(ada)
        work()
        tasks = [REQUEST["tasks"][0] | {"batch_size": size} for size in (32, 64)]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        assert [one["runs"] > 0 for one in planned["estimates"]] == [False, False, True, True]

    def test_counts_existing_runs(self, ada):
        ask(ada)
        work()
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST).json()
        assert planned["reused"] == 5


class TestReuse:
    def test_finished_runs_of_other_users_are_reused_and_listed(self, ada, bob):
        first = ask(ada)
        work()
        second = ask(bob)
        assert second["status"] == "succeeded"
        assert job_ids(second) == job_ids(first)
        assert {one["user"] for one in second["reused"]} == {"ada"}
        assert len(second["reused"]) == second["progress"]["reused"] == 8
        assert second["progress"]["seconds_used"] == 0
        assert show(bob, second)["tasks"][0]["verdict"] == show(ada, first)["tasks"][0]["verdict"]

    def test_runs_only_missing_runs(self, ada):
        ask(ada)
        work()
        more = ask(ada, seeds=5)
        assert work() == 4
        assert show(ada, more)["progress"]["reused"] == 8

    def test_unfinished_runs_are_shared(self, ada, bob):
        first, second = ask(ada), ask(bob)
        assert job_ids(second) == job_ids(first)
        assert work() == 8
        assert show(ada, first)["status"] == show(bob, second)["status"] == "succeeded"

    def test_directly_submitted_job_is_reused(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1}
        alone = ada.post("/v1/jobs", json=job | {"target": {"value": 0.9}, "log_every_steps": 3}).json()["id"]
        while finish_one():
            pass
        assert UUID(alone) in job_ids(ask(ada))

    @pytest.mark.parametrize("is_running", [False, True])
    def test_unfinished_job_on_auto_is_reused_if_all_workers_are_alike(self, ada, is_running):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1, "device": "auto"}
        alone = UUID(ada.post("/v1/jobs", json=job).json()["id"])
        if is_running:
            with database.transaction() as session:
                assert claims.claim(session, "w", has_cuda=False).job_id == alone
        assert alone in job_ids(ask(ada))
        with database.transaction() as session:  # from now on it depends on who takes it
            beat = func.clock_timestamp() + timedelta(hours=1)
            session.add(Worker(**WORKER | {"id": "gpu", "devices": [{"kind": "cuda"}]}, heartbeat_at=beat))
        assert alone not in job_ids(ask(ada, priority=1))

    def test_reused_runs_watched_for_the_same_target(self, ada):
        watched = [REQUEST["tasks"][0] | {"target": {"value": value}} for value in (0.5, 0.6)]
        first, other, again = (ask(ada, tasks=[task]) for task in (watched[0], watched[1], watched[0]))
        assert not job_ids(first, "report") & job_ids(other, "report")
        assert job_ids(first) == job_ids(again)

    @pytest.mark.parametrize(
        "changes", [{"torch": "2.11.0"}, {"engine_version": ENGINE_VERSION - 1}, {"device_kind": "cuda"}]
    )
    def test_runs_of_another_engine_torch_or_device_are_not_reused(self, ada, changes):
        ask(ada)
        work(environment=ENVIRONMENT | changes)
        assert ask(ada)["progress"]["reused"] == 0

    def test_runs_on_replaced_data_are_not_reused(self, ada):
        ask(ada)
        work()
        with database.transaction() as session:
            session.execute(update(Job).values(data_stamp="another"))
        assert ask(ada)["progress"]["reused"] == 0

    def test_reuse_can_be_disabled(self, ada):
        first = ask(ada)
        work()
        second = ask(ada, reuse=False)
        assert not job_ids(first) & job_ids(second)

    def test_own_runs_are_not_counted_as_reused(self, ada, bob):
        rates = [0.001, 0.01]
        fixed = [{"name": "adam", "params": {"lr": rate}} for rate in rates]  # one of them is what the tuning chooses
        both = {
            "optimizers": [*fixed, {"name": "adam", "label": "tuned", "space": {"lr": {"choice": rates}}}],
            "tuning": {"trials": 2, "method": "grid"},
        }
        mine = ask(ada, **both)
        assert work() == 2 + 2 * 3
        ended = show(ada, mine)
        assert (ended["progress"]["jobs"], ended["progress"]["reused"], ended["reused"]) == (2 + 3 * 3, 0, [])
        again = show(bob, ask(bob, **both))
        assert (again["progress"]["reused"], again["progress"]["seconds_used"]) == (2 + 3 * 3, 0)

    def test_data_files_are_read_once_for_all_jobs(self, ada, monkeypatch):
        looks = []
        stamp = layouts.stamp
        monkeypatch.setattr(layouts, "stamp", lambda *which: looks.append(which) or stamp(*which))
        ask(ada, seeds=50)
        assert len(looks) == 2  # to find runs, and to submit what is missing

    def test_retry_uses_the_current_data(self, ada):
        job = ada.post("/v1/jobs", json=REQUEST["tasks"][0] | {"optimizer": "adam"}).json()["id"]
        ada.post(f"/v1/jobs/{job}/cancel")
        with database.transaction() as session:
            now = session.scalar(update(Job).values(data_stamp="another").returning(Job.data_stamp))
        again = ada.post(f"/v1/jobs/{job}/retry").json()["id"]
        with database.transaction() as session:
            assert session.get(Job, UUID(again)).data_stamp == layouts.stamp("digits", settings().data) != now


@pytest.mark.parametrize(
    ("format", "media_type", "word"),
    [
        ("html", "text/html", "adam"),
        ("csv", "text/csv", "adam"),
        ("latex", "tex", "toprule"),
        ("json", "json", "verdict"),
    ],
)
def test_reports(ada, format, media_type, word):
    mine = ask(ada)
    for _ in range(2):  # while it runs, and once it is over
        response = ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": format})
        assert response.status_code == 200
        assert media_type in response.headers["Content-Type"]
        assert word in response.text
        work()


@pytest.mark.parametrize(("format", "reads"), [("html", 1), ("csv", 0), ("latex", 0), ("json", 0)])
def test_only_html_reads_curves(ada, monkeypatch, format, reads):
    queries = []
    monkeypatch.setattr(read, "curves", lambda *which: queries.append(which) or {})
    mine = ask(ada)
    assert ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": format}).status_code == 200
    assert len(queries) == reads


def test_answer_cache_is_limited_by_size(ada, monkeypatch):
    monkeypatch.setattr(lifecycle, "MOST_CACHED", 20)
    lifecycle._answers.clear()
    for seeds in (3, 4, 5):  # of 5, 6 and 7 jobs and one pair each
        show(ada, ask(ada, seeds=seeds))
    assert [kept.progress.jobs for kept in lifecycle._answers.values()] == [6, 7]
    monkeypatch.setattr(lifecycle, "MOST_CACHED", 3)
    assert show(ada, ask(ada, seeds=6))["progress"]["jobs"] == 8
    assert not lifecycle._answers


def test_answer_cache_keeps_the_last_answer_of_a_comparison(ada):
    lifecycle._answers.clear()
    mine = ask(ada)
    for _ in range(3):
        finish_one()
        show(ada, mine)
    assert len(lifecycle._answers) == 1


def test_documented_example_works(ada):
    response = ada.post("/v1/comparisons", json=COMPARISON_EXAMPLE)
    assert response.status_code == 202
    examples = ada.get("/openapi.json").json()["components"]["schemas"]["ComparisonRequest"]["examples"]
    assert examples == [COMPARISON_EXAMPLE]


class TestLeaderboard:
    def test_ranks_optimizers_within_each_setting(self, ada):
        ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=2, tasks=[REQUEST["tasks"][0] | {"batch_size": 32}])
        work()
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert [board["runs"] for board in found["boards"]] == [8, 4]
        first, second = found["boards"][0]["standings"]
        assert (first["label"], first["n"], first["behind_first"]) == ("adam lr=0.001", 4, None)
        assert (second["label"], second["rank"]) == ("sgd lr=0.1", 2)
        assert second["behind_first"] == pytest.approx(-0.1, abs=0.02)
        assert second["p_behind"] < 0.001
        assert found["boards"][0]["setting"]["batch_size"] == 64

    def test_tuning_runs_are_excluded(self, ada):
        ask(ada)
        work()
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert sum(board["runs"] for board in found["boards"]) == 6

    def test_empty(self, ada):
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert found["boards"] == []

    @pytest.mark.parametrize(
        "query",
        [
            {"dataset": "x", "model": "mlp"},
            {"dataset": "digits"},
            {"dataset": "digits", "model": "mlp", "metric": "lr"},
        ],
    )
    def test_invalid_query(self, ada, query):
        assert ada.get("/v1/leaderboard", params=query).status_code == 422


def test_answer_follows_from_the_stored_rows_alone(ada):
    """All state is in the rows: another process goes on from there."""
    mine = ask(ada)
    with database.transaction() as session:
        session.execute(text("DELETE FROM comparison_cells WHERE phase = 'report'"))
    work()
    assert show(ada, mine)["status"] == "succeeded"
