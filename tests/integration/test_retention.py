"""What is kept no longer goes, and nothing else; on the real database and a real folder."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event, func, insert, select, text, update
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from service import attempts, comparisons, db, jobs, keys, metrics, retention
from service.commands import app
from service.models import Checkpoint, Comparison, ComparisonCell, IdempotencyKey, Job, JobEvent, MetricChunk, User
from service.retention import Policy
from service.schemas import JobRequest
from service.spec import ENGINE_VERSION, Reason, Summary
from service.store import Store

DAY, HOUR = 86_400, 3600
REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
ENVIRONMENT = {"torch": "2.14.1", "device_kind": "cpu", "engine_version": ENGINE_VERSION, "data_hash": "aa"}
CURVE = ([1, 2, 3], [0.5, 0.8, 0.9], [0.1, 0.2, 0.3])
POINTS = {"val_accuracy": CURVE, "val_loss": CURVE, "train_loss": CURVE}


@pytest.fixture
def files(empty, tmp_path):
    return Store(str(tmp_path / "files"), tmp_path / "scratch")


@pytest.fixture
def ada(empty):
    keys.create("ada")
    with db.transaction() as session:
        return session.scalars(select(User)).one()


def submit(ada, **fields):
    with db.transaction() as session:
        return jobs.submit(session, ada, JobRequest.model_validate(REQUEST | fields)).id


def run(ada, **fields):
    """A job that runs."""
    job_id = submit(ada, **fields)
    with db.transaction() as session:
        claim = attempts.claim(session, "w", has_cuda=False)
    assert claim.job_id == job_id
    return claim


def end(claim, days_ago=0.0, reason=Reason.COMPLETED, points=POINTS, hit=None):
    """It ends with these points, so long ago."""
    summary = Summary(
        reason=reason, steps=3, epochs=1.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
        metrics={"test_accuracy": 0.9, "val_accuracy": 0.9, "val_loss": 0.9}, best_step=3, target=hit,
    )  # fmt: skip
    with db.transaction() as session:
        metrics.append(session, [(claim.job_id, points)])
        assert attempts.finish(session, claim, reason, summary=summary, environment=ENVIRONMENT)
    age(claim.job_id, days_ago)
    return claim.job_id


def age(job_id, days):
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=Job.finished_at - timedelta(days=days)))


def write(files, job_id, attempt, name, hours_old=2.0, size=10):
    """A file of an attempt, and its name."""
    name = f"jobs/{job_id}/{attempt}/{name}"
    path = files.place(name)
    path.write_bytes(b"x" * size)
    modified = path.stat().st_mtime - HOUR * hours_old
    os.utime(path, (modified, modified))
    files.put(name)
    return name


def checkpoint(files, job_id, attempt, step):
    """A file with its row."""
    name = write(files, job_id, attempt, f"{step}.pt", hours_old=48)
    row = {
        "job_id": job_id,
        "attempt": attempt,
        "step": step,
        "file": name,
        "size_bytes": 10,
        "sha256": "",
        "seconds": 1,
    }
    with db.transaction() as session:
        session.execute(insert(Checkpoint).values(row))
    return name


def collect(files, days=1.0, points_days=None, **options):
    return retention.collect(Policy(days, points_days, **options), files)


def names(files):
    return {name for name, _ in files.names()}


def count(table):
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table))


class TestCheckpoints:
    def test_those_of_jobs_that_ended_long_ago_go_with_their_files(self, ada, files):
        old, recent = run(ada), run(ada, seed=1)
        gone = [checkpoint(files, old.job_id, 1, step) for step in (10, 20)]
        kept = checkpoint(files, recent.job_id, 1, 10)
        end(old, days_ago=1.1)
        end(recent, days_ago=0.9)
        removed = collect(files)
        assert (removed.checkpoints, removed.checkpoint_bytes, removed.files) == (2, 20, 0)
        assert names(files) == {kept}
        assert not set(gone) & names(files)
        assert not files.path("jobs/x").parent.joinpath(str(old.job_id)).exists(), "an empty folder"

    @pytest.mark.parametrize("is_running", [True, False])
    def test_those_of_a_job_that_is_to_go_on_stay(self, ada, files, is_running):
        claim = run(ada)
        kept = {checkpoint(files, claim.job_id, 1, step) for step in (10, 20)}
        if not is_running:
            with db.transaction() as session:
                assert attempts.give_back(session, claim, "drained")
        assert collect(files, days=0).checkpoints == 0
        assert names(files) == kept
        assert count(Checkpoint) == 2

    def test_a_kill_between_rows_and_files_leaves_files_that_the_next_look_removes(self, ada, files, monkeypatch):
        claim = run(ada)
        name = checkpoint(files, claim.job_id, 1, 10)
        end(claim, days_ago=2)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                collect(files)
        assert count(Checkpoint) == 0
        assert names(files) == {name}, "no row may name a file that is gone"
        assert collect(files).files == 1
        assert names(files) == set()

    def test_trouble_with_files_is_told_and_holds_nothing_up(self, ada, files, monkeypatch):
        claim = run(ada)
        checkpoint(files, claim.job_id, 1, 10)
        end(claim, days_ago=2)

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Store, "remove", refuse)
        removed = collect(files, points_days=1)
        assert "Permission denied" in removed.problems[0]
        assert removed.points == 9


class TestPoints:
    def test_they_are_kept_for_ever_unless_asked(self, ada, files):
        end(run(ada), days_ago=10_000)
        assert collect(files).points == 0
        assert count(MetricChunk) == 3

    def test_those_of_jobs_that_ended_long_ago_go_and_the_rest_of_the_job_stays(self, ada, files):
        old, recent = end(run(ada), days_ago=31), end(run(ada, seed=1), days_ago=29)
        removed = collect(files, points_days=30)
        assert (removed.points, removed.point_rows) == (9, 3)
        assert removed.point_bytes > 0
        with db.transaction() as session:
            assert metrics.read(session, [old, recent]).keys() == {recent}
            assert session.get_one(Job, old).summary["metrics"]["test_accuracy"] == 0.9
            assert len(session.scalars(select(JobEvent).where(JobEvent.job_id == old)).all()) == 3

    def test_a_failed_job_that_left_many_small_chunks(self, ada, files):
        claim = run(ada)
        with db.transaction() as session:
            metrics.append(session, [(claim.job_id, {"loss": ([step], [0.0], [0.0])}) for step in range(1, 2001)])
            attempts.lose(session, claim.job_id, 1, Reason.CHILD_LOST, "killed")
            session.execute(update(Job).values(status="failed", reason="child_lost", finished_at=func.now()))
        removed = collect(files, points_days=0)
        assert (removed.points, removed.point_rows) == (2000, 2000)
        assert count(MetricChunk) == 0

    def test_those_of_a_job_that_runs_stay(self, ada, files):
        claim = run(ada)
        with db.transaction() as session:
            metrics.append(session, [(claim.job_id, POINTS)])
        assert collect(files, points_days=0).points == 0

    def test_those_that_a_running_comparison_will_show_stay(self, ada, files):
        job_id = end(run(ada), days_ago=100)
        cell = {"phase": "report", "task": 0, "optimizer": 0, "trial": 0, "rung": 0, "seed": 0, "is_reused": True}
        with db.transaction() as session:
            comparison = Comparison(user_id=ada.id, name="waits", plan={})
            session.add(comparison)
            session.flush()
            session.add(ComparisonCell(comparison_id=comparison.id, job_id=job_id, **cell))
        assert collect(files, points_days=1).points == 0
        with db.transaction() as session:
            session.execute(update(Comparison).values(status="succeeded"))
        assert collect(files, points_days=1).points == 9

    def test_two_at_once_remove_each_row_once(self, ada, files, monkeypatch):
        monkeypatch.setattr(retention, "MOST_ROWS", retention.FEWEST_ROWS)
        for seed in range(40):
            end(run(ada, seed=seed), days_ago=2)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: collect(files, points_days=1), range(4)))
        again = collect(files, points_days=1)  # what one skips because another has it locked is the other's to remove
        assert sum(removed.points for removed in [*found, again]) == 40 * 9
        assert again.points == 0

    def test_the_size_of_a_transaction_follows_from_its_time(self, ada, files, monkeypatch):
        for seed in range(40):
            end(run(ada, seed=seed), days_ago=2)
        monkeypatch.setattr(retention, "BATCH_SECONDS", 1e-9)  # every transaction takes too long
        removed = collect(files, points_days=1)
        assert removed.points == 40 * 9
        assert removed.transactions >= 120 / (128 + 64) + 120 / 256


class TestFiles:
    @pytest.mark.parametrize(
        ("status", "attempt", "of", "hours_old", "goes"),
        [
            ("running", 2, 1, 2, True),
            ("running", 2, 2, 48, False),  # it may become a checkpoint at any moment
            ("running", 2, 3, 48, False),  # of a database that was put back to an earlier state
            ("queued", 2, 2, 2, True),  # the next claim makes a third attempt
            ("queued", 2, 3, 48, False),
            ("succeeded", 2, 2, 2, True),
            ("failed", 2, 9, 2, True),
            ("cancelled", 2, 1, 0.9, False),  # too young
        ],
    )
    @pytest.mark.parametrize("name", ["10.pt", "10.pt.new"])
    def test_no_row_names_it(self, ada, files, status, attempt, of, hours_old, goes, name):
        job_id = submit(ada)
        with db.transaction() as session:
            session.execute(update(Job).values(status=status, attempt=attempt, finished_at=func.now()))
        left = write(files, job_id, of, name, hours_old)
        removed = collect(files)
        assert (left not in names(files)) == goes
        assert (removed.files, removed.file_bytes) == ((1, 10) if goes else (0, 0))

    def test_what_a_row_names_stays_whatever_else_is_there(self, ada, files):
        claim = run(ada)
        kept = checkpoint(files, claim.job_id, 1, 10)
        write(files, claim.job_id, 1, "20.pt", hours_old=48)
        end(claim)
        assert collect(files).files == 1
        assert names(files) == {kept}

    def test_a_file_of_an_unknown_job_is_told_and_left_alone(self, ada, files):
        """It may be another installation's that was given the same folder."""
        write(files, uuid7(), 1, "10.pt", hours_old=10_000)
        removed = collect(files)
        assert (removed.files, removed.unknown_files, removed.unknown_bytes) == (0, 1, 10)
        assert "does not know" in "\n".join(retention.told(Policy(1, None), removed))

    @pytest.mark.parametrize(
        "name", ["thesis.tex", "jobs/readme", "jobs/1/2/3.pt", "jobs/01a210dd-b1c1-7779-afd7-c81e921bfaf7/1"]
    )
    def test_what_is_not_named_like_ours_is_nothing_to_us(self, ada, files, name):
        path = files.place(name)
        path.write_text("mine")
        os.utime(path, (0, 0))
        removed = collect(files)
        assert path.exists()
        assert (removed.files, removed.unknown_files) == (0, 0)

    def test_a_store_elsewhere_and_the_copies_on_their_way(self, ada, tmp_path):
        files = Store(f"memory://retention-{uuid4()}", tmp_path / "scratch")
        claim = run(ada)
        name = write(files, claim.job_id, 1, "10.pt")
        copy = files.place(f"jobs/{claim.job_id}/1/20.pt")
        copy.write_text("half a file")
        os.utime(copy, (0, 0))
        assert collect(files).files == 0
        end(claim)
        assert collect(files).files == 1
        assert not copy.exists()
        assert names(files) == {name}, "it has just been stored there"


