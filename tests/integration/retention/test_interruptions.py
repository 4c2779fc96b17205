"""Garbage collection that is interrupted or killed, run by workers or by command, and queries after it."""

import json
import signal
import subprocess
import sys

import pytest
from sqlalchemy import select, text
from typer.testing import CliRunner

from service.commands import app
from service.comparisons import lifecycle
from service.jobs import claims
from service.operations import retention
from service.operations.retention import Policy
from service.storage import database
from service.storage.files import Store
from service.storage.tables import Checkpoint, Job, MetricChunk
from tests.connections import statements
from tests.integration.retention.ended_jobs import (
    POINTS,
    age,
    checkpoint,
    collect,
    count,
    end,
    names,
    run,
    write_file,
)


class TestInterrupted:
    @pytest.fixture
    def current(self, ada, files):
        """Old jobs with points, checkpoints and stray files, and a running job, whose checkpoint is returned."""
        for seed in range(6):
            claim = run(ada, seed=seed)
            checkpoint(files, claim.job_id, 1, 10)
            write_file(files, claim.job_id, 1, "20.pt")
            end(claim, days_ago=2)
        running = run(ada, seed=9)
        return checkpoint(files, running.job_id, 1, 10)

    def test_stop_after_any_transaction_leaves_consistent_rows_and_files(self, current, files):
        for transactions in range(1, 6):
            stops = iter([False] * transactions)
            retention.collect(Policy(1, 1), files, lambda stops=stops: next(stops, True))
            with database.transaction() as session:
                assert set(session.scalars(select(Checkpoint.file))) <= names(files)
        assert collect(files, points_days=1).problems == []
        assert names(files) == {current}
        assert (count(MetricChunk), count(Checkpoint), count(Job)) == (0, 1, 7)

    @pytest.mark.parametrize("transactions", [1, 2, 4, 6])
    def test_kill_leaves_consistent_rows_and_files(self, current, files, tmp_path, transactions):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(transactions)], check=False)
        assert killed.returncode == -signal.SIGKILL
        with database.transaction() as session:
            assert set(session.scalars(select(Checkpoint.file))) <= names(files)
        assert collect(files, points_days=1).problems == []
        assert names(files) == {current}
        assert (count(MetricChunk), count(Checkpoint), count(Job)) == (0, 1, 7)


KILLED = """
import os, signal, sys
from pathlib import Path
from service.operations import retention
from service.storage.files import Store
transactions = 0
def kill():
    global transactions
    transactions += 1
    if transactions > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
retention.MAX_ROWS = 16
retention.collect(retention.Policy(1, 1), Store(sys.argv[1] + "/files", Path(sys.argv[1], "scratch")), kill)
"""


class TestSweep:
    def test_sweep_without_expired_data_takes_few_queries(self, ada, files, monkeypatch):
        monkeypatch.setattr(retention, "store", lambda: files)
        end(run(ada))
        with statements() as executed:
            assert retention.sweep().is_nothing
        assert len(executed) <= 3

    def test_sweep_never_raises(self, ada, monkeypatch):
        def refuse(*_):
            raise RuntimeError("no such thing")

        monkeypatch.setattr(retention, "store", refuse)
        assert retention.sweep() is None


