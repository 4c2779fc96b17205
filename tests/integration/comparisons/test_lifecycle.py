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
from service.specs.engine import ENGINE_VERSION
from service.storage import database
from service.storage.tables import Job, Worker
from tests.integration.comparisons.comparison_calls import (
    ENVIRONMENT,
    REQUEST,
    WORKER,
    advance,
    finish_all,
    finish_one,
    job_ids,
    score,
    show,
    specs,
    start,
)


class TestLifecycle:
    def test_from_request_to_verdict(self, ada):
        started = start(ada)
        assert (started["status"], started["progress"]["phase"]) == ("running", "tuning")
        assert started["progress"]["jobs"] == 2 + 3  # the trials, and the runs of the optimizer without tuning
        assert finish_all() == 2 + 3 + 3
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
        started = start(ada)
        finish_all()
        trials = specs(job_ids(started, "tuning"))
        assert not any(spec["evaluate_test"] for spec in trials)
        best = max(trials, key=score)["optimizer"]
        reported = [spec for spec in specs(job_ids(started, "report")) if spec["optimizer"]["name"] == "adam"]
        assert [spec["optimizer"] for spec in reported] == [best] * 3
        assert not {spec["seed"] for spec in reported} & {spec["seed"] for spec in trials}

    def test_repeated_advance_changes_nothing(self, ada):
        started = start(ada)
        for _ in range(3):
            advance()
        assert len(job_ids(started)) == 5

    def test_later_looks_run_only_while_undecided(self, ada):
        started = start(ada, seeds={"max": 20, "looks": [5, 20]})
        assert finish_all() == 2 + 5 + 5
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

    def test_lists_comparisons_by_page_and_jobs_by_comparison(self, ada):
        first, second = start(ada), start(ada, seeds=4)
        page = ada.get("/v1/comparisons", params={"limit": 1}).json()
        assert [comparison["id"] for comparison in page["data"]] == [second["id"]]
        rest = ada.get("/v1/comparisons", params={"after": page["next"]}).json()
        assert [comparison["id"] for comparison in rest["data"]] == [first["id"]]
        listed = ada.get("/v1/jobs", params={"comparison": first["id"]}).json()["data"]
        assert {UUID(job["id"]) for job in listed} == job_ids(first)

    def test_tags_and_priority_reach_the_jobs(self, ada):
        started = start(ada, tags={"study": "x"}, priority=7)
        jobs = ada.get("/v1/jobs", params={"tag": "study:x"}).json()["data"]
        assert {UUID(job["id"]) for job in jobs} == job_ids(started)
        assert {job["priority"] for job in jobs} == {7}


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
        start(ada)
        finish_all()
        tasks = [REQUEST["tasks"][0] | {"budget": {"epochs": 30}}]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        for estimate in planned["estimates"]:
            assert estimate["seconds"] == pytest.approx(1.5 / 39 * 390)
            assert estimate["runs"] > 0
        assert planned["seconds_at_most"] == pytest.approx(15.0 * 8)

    def test_optimizer_without_runs_is_estimated_as_the_slowest(self, ada):
        start(ada)
        finish_all()
        optimizers = ["adam", "lion"]
        planned = ada.post(
            "/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"optimizers": optimizers, "tuning": None}
        ).json()
        assert [(estimate["optimizer"].split()[0], estimate["runs"] > 0) for estimate in planned["estimates"]] == [
            ("adam", True),
            ("lion", False),
        ]
        assert planned["estimates"][1]["seconds"] == pytest.approx(1.5)

    def test_estimates_use_runs_of_the_same_kind_of_task(self, ada):
        start(ada)
        finish_all()
        tasks = [REQUEST["tasks"][0] | {"batch_size": size} for size in (32, 64)]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        assert [estimate["runs"] > 0 for estimate in planned["estimates"]] == [False, False, True, True]

    def test_no_connection_is_held_while_the_plan_is_made(self, ada, monkeypatch):
        held, resolve = [], lifecycle.resolve

        def resolved(*args, **options):
            held.append(database.engine().pool.checkedout())
            return resolve(*args, **options)

        monkeypatch.setattr(lifecycle, "resolve", resolved)
        for headers in ({}, {"Idempotency-Key": "once"}, {"Idempotency-Key": "once"}):
            ada.post("/v1/comparisons", headers=headers, json=REQUEST)
        ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST)
        assert held == [0, 0, 0]  # a repeated key makes no plan

    def test_counts_existing_runs(self, ada):
        start(ada)
        finish_all()
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST).json()
        assert planned["reused"] == 5