class TestAnswers:
    def test_expired_ones_go(self, ada, files):
        with db.transaction() as session:
            for hours in (25, 23):
                made = {"body_digest": "", "resource_id": uuid4(), "answer": ""}
                row = IdempotencyKey(user_id=ada.id, route="r", key=str(hours), **made)
                row.created_at = func.clock_timestamp() - timedelta(hours=hours)
                session.add(row)
        assert collect(files).answers == 1
        assert count(IdempotencyKey) == 1


class TestInterrupted:
    @pytest.fixture
    def much(self, ada, files):
        """Something of everything."""
        for seed in range(6):
            claim = run(ada, seed=seed)
            checkpoint(files, claim.job_id, 1, 10)
            write(files, claim.job_id, 1, "20.pt")
            end(claim, days_ago=2)
        kept = run(ada, seed=9)
        return checkpoint(files, kept.job_id, 1, 10)

    def test_after_any_transaction_nothing_is_half_done_and_the_next_one_completes(self, much, files):
        for transactions in range(1, 6):
            stops = iter([False] * transactions)
            retention.collect(Policy(1, 1), files, lambda stops=stops: next(stops, True))
            with db.transaction() as session:
                assert set(session.scalars(select(Checkpoint.file))) <= names(files)
        assert collect(files, points_days=1).problems == []
        assert names(files) == {much}
        assert (count(MetricChunk), count(Checkpoint), count(Job)) == (0, 1, 7)

    @pytest.mark.parametrize("transactions", [1, 2, 4, 6])
    def test_killed(self, much, files, tmp_path, transactions):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(transactions)], check=False)
        assert killed.returncode == -signal.SIGKILL
        with db.transaction() as session:
            assert set(session.scalars(select(Checkpoint.file))) <= names(files)
        assert collect(files, points_days=1).problems == []
        assert names(files) == {much}
        assert (count(MetricChunk), count(Checkpoint), count(Job)) == (0, 1, 7)


