"""`GET /v1/comparisons/{id}/curves`, checked against values computed by hand."""

import tracemalloc
from uuid import UUID

import pytest
from sqlalchemy import select

from service.metrics import read, write
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import ComparisonCell, Job
from tests.integration.comparisons.comparison_calls import finish_all, job_ids, start
from tests.integration.job_calls import do


@pytest.fixture
def ended(ada):
    """Two optimizers with three seeds each, without tuning; run k of each has val_accuracy 0.1 k at all steps."""
    optimizers = [{"name": "adam", "params": {"lr": 0.01}}, {"name": "sgd", "params": {"lr": 0.1}}]
    comparison = start(ada, optimizers=optimizers, tuning=None)
    finish_all()
    with database.transaction() as session:
        cells = session.execute(
            select(ComparisonCell.job_id, ComparisonCell.seed, ComparisonCell.optimizer).where(
                ComparisonCell.comparison_id == UUID(comparison["id"])
            )
        ).all()
        points = {
            job: {"val_accuracy": ([10, 20, 30], [0.1 * (seed + 1)] * 3, [1.0, 2.0, 3.0 + optimizer])}
            for job, seed, optimizer in cells
        }
        write.append(session, points.items())
    return comparison


def curves(ada, comparison, **query):
    return ada.get(f"/v1/comparisons/{comparison['id']}/curves", params=query)


def test_bands_have_the_mean_and_range_of_the_runs(ada, ended):
    answer = curves(ada, ended).json()
    assert (answer["metric"], answer["along"], answer["task"]) == ("val_accuracy", "steps", "digits mlp")
    assert [band["runs"] for band in answer["bands"]] == [3, 3]
    for band in answer["bands"]:
        assert band["x"] == [10, 20, 30]
        assert band["mean"] == pytest.approx([0.2] * 3)
        assert band["low"] == pytest.approx([0.1] * 3)
        assert band["high"] == pytest.approx([0.3] * 3)
    assert sorted(round(final["value"], 3) for final in answer["finals"]) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert {UUID(final["job"]) for final in answer["finals"]} == job_ids(ended)


def test_curves_along_wall_clock_time(ada, ended):
    answer = curves(ada, ended, along="wall_seconds").json()
    assert {band["x"][-1] for band in answer["bands"]} == {3.0, 4.0}


def test_spike_survives_thinning(ada, ended):
    spiky = [0.5] * 5000
    spiky[3210] = 9.0
    steps = list(range(1, 5001))
    for job in job_ids(ended):
        points = (steps, spiky, [0.1 * step for step in steps])
        do(write.append, [(job, {"val_loss": points})])
    for along in ("steps", "wall_seconds"):
        for band in curves(ada, ended, metric="val_loss", along=along).json()["bands"]:
            assert (len(band["x"]), max(band["high"]), min(band["low"])) == (160, 9.0, 0.5)
            assert max(band["mean"]) < 1


def test_curves_are_read_as_arrays(ada, ended):
    """Python objects would take about 150 bytes per point; the arrays take 24."""
    points, job = 200_000, job_ids(ended).pop()
    do(write.append, [(job, {"train_loss": (list(range(points)), [0.123] * points, [1.5] * points)})])
    tracemalloc.start()
    try:
        curve = do(read.curves, [job], ["train_loss"])[job]["train_loss"]
        assert tracemalloc.get_traced_memory()[1] < 100 * points
    finally:
        tracemalloc.stop()
    assert (len(curve.steps), curve.steps[-1], set(curve.values), set(curve.wall_seconds)) == (
        points, points - 1, {0.123}, {1.5},
    )  # fmt: skip


def test_unmeasured_metric_has_no_curves(ada, ended):
    answer = curves(ada, ended, metric="weight_correlation").json()
    assert (answer["bands"], answer["diverged"], answer["finals"]) == ([], [], [])


def test_diverged_run_is_separate(ada):
    optimizers = [{"name": "adam", "params": {"lr": 0.01}}, {"name": "sgd", "params": {"lr": 0.1}}]
    comparison = start(ada, optimizers=optimizers, tuning=None, seeds=2)
    finish_all(reason=Reason.DIVERGED)
    with database.transaction() as session:
        jobs = session.scalars(select(Job.id)).all()
        write.append(session, [(job, {"val_accuracy": ([10, 20], [0.5, float("nan")], [1.0, 2.0])}) for job in jobs])
    answer = curves(ada, comparison).json()
    assert (answer["bands"], answer["finals"]) == ([], [])
    assert [(curve["x"], curve["y"]) for curve in answer["diverged"]] == [([10], [0.5])] * 4


@pytest.mark.parametrize(
    ("query", "pointer"),
    [({"task": 2}, "task"), ({"task": 0}, "task"), ({"along": "epochs"}, "along"), ({"metric": ""}, "metric")],
)
def test_invalid_queries_have_pointers(ada, ended, query, pointer):
    answer = curves(ada, ended, **query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_unknown_comparison_returns_404(ada):
    assert ada.get("/v1/comparisons/01a21fdd-08c9-7762-af07-8b4c8b69799f/curves").status_code == 404