def test_overview_remembers_verdicts_of_more_comparisons_than_answers(ada, monkeypatch):
    concluded, conclude = [], lifecycle._answer
    monkeypatch.setattr(lifecycle, "MAX_CACHED", 0)
    monkeypatch.setattr(lifecycle, "_answer", lambda *args: concluded.append(1) or conclude(*args))
    running, ended = start(ada), start(ada, reuse=False)
    ada.post(f"/v1/comparisons/{ended['id']}/cancel")
    concluded.clear()
    first, again = (ada.get("/v1/overview").json()["comparisons"] for _ in range(2))
    assert (first, len(concluded)) == (again, 2)
    assert first[1]["id"] == running["id"]
    finish_one()
    assert ada.get("/v1/overview").json()["comparisons"][1]["ended"] == 1
    assert len(concluded) == 3


class TestReuse:
    def test_finished_runs_of_other_users_are_reused_and_listed(self, ada, bob):
        first = start(ada)
        finish_all()
        second = start(bob)
        assert second["status"] == "succeeded"
        assert job_ids(second) == job_ids(first)
        assert {run["user"] for run in second["reused"]} == {"ada"}
        assert len(second["reused"]) == second["progress"]["reused"] == 8
        assert second["progress"]["seconds_used"] == 0
        assert show(bob, second)["tasks"][0]["verdict"] == show(ada, first)["tasks"][0]["verdict"]

    def test_runs_only_missing_runs(self, ada):
        start(ada)
        finish_all()
        more = start(ada, seeds=5)
        assert finish_all() == 4
        assert show(ada, more)["progress"]["reused"] == 8

    def test_unfinished_runs_are_shared(self, ada, bob):
        first, second = start(ada), start(bob)
        assert job_ids(second) == job_ids(first)
        assert finish_all() == 8
        assert show(ada, first)["status"] == show(bob, second)["status"] == "succeeded"

    def test_directly_submitted_job_is_reused(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1}
        alone = ada.post("/v1/jobs", json=job | {"target": {"value": 0.9}, "log_every_steps": 3}).json()["id"]
        while finish_one():
            pass
        assert UUID(alone) in job_ids(start(ada))

    @pytest.mark.parametrize("is_running", [False, True])
    def test_unfinished_job_on_auto_is_reused_if_all_workers_are_alike(self, ada, is_running):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1, "device": "auto"}
        alone = UUID(ada.post("/v1/jobs", json=job).json()["id"])
        if is_running:
            with database.transaction() as session:
                assert claims.claim(session, "w", has_cuda=False).job_id == alone
        assert alone in job_ids(start(ada))
        with database.transaction() as session:  # now the result depends on the worker that claims it
            beat = func.clock_timestamp() + timedelta(hours=1)
            session.add(Worker(**WORKER | {"id": "gpu", "devices": [{"kind": "cuda"}]}, heartbeat_at=beat))
        assert alone not in job_ids(start(ada, priority=1))

    def test_only_runs_with_the_same_target_are_reused(self, ada):
        tasks = [REQUEST["tasks"][0] | {"target": {"value": value}} for value in (0.5, 0.6)]
        first, other, again = (start(ada, tasks=[task]) for task in (tasks[0], tasks[1], tasks[0]))
        assert not job_ids(first, "report") & job_ids(other, "report")
        assert job_ids(first) == job_ids(again)

    @pytest.mark.parametrize(
        "changes", [{"torch": "2.11.0"}, {"engine_version": ENGINE_VERSION - 1}, {"device_kind": "cuda"}]
    )
    def test_runs_of_another_engine_torch_or_device_are_not_reused(self, ada, changes):
        start(ada)
        finish_all(environment=ENVIRONMENT | changes)
        assert start(ada)["progress"]["reused"] == 0

    def test_runs_on_replaced_data_are_not_reused(self, ada):
        start(ada)
        finish_all()
        with database.transaction() as session:
            session.execute(update(Job).values(data_stamp="another"))
        assert start(ada)["progress"]["reused"] == 0

    def test_reuse_can_be_disabled(self, ada):
        first = start(ada)
        finish_all()
        second = start(ada, reuse=False)
        assert not job_ids(first) & job_ids(second)

    def test_own_runs_are_not_counted_as_reused(self, ada, bob):
        rates = [0.001, 0.01]
        fixed = [{"name": "adam", "params": {"lr": rate}} for rate in rates]  # the tuning chooses one of them
        both = {
            "optimizers": [*fixed, {"name": "adam", "label": "tuned", "space": {"lr": {"choice": rates}}}],
            "tuning": {"trials": 2, "method": "grid"},
        }
        comparison = start(ada, **both)
        assert finish_all() == 2 + 2 * 3
        ended = show(ada, comparison)
        assert (ended["progress"]["jobs"], ended["progress"]["reused"], ended["reused"]) == (2 + 3 * 3, 0, [])
        again = show(bob, start(bob, **both))
        assert (again["progress"]["reused"], again["progress"]["seconds_used"]) == (2 + 3 * 3, 0)

    def test_data_files_are_read_once_for_all_jobs(self, ada, monkeypatch):
        reads = []
        stamp = layouts.stamp
        monkeypatch.setattr(layouts, "stamp", lambda *args: reads.append(args) or stamp(*args))
        start(ada, seeds=50)
        assert len(reads) == 2  # once to find existing runs, once to submit the missing ones

    def test_retry_uses_the_current_data(self, ada):
        job = ada.post("/v1/jobs", json=REQUEST["tasks"][0] | {"optimizer": "adam"}).json()["id"]
        ada.post(f"/v1/jobs/{job}/cancel")
        with database.transaction() as session:
            stale = session.scalar(update(Job).values(data_stamp="another").returning(Job.data_stamp))
        again = ada.post(f"/v1/jobs/{job}/retry").json()["id"]
        with database.transaction() as session:
            assert session.get(Job, UUID(again)).data_stamp == layouts.stamp("digits", settings().data) != stale