KILLED = """
import os, signal, sys
from pathlib import Path
from service import retention
from service.store import Store
asked = 0
def kill():
    global asked
    asked += 1
    if asked > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
retention.MOST_ROWS = 16
retention.collect(retention.Policy(1, 1), Store(sys.argv[1] + "/files", Path(sys.argv[1], "scratch")), kill)
"""


class TestSweep:
    def test_is_cheap_where_there_is_nothing_to_do(self, ada, files, monkeypatch):
        monkeypatch.setattr(retention, "store", lambda: files)
        end(run(ada))
        statements = []
        event.listen(db.engine(), "before_cursor_execute", lambda *call: statements.append(call[2]))
        assert retention.sweep().is_nothing
        assert len(statements) <= 3

    def test_never_raises(self, ada, monkeypatch):
        def refuse(*_):
            raise RuntimeError("no such thing")

        monkeypatch.setattr(retention, "store", refuse)
        assert retention.sweep() is None


class TestCommand:
    @pytest.fixture
    def gc(self, files, monkeypatch):
        monkeypatch.setattr("service.commands.store", lambda: files)
        return lambda *options: CliRunner().invoke(app, ["gc", *options])

    def test_a_dry_run_counts_the_same_and_removes_nothing(self, ada, files, gc):
        claim = run(ada)
        checkpoint(files, claim.job_id, 1, 10)
        write(files, claim.job_id, 1, "20.pt")
        end(claim, days_ago=2)
        before = names(files)
        asked = json.loads(gc("--points-days", "1", "--dry-run", "--json").stdout)
        assert names(files) == before
        assert (count(MetricChunk), count(Checkpoint)) == (3, 1)
        told = gc("--points-days", "1", "--json")
        assert told.exit_code == 0
        vary = {"is_dry_run", "seconds", "transactions", "longest_transaction_seconds"}
        done = json.loads(told.stdout)
        assert {name: done[name] for name in done.keys() - vary} == {name: asked[name] for name in asked.keys() - vary}
        assert (done["points"], done["checkpoints"], done["files"]) == (9, 1, 1)

    def test_options_come_before_settings(self, ada, files, gc, monkeypatch):
        monkeypatch.setenv("KOTRAIN_KEEP_POINTS_DAYS", "1")
        end(run(ada), days_ago=2)
        assert "points       0 of jobs that ended 3 days ago" in gc("--points-days", "3").stdout
        assert "points       9 of jobs that ended 1 day ago" in gc().stdout

    def test_trouble_is_told_on_standard_error(self, ada, files, gc, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Store, "names", refuse)
        said = gc()
        assert said.exit_code == 1
        assert "Permission denied" in said.stderr