class TestCommand:
    @pytest.fixture
    def gc(self, files, monkeypatch):
        monkeypatch.setattr("service.operations.commands.store", lambda: files)
        return lambda *options: CliRunner().invoke(app, ["gc", *options])

    def test_dry_run_counts_the_same_and_removes_nothing(self, ada, files, gc):
        claim = run(ada)
        checkpoint(files, claim.job_id, 1, 10)
        write_file(files, claim.job_id, 1, "20.pt")
        end(claim, days_ago=2)
        before = names(files)
        planned = json.loads(gc("--points-days", "1", "--dry-run", "--json").stdout)
        assert names(files) == before
        assert (count(MetricChunk), count(Checkpoint)) == (3, 1)
        result = gc("--points-days", "1", "--json")
        assert result.exit_code == 0
        varying = {"is_dry_run", "seconds", "transactions", "longest_transaction_seconds"}
        removed = json.loads(result.stdout)
        assert {name: value for name, value in removed.items() if name not in varying} == {
            name: value for name, value in planned.items() if name not in varying
        }
        assert (removed["points"], removed["checkpoints"], removed["files"]) == (9, 1, 1)

    def test_options_override_settings(self, ada, files, gc, monkeypatch):
        monkeypatch.setenv("KOTRAIN_KEEP_POINTS_DAYS", "1")
        end(run(ada), days_ago=2)
        assert "points       0 of jobs that ended at least 3 days ago" in gc("--points-days", "3").stdout
        assert "points       9 of jobs that ended at least 1 day ago" in gc().stdout

    def test_errors_are_printed_on_standard_error(self, ada, files, gc, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Store, "names", refuse)
        result = gc()
        assert result.exit_code == 1
        assert "Permission denied" in result.stderr


class TestQueriesWithoutPoints:
    """Queries that need removed points are refused; a removed curve never counts as a target that was not reached."""

    @pytest.fixture
    def runs(self, ada, files):
        target = {"target": {"value": 0.8}}
        hit = {"step": 2, "wall_seconds": 0.2}
        job_ids = [end(run(ada, seed=seed, **target), days_ago=seed, hit=hit) for seed in range(6)]
        assert collect(files, points_days=3).points == 3 * 9
        return job_ids

    def compare(self, api, **query):
        return api.get("/v1/compare", params={"dataset": "digits", "model": "mlp", **query})

    def test_final_results_need_no_points(self, api, ada, runs):
        (group,) = self.compare(api).json()["groups"]
        assert (group["n"], group["steps_to_target"]) == (6, 2)

    def test_target_of_the_runs_was_recorded(self, api, ada, runs):
        (group,) = self.compare(api, target=0.8).json()["groups"]
        assert (group["n"], group["steps_to_target"]) == (6, 2)

    def test_other_target_is_refused(self, api, ada, runs):
        refused = self.compare(api, target=0.9)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "target"
        assert "the points of 3 runs" in refused.json()["detail"]

    def test_curves_are_empty(self, api, ada, runs):
        assert api.get(f"/v1/jobs/{runs[-1]}/metrics").json() == {"metrics": {}}
        assert api.get(f"/v1/jobs/{runs[0]}/metrics").json()["metrics"].keys() == POINTS.keys()


@pytest.mark.parametrize("format", ["html", "csv", "latex", "json"])
def test_comparison_and_its_reports_work_without_points(api, files, format):
    with database.transaction() as session:
        session.execute(
            text("INSERT INTO workers (id, host, slots, devices, torch) VALUES ('w', 'h', 2, '[]', '2.14.1')")
        )
    task = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}, "target": {"value": 0.8}}
    body = {"tasks": [task], "optimizers": ["adam", "sgd"], "seeds": 2}
    comparison = api.post("/v1/comparisons", json=body).json()["id"]
    ended = []
    while True:
        with database.transaction() as session:
            claim = claims.claim(session, "w", has_cuda=False)
        if claim is None:
            break
        ended.append(end(claim, hit={"step": 2, "wall_seconds": 0.2}))
    with database.transaction() as session:
        lifecycle.advance_one(session, comparison)
    address = f"/v1/comparisons/{comparison}"
    before = api.get(address).json()
    assert before["status"] == "succeeded"
    for job_id in ended:
        age(job_id, days=2)
    assert collect(files, points_days=1).points == 4 * 9
    answer = api.get(address)
    assert answer.status_code == 200
    assert [group["mean"] for group in answer.json()["tasks"][0]["groups"]] == [0.9, 0.9]
    assert answer.json()["tasks"][0]["to_target"] == before["tasks"][0]["to_target"]
    report = api.get(f"{address}/report", params={"format": format})
    assert report.status_code == 200
    if format == "html":
        assert "no longer stored" in report.text
