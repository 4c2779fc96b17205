"""Comparisons that are cancelled, meet faults or lose their workers."""

import sys
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import delete, func, select, text

from service import comparisons
from service.comparisons import lifecycle
from service.comparisons.design import schedule
from service.config import settings
from service.jobs import claims, outcomes
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import Comparison, Job, Worker
from tests.integration.comparisons.comparison_calls import (
    ENVIRONMENT,
    REQUEST,
    WORKER,
    advance,
    finish_all,
    finish_one,
    job_ids,
    show,
    specs,
    start,
)
from tests.integration.job_calls import wait_until_leases_count
from workers import maintenance


class TestDeadWorkers:
    """A killed worker does not sign off; it counts as dead after a lease."""

    @pytest.fixture
    def dead(self, worker):
        """A worker with a GPU and another version of torch, silent for longer than a lease."""
        wait_until_leases_count()
        silent_since = func.clock_timestamp() - timedelta(seconds=settings().lease_seconds + 1)
        with database.transaction() as session:
            gpu = {"devices": [{"kind": "cuda"}], "torch": "2.0.0"}
            session.add(Worker(**WORKER | {"id": "dead"} | gpu, heartbeat_at=silent_since))

    def test_devices_of_dead_workers_are_ignored(self, ada, dead):
        assert {spec["device"] for spec in specs(job_ids(start(ada)))} == {"cpu"}

    def test_runs_with_the_torch_of_dead_workers_are_not_reused(self, ada, dead):
        start(ada)
        finish_all(environment=ENVIRONMENT | {"torch": "2.0.0"})
        assert start(ada)["progress"]["reused"] == 0

    def test_last_job_has_the_current_torch_if_no_worker_is_up(self, ada, dead):
        with database.transaction() as session:
            session.execute(delete(Worker).where(Worker.id == "w"))
        first = start(ada)
        assert {spec["device"] for spec in specs(job_ids(first))} == {"auto"}
        finish_all()
        assert job_ids(start(ada)) == job_ids(first)

    def test_runs_with_a_time_budget_are_not_reused(self, ada):
        tasks = [{"dataset": "digits", "model": "mlp", "budget": {"seconds": 1}}]
        first, second = start(ada, tasks=tasks), start(ada, tasks=tasks)
        assert not job_ids(first) & job_ids(second)

    def test_failed_shared_run_is_run_again(self, ada, bob):
        start(ada)
        second = start(bob)
        finish_one(reason=Reason.OUT_OF_MEMORY)
        lost = {job["id"] for job in ada.get("/v1/jobs", params={"status": "failed"}).json()["data"]}
        advance()
        assert not {str(job) for job in job_ids(second)} & lost
        finish_all()
        assert show(bob, second)["status"] == "succeeded"

    def test_fields_that_affect_results_affect_the_fingerprint(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": "adam"}
        variants = [
            {}, {"seed": 1}, {"batch_size": 32}, {"precision": "bf16"}, {"budget": {"epochs": 4}},
            {"evaluate_test": False}, {"target": {"value": 0.5}, "stop_at_target": True}, {"gradient_clip": 1.0},
            {"eval_every_steps": 5},
        ]  # fmt: skip
        same = [{"device": "cpu"}, {"log_every_steps": 1}, {"diagnostics_every_steps": 5}, {"target": {"value": 0.5}}]
        ids = [ada.post("/v1/jobs", json=job | fields).json()["id"] for fields in [*variants, *same]]
        with database.transaction() as session:
            fingerprint_of = dict(session.execute(select(Job.id, Job.fingerprint)).all())
        fingerprints = [fingerprint_of[UUID(id_)] for id_ in ids]
        assert len(set(fingerprints[: len(variants)])) == len(variants)
        assert set(fingerprints[len(variants) :]) == {fingerprints[0]}


class TestCancel:
    def test_cancels_jobs_that_no_other_comparison_needs(self, ada, bob):
        comparison, other = start(ada, seeds=5), start(bob)
        answer = ada.post(f"/v1/comparisons/{comparison['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        with database.transaction() as session:
            statuses = dict(session.execute(select(Job.id, Job.status)).all())
        assert {statuses[job] for job in job_ids(other)} == {"queued"}
        assert {statuses[job] for job in job_ids(comparison) - job_ids(other)} == {"cancelled"}
        finish_all()
        assert show(bob, other)["status"] == "succeeded"
        assert show(ada, comparison)["status"] == "cancelled"

    def test_keeps_a_directly_submitted_job(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1, "device": "cpu"}
        alone = ada.post("/v1/jobs", json=job).json()["id"]
        comparison = start(ada)
        assert UUID(alone) in job_ids(comparison)
        ada.post(f"/v1/comparisons/{comparison['id']}/cancel")
        assert ada.get(f"/v1/jobs/{alone}").json()["status"] == "queued"

    def test_shared_jobs_are_cancelled_with_their_last_comparison(self, ada, bob):
        comparison, other = start(ada), start(bob)
        for api, started in ((ada, comparison), (bob, other)):
            api.post(f"/v1/comparisons/{started['id']}/cancel")
        assert {job["status"] for job in ada.get("/v1/jobs").json()["data"]} == {"cancelled"}

    def test_second_cancel_changes_nothing_and_cancel_after_the_end_returns_409(self, ada, bob):
        comparison = start(ada)
        assert bob.post(f"/v1/comparisons/{comparison['id']}/cancel").status_code == 403
        assert [ada.post(f"/v1/comparisons/{comparison['id']}/cancel").status_code for _ in range(2)] == [202, 202]
        done = start(ada)
        finish_all()
        answer = ada.post(f"/v1/comparisons/{done['id']}/cancel")
        assert (answer.status_code, answer.json()["current_status"]) == (409, "succeeded")

    def test_cancelled_job_is_listed_as_missing(self, ada):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None)
        job = sorted(job_ids(comparison))[0]
        ada.post(f"/v1/jobs/{job}/cancel")
        finish_all()
        ended = show(ada, comparison)
        assert ended["status"] == "failed"
        assert [run["job"] for run in ended["tasks"][0]["missing"]] == [str(job)]
        assert ended["verdict"][0].startswith("No verdict: 1 of 3 runs of ")
        assert " is missing (cancelled). 2 of 3 seeds are complete" in ended["verdict"][0]
        assert ended["tasks"][0]["pairs"][0]["p"] is None
        table = ada.get(f"/v1/comparisons/{comparison['id']}/report", params={"format": "latex"}).text
        assert "No mean is bold because planned runs are missing." in table

    def test_repeated_request_runs_only_missing_runs(self, ada):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None)
        ada.post(f"/v1/jobs/{sorted(job_ids(comparison))[0]}/cancel")
        finish_all()
        again = start(ada, optimizers=["adam", "sgd"], tuning=None)
        assert finish_all() == 1
        assert show(ada, again)["tasks"][0]["verdict"]["decided"]

    @pytest.mark.parametrize("seeds", [6, {"max": 6, "looks": [3, 6]}, {"max": 6, "looks": "any"}])
    def test_cancelled_comparison_has_no_verdict(self, ada, seeds):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None, seeds=seeds, reuse=False)
        for _ in range(5):
            finish_one()
            advance()
        with database.transaction() as session:
            running = claims.claim(session, "w", has_cuda=False)
        ada.post(f"/v1/comparisons/{comparison['id']}/cancel")
        before = show(ada, comparison)
        if running is not None:
            with database.transaction() as session:
                assert outcomes.finish(session, running, Reason.CANCELLED)
        for ended in (before, show(ada, comparison)):
            (task,) = ended["tasks"]
            assert ended["verdict"] == ["No verdict: the comparison was cancelled after 5 of 12 final runs."]
            assert not task["verdict"]["decided"]
            assert task["pairs"][0]["p"] is task["pairs"][0]["interval"] is None
            assert sum(group["n"] for group in task["groups"]) == 5
        table = ada.get(f"/v1/comparisons/{comparison['id']}/report", params={"format": "latex"}).text
        assert "textbf" not in table
        assert "No mean is bold because the comparison was cancelled." in table
        assert "The comparison was cancelled after 5 of 12 final runs, so no hypothesis test was performed." in table