class TestQuestionsAfterwards:
    """What needs the points says so; nothing turns them into a miss."""

    @pytest.fixture
    def runs(self, ada, files):
        watched = {"target": {"value": 0.8}}
        hit = {"step": 2, "wall_seconds": 0.2}
        found = [end(run(ada, seed=seed, **watched), days_ago=seed, hit=hit) for seed in range(6)]
        assert collect(files, points_days=3).points == 3 * 9
        return found

    def ask(self, api, **query):
        return api.get("/v1/compare", params={"dataset": "digits", "model": "mlp", **query})

    def test_an_end_result_needs_no_points(self, api, ada, runs):
        (group,) = self.ask(api).json()["groups"]
        assert (group["n"], group["steps_to_target"]) == (6, 2)

    def test_a_target_that_they_watched_for_was_recorded(self, api, ada, runs):
        (group,) = self.ask(api, target=0.8).json()["groups"]
        assert (group["n"], group["steps_to_target"]) == (6, 2)

    def test_another_target_is_refused_and_not_answered_by_a_miss(self, api, ada, runs):
        refused = self.ask(api, target=0.9)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "target"
        assert "3 of the runs" in refused.json()["detail"]

    def test_curves_are_empty(self, api, ada, runs):
        assert api.get(f"/v1/jobs/{runs[-1]}/metrics").json() == {"metrics": {}}
        assert api.get(f"/v1/jobs/{runs[0]}/metrics").json()["metrics"].keys() == POINTS.keys()


@pytest.mark.parametrize("format", ["html", "csv", "latex", "json"])
def test_a_comparison_and_its_reports_without_points(api, files, format):
    with db.transaction() as session:
        session.execute(
            text("INSERT INTO workers (id, host, slots, devices, torch) VALUES ('w', 'h', 2, '[]', '2.14.1')")
        )
    task = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}, "target": {"value": 0.8}}
    body = {"tasks": [task], "optimizers": ["adam", "sgd"], "seeds": 2}
    comparison = api.post("/v1/comparisons", json=body).json()["id"]
    ended = []
    while True:
        with db.transaction() as session:
            claim = attempts.claim(session, "w", has_cuda=False)
        if claim is None:
            break
        ended.append(end(claim, hit={"step": 2, "wall_seconds": 0.2}))
    with db.transaction() as session:
        comparisons.advance_one(session, comparison)
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