@pytest.mark.parametrize(
    ("format", "media_type", "word"),
    [
        ("html", "text/html", "adam"),
        ("csv", "text/csv", "adam"),
        ("latex", "tex", "toprule"),
        ("json", "json", "verdict"),
    ],
)
def test_reports_in_each_format(ada, format, media_type, word):
    comparison = start(ada)
    for _ in range(2):  # while it runs, and after its end
        response = ada.get(f"/v1/comparisons/{comparison['id']}/report", params={"format": format})
        assert response.status_code == 200
        assert media_type in response.headers["Content-Type"]
        assert word in response.text
        finish_all()


@pytest.mark.parametrize(("format", "reads"), [("html", 1), ("csv", 0), ("latex", 0), ("json", 0)])
def test_only_html_reads_curves(ada, monkeypatch, format, reads):
    queries = []
    monkeypatch.setattr(read, "curves", lambda *args: queries.append(args) or {})
    comparison = start(ada)
    assert ada.get(f"/v1/comparisons/{comparison['id']}/report", params={"format": format}).status_code == 200
    assert len(queries) == reads


def test_answer_cache_is_limited_by_size(ada, monkeypatch):
    monkeypatch.setattr(lifecycle, "MAX_CACHED", 20)
    lifecycle._answers.clear()
    for seeds in (3, 4, 5):  # with 5, 6 and 7 jobs and one pair each
        show(ada, start(ada, seeds=seeds))
    assert [answer.progress.jobs for answer in lifecycle._answers.values()] == [6, 7]
    monkeypatch.setattr(lifecycle, "MAX_CACHED", 3)
    assert show(ada, start(ada, seeds=6))["progress"]["jobs"] == 8
    assert not lifecycle._answers


def test_answer_cache_keeps_the_last_answer_of_a_comparison(ada):
    lifecycle._answers.clear()
    comparison = start(ada)
    for _ in range(3):
        finish_one()
        show(ada, comparison)
    assert len(lifecycle._answers) == 1


def test_documented_example_works(ada):
    response = ada.post("/v1/comparisons", json=COMPARISON_EXAMPLE)
    assert response.status_code == 202
    examples = ada.get("/openapi.json").json()["components"]["schemas"]["ComparisonRequest"]["examples"]
    assert examples == [COMPARISON_EXAMPLE]


class TestLeaderboard:
    def test_ranks_optimizers_within_each_setting(self, ada):
        start(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        start(ada, optimizers=["adam", "sgd"], tuning=None, seeds=2, tasks=[REQUEST["tasks"][0] | {"batch_size": 32}])
        finish_all()
        answer = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert [board["runs"] for board in answer["boards"]] == [8, 4]
        first, second = answer["boards"][0]["standings"]
        assert (first["label"], first["n"], first["behind_first"]) == ("adam lr=0.001", 4, None)
        assert (second["label"], second["rank"]) == ("sgd lr=0.1", 2)
        assert second["behind_first"] == pytest.approx(-0.1, abs=0.02)
        assert second["p_behind"] < 0.001
        assert answer["boards"][0]["setting"]["batch_size"] == 64

    def test_tuning_runs_are_excluded(self, ada):
        start(ada)
        finish_all()
        answer = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert sum(board["runs"] for board in answer["boards"]) == 6

    def test_has_no_boards_without_runs(self, ada):
        answer = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert answer["boards"] == []

    @pytest.mark.parametrize(
        "query",
        [
            {"dataset": "x", "model": "mlp"},
            {"dataset": "digits"},
            {"dataset": "digits", "model": "mlp", "metric": "lr"},
        ],
    )
    def test_invalid_query_is_refused(self, ada, query):
        assert ada.get("/v1/leaderboard", params=query).status_code == 422


def test_comparison_continues_from_the_stored_rows_alone(ada):
    """All state is in the rows, so that any process can continue."""
    comparison = start(ada)
    with database.transaction() as session:
        session.execute(text("DELETE FROM comparison_cells WHERE phase = 'report'"))
    finish_all()
    assert show(ada, comparison)["status"] == "succeeded"
