"""Garbage collection removes expired data and nothing else, on the real database and a real folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from uuid_utils.compat import uuid7

from service.jobs import outcomes
from service.metrics import read, write
from service.operations import retention
from service.operations.retention import Policy
from service.specs.states import Reason
from service.storage import database
from service.storage.files import Store
from service.storage.tables import Checkpoint, Comparison, ComparisonCell, IdempotencyKey, Job, JobEvent, MetricChunk
from tests.integration.retention.ended_jobs import (
    POINTS,
    checkpoint,
    collect,
    count,
    end,
    names,
    run,
    submit,
    write_file,
)


class TestCheckpoints:
    def test_checkpoints_of_old_jobs_are_removed_with_their_files(self, ada, files):
        old, recent = run(ada), run(ada, seed=1)
        expired = [checkpoint(files, old.job_id, 1, step) for step in (10, 20)]
        current = checkpoint(files, recent.job_id, 1, 10)
        end(old, days_ago=1.1)
        end(recent, days_ago=0.9)
        removed = collect(files)
        assert (removed.checkpoints, removed.checkpoint_bytes, removed.files) == (2, 20, 0)
        assert names(files) == {current}
        assert not set(expired) & names(files)
        assert not files.path("jobs/x").parent.joinpath(str(old.job_id)).exists(), "an empty folder remains"

    @pytest.mark.parametrize("is_running", [True, False])
    def test_checkpoints_of_unfinished_jobs_are_kept(self, ada, files, is_running):
        claim = run(ada)
        stored = {checkpoint(files, claim.job_id, 1, step) for step in (10, 20)}
        if not is_running:
            with database.transaction() as session:
                assert outcomes.requeue(session, claim, "drained")
        assert collect(files, days=0).checkpoints == 0
        assert names(files) == stored
        assert count(Checkpoint) == 2

    def test_kill_between_rows_and_files_leaves_files_that_the_next_collection_removes(self, ada, files, monkeypatch):
        claim = run(ada)
        name = checkpoint(files, claim.job_id, 1, 10)
        end(claim, days_ago=2)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                collect(files)
        assert count(Checkpoint) == 0
        assert names(files) == {name}, "no row may name a missing file"
        assert collect(files).files == 1
        assert names(files) == set()

    @pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), LookupError("Permission denied")])
    def test_file_errors_are_reported_and_do_not_stop_the_collection(self, ada, files, monkeypatch, error):
        """The libraries of remote stores raise their own types of errors."""
        claim = run(ada)
        checkpoint(files, claim.job_id, 1, 10)
        end(claim, days_ago=2)

        def refuse(*_):
            raise error

        monkeypatch.setattr(Store, "remove", refuse)
        removed = collect(files, points_days=1)
        assert "Permission denied" in removed.problems[0]
        assert removed.points == 9


class TestPoints:
    def test_points_are_kept_for_ever_by_default(self, ada, files):
        end(run(ada), days_ago=10_000)
        assert collect(files).points == 0
        assert count(MetricChunk) == 3

    def test_points_of_old_jobs_are_removed_and_the_rest_of_the_job_is_kept(self, ada, files):
        old, recent = end(run(ada), days_ago=31), end(run(ada, seed=1), days_ago=29)
        removed = collect(files, points_days=30)
        assert (removed.points, removed.point_rows) == (9, 3)
        assert removed.point_bytes > 0
        with database.transaction() as session:
            assert read.curves(session, [old, recent]).keys() == {recent}
            assert session.get_one(Job, old).summary["metrics"]["test_accuracy"] == 0.9
            assert len(session.scalars(select(JobEvent).where(JobEvent.job_id == old)).all()) == 3

    def test_many_small_chunks_of_a_failed_job_are_removed(self, ada, files):
        claim = run(ada)
        with database.transaction() as session:
            write.append(session, [(claim.job_id, {"loss": ([step], [0.0], [0.0])}) for step in range(1, 2001)])
            outcomes.fail(session, claim.job_id, 1, Reason.CHILD_LOST, "killed")
            session.execute(update(Job).values(status="failed", reason="child_lost", finished_at=func.now()))
        removed = collect(files, points_days=0)
        assert (removed.points, removed.point_rows) == (2000, 2000)
        assert count(MetricChunk) == 0

    def test_points_of_a_running_job_are_kept(self, ada, files):
        claim = run(ada)
        with database.transaction() as session:
            write.append(session, [(claim.job_id, POINTS)])
        assert collect(files, points_days=0).points == 0

    def test_points_of_a_running_comparison_are_kept(self, ada, files):
        job_id = end(run(ada), days_ago=100)
        cell = {"phase": "report", "task": 0, "optimizer": 0, "trial": 0, "rung": 0, "seed": 0, "is_reused": True}
        with database.transaction() as session:
            comparison = Comparison(user_id=ada.id, name="waits", plan={})
            session.add(comparison)
            session.flush()
            session.add(ComparisonCell(comparison_id=comparison.id, job_id=job_id, **cell))
        assert collect(files, points_days=1).points == 0
        with database.transaction() as session:
            session.execute(update(Comparison).values(status="succeeded"))
        assert collect(files, points_days=1).points == 9

    def test_concurrent_collections_remove_each_row_once(self, ada, files, monkeypatch):
        monkeypatch.setattr(retention, "MAX_ROWS", retention.MIN_ROWS)
        for seed in range(40):
            end(run(ada, seed=seed), days_ago=2)
        with ThreadPoolExecutor(4) as pool:
            concurrent = list(pool.map(lambda _: collect(files, points_days=1), range(4)))
        last = collect(files, points_days=1)  # rows skipped as locked were removed by the holder of the lock
        assert sum(removed.points for removed in [*concurrent, last]) == 40 * 9
        assert last.points == 0

    def test_slow_transactions_become_smaller(self, ada, files, monkeypatch):
        for seed in range(40):
            end(run(ada, seed=seed), days_ago=2)
        monkeypatch.setattr(retention, "BATCH_SECONDS", 1e-9)  # every transaction takes too long
        removed = collect(files, points_days=1)
        assert removed.points == 40 * 9
        assert removed.transactions >= 120 / (128 + 64) + 120 / 256


class TestFiles:
    @pytest.mark.parametrize(
        ("status", "attempt", "file_attempt", "hours_old", "is_removed"),
        [
            ("running", 2, 1, 2, True),
            ("running", 2, 2, 48, False),  # it may become a checkpoint at any moment
            ("running", 2, 3, 48, False),  # the database was restored to an earlier state
            ("queued", 2, 2, 2, True),  # the next claim begins attempt 3
            ("queued", 2, 3, 48, False),
            ("succeeded", 2, 2, 2, True),
            ("failed", 2, 9, 2, True),
            ("cancelled", 2, 1, 0.9, False),  # too young
        ],
    )
    @pytest.mark.parametrize("name", ["10.pt", "10.pt.new"])
    def test_file_without_a_row_is_removed_if_no_attempt_can_use_it(
        self, ada, files, status, attempt, file_attempt, hours_old, is_removed, name
    ):
        job_id = submit(ada)
        with database.transaction() as session:
            session.execute(update(Job).values(status=status, attempt=attempt, finished_at=func.now()))
        file = write_file(files, job_id, file_attempt, name, hours_old)
        removed = collect(files)
        assert (file not in names(files)) == is_removed
        assert (removed.files, removed.file_bytes) == ((1, 10) if is_removed else (0, 0))

    def test_file_with_a_row_is_kept(self, ada, files):
        claim = run(ada)
        name = checkpoint(files, claim.job_id, 1, 10)
        write_file(files, claim.job_id, 1, "20.pt", hours_old=48)
        end(claim)
        assert collect(files).files == 1
        assert names(files) == {name}

    def test_file_of_an_unknown_job_is_reported_and_kept(self, ada, files):
        """It may belong to another installation with the same folder."""
        write_file(files, uuid7(), 1, "10.pt", hours_old=10_000)
        removed = collect(files)
        assert (removed.files, removed.unknown_files, removed.unknown_bytes) == (0, 1, 10)
        assert "not in this database" in "\n".join(retention.describe(Policy(1, None), removed))

    @pytest.mark.parametrize(
        "name", ["thesis.tex", "jobs/readme", "jobs/1/2/3.pt", "jobs/01a210dd-b1c1-7779-afd7-c81e921bfaf7/1"]
    )
    def test_foreign_files_are_ignored(self, ada, files, name):
        path = files.place(name)
        path.write_text("mine")
        os.utime(path, (0, 0))
        removed = collect(files)
        assert path.exists()
        assert (removed.files, removed.unknown_files) == (0, 0)

    def test_local_copies_for_a_remote_store_are_removed_after_the_job(self, ada, tmp_path):
        files = Store(f"memory://retention-{uuid4()}", tmp_path / "scratch")
        claim = run(ada)
        name = write_file(files, claim.job_id, 1, "10.pt")
        copy = files.place(f"jobs/{claim.job_id}/1/20.pt")
        copy.write_text("half a file")
        os.utime(copy, (0, 0))
        assert collect(files).files == 0
        end(claim)
        assert collect(files).files == 1
        assert not copy.exists()
        assert names(files) == {name}, "the file in the remote store is new"


class TestIdempotencyKeys:
    def test_expired_keys_are_removed(self, ada, files):
        with database.transaction() as session:
            for hours in (25, 23):
                fields = {"body_digest": "", "resource_id": uuid4(), "answer": ""}
                row = IdempotencyKey(user_id=ada.id, route="r", key=str(hours), **fields)
                row.created_at = func.clock_timestamp() - timedelta(hours=hours)
                session.add(row)
        assert collect(files).answers == 1
        assert count(IdempotencyKey) == 1