class TestFaults:
    def test_failed_runs_are_listed_and_the_others_compared(self, ada):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        finish_one(reason=Reason.ERROR)
        finish_all()
        ended = show(ada, comparison)
        assert (ended["status"], ended["progress"]["failed"]) == ("failed", 1)
        (missing,) = ended["tasks"][0]["missing"]
        assert missing["why"] == "error: the error"
        assert ended["tasks"][0]["pairs"][0]["n"] == 3

    def test_diverged_runs_are_results(self, ada):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        finish_one(reason=Reason.DIVERGED)
        finish_all()
        ended = show(ada, comparison)
        assert (ended["status"], ended["progress"]["diverged"]) == ("succeeded", 1)
        assert ended["tasks"][0]["pairs"][0]["n"] == 4
        assert "diverged and counts as 10.0 %" in ended["verdict"][0]

    def test_scores_that_overflow_are_refused(self, ada):
        comparison = start(ada)
        finish_all()
        plan = "jsonb_set(plan, '{tasks,0,diverged_score}', '1.7e308')"
        with database.transaction() as session:
            session.execute(text(f"UPDATE comparisons SET plan = {plan} WHERE id = '{comparison['id']}'"))
        lifecycle._answers.clear()
        for path in ("", "/report"):
            answer = ada.get(f"/v1/comparisons/{comparison['id']}{path}")
            assert answer.status_code == 409, answer.text
            assert "submit the comparison again" in answer.json()["detail"]

    def test_losses_that_overflow_count_as_diverged(self, ada):
        comparison = start(ada, optimizers=["adam", "sgd"], tuning=None, metric="test_loss")
        finish_all()
        huge = "jsonb_set(summary, '{metrics,test_loss}', '1.7e308')"
        with database.transaction() as session:
            session.execute(text(f"UPDATE jobs SET summary = {huge} WHERE optimizer = 'sgd'"))
        lifecycle._answers.clear()
        assert [group["diverged"] for group in show(ada, comparison)["tasks"][0]["groups"]] == [0, 3]

    @pytest.mark.parametrize(
        ("plan", "why"),
        [
            ("'{}'", "(Field required)"),
            ("jsonb_set(plan, '{tasks,0,spec,model,name}', '\"lenet\"')", "(Input tag 'lenet'"),
            ("jsonb_set(plan, '{metric}', '\"train_loss\"')", "('train_loss' cannot be compared"),
        ],
    )
    def test_unreadable_plan_fails_the_comparison_with_a_message(self, ada, plan, why):
        broken, other = start(ada), start(ada, seeds=4, reuse=False)
        with database.transaction() as session:
            session.execute(text(f"UPDATE comparisons SET plan = {plan} WHERE id = '{broken['id']}'"))
            session.execute(text("DELETE FROM comparison_cells WHERE phase = 'report'"))
        maintenance.advance_comparisons()
        assert len(job_ids(other, "report")) == 4
        (listed,) = (entry for entry in ada.get("/v1/comparisons").json()["data"] if entry["id"] == broken["id"])
        assert listed["status"] == "failed"
        with database.transaction() as session:
            message = session.get(Comparison, UUID(broken["id"])).message
            jobs_left = session.scalars(select(Job.status).where(Job.id.in_(job_ids(broken)))).all()
        assert "of another version of kotrain" in message
        assert why in message
        assert set(jobs_left) == {"cancelled"}
        for path in ("", "/report"):
            answer = ada.get(f"/v1/comparisons/{broken['id']}{path}")
            assert (answer.status_code, answer.json()["message"]) == (409, message)
            assert "submit the comparison again" in answer.json()["detail"]

    def test_internal_error_fails_the_comparison(self, ada, monkeypatch):
        comparison = start(ada)
        monkeypatch.setattr(schedule, "due", lambda *_: 1 / 0)
        maintenance.advance_comparisons()
        monkeypatch.undo()
        ended = show(ada, comparison)
        assert (ended["status"], ended["message"]) == ("failed", "ZeroDivisionError: division by zero")

    def test_failing_import_fails_no_comparison(self, ada, monkeypatch):
        """While kotrain is upgraded, new files do not fit the modules that the worker has loaded."""
        comparison = start(ada)
        monkeypatch.delattr(comparisons, "lifecycle")
        monkeypatch.setitem(sys.modules, "service.comparisons.lifecycle", None)
        maintenance.advance_comparisons()
        monkeypatch.undo()
        assert show(ada, comparison)["status"] == "running"

    def test_held_lock_neither_fails_nor_blocks_comparisons(self, ada):
        """An API that is frozen while it cancels another comparison holds it."""
        comparison = start(ada)
        with database.transaction() as session:
            session.execute(lifecycle.LOCK)
            with database.transaction() as other:
                other.execute(text("UPDATE comparison_cells SET seed = seed + 1000"))  # so that runs are missing
            maintenance.advance_comparisons()
        assert show(ada, comparison)["status"] == "running"

    def test_database_outage_fails_no_comparison(self, ada, monkeypatch):
        comparison = start(ada)

        def fail(*_):
            raise psycopg.OperationalError("the server closed the connection")

        monkeypatch.setattr(schedule, "due", fail)
        with pytest.raises(psycopg.OperationalError):
            maintenance.advance_comparisons()
        monkeypatch.undo()
        assert show(ada, comparison)["status"] == "running"
