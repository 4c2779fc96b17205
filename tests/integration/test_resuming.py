"""The next attempt after a lost one keeps its checkpoints and the points up to them, and nothing else."""

import time
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from service.config import settings
from service.jobs import checkpoints, claims, heartbeats, outcomes
from service.jobs.checkpoints import Written, name_of
from service.jobs.heartbeats import Batch, Beat
from service.metrics import read
from service.specs.states import Reason
from service.specs.training import ENGINE_VERSION
from service.storage import database
from service.storage.files import store
from service.storage.tables import JobEvent
from tests.integration.job_calls import REQUEST, claim, do, load, submit


@pytest.fixture(autouse=True)
def files(users, monkeypatch, tmp_path):
    """An empty store for one test."""
    monkeypatch.setenv("KOTRAIN_FILES", str(tmp_path))
    for cached in (settings, store):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (settings, store):
        cached.cache_clear()


def points(*steps, name="loss"):
    return {name: ([*steps], [1.0 / step for step in steps], [0.1 * step for step in steps])}


def write_checkpoint(claimed, step):
    """Store a checkpoint's file; return the record for its row."""
    name = name_of(claimed.job_id, claimed.attempt, f"{step}.pt")
    store().place(name).write_bytes(b"state")
    store().put(name)
    return Written(step, name, 5, "digest", 0.1 * step)


def beat(claimed, *batches):
    return do(heartbeats.beat, "w1", [Beat(claimed, 1, 100, batches)])


def claim_again(job_id):
    """Start the next attempt."""
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = clock_timestamp()"))
    claimed = claim()
    assert claimed.job_id == job_id
    return claimed


def steps(job_id, name="loss"):
    curves = do(read.curves, [job_id]).get(job_id, {})
    return curves[name].steps.tolist() if name in curves else []


def stored_checkpoints(job_id):
    return [checkpoint.step for checkpoint in do(checkpoints.newest_first, job_id)]


def stored_files(*expected):
    """Steps of the files in the store; waits for the expected ones, because a thread removes files."""
    deadline = time.monotonic() + 10
    while (actual := _stored_files()) != list(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
    return actual


def _stored_files():
    return sorted(int(name.rpartition("/")[2].removesuffix(".pt")) for name, _ in store().names())


def messages(job_id):
    with database.transaction() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row.message for row in rows if row.message]


class TestRows:
    def test_newest_two_are_kept_and_files_of_others_are_removed(self):
        job_id = submit()
        claimed = claim()
        for step in (10, 20, 30):
            beat(claimed, Batch(points(step), [write_checkpoint(claimed, step)]))
        assert (stored_checkpoints(job_id), stored_files(20, 30)) == ([30, 20], [20, 30])

    def test_batch_sent_again_is_stored_once(self):
        job_id = submit()
        claimed = claim()
        batches = [Batch(points(step), [write_checkpoint(claimed, step)], ["no room"]) for step in (10, 20, 30)]
        for batches_sent in (batches[:1], batches, batches):
            beat(claimed, *batches_sent)
        assert (stored_checkpoints(job_id), stored_files(20, 30), steps(job_id)) == ([30, 20], [20, 30], [10, 20, 30])
        assert messages(job_id) == ["no room"]

    def test_failed_transaction_keeps_files(self):
        submit()
        claimed = claim()
        beat(claimed, Batch({}, [write_checkpoint(claimed, 10)]), Batch({}, [write_checkpoint(claimed, 20)]))

        def beat_and_fail(session):
            heartbeats.beat(session, "w1", [Beat(claimed, 1, 100, [Batch({}, [write_checkpoint(claimed, 30)])])])
            raise RuntimeError("not committed")

        with pytest.raises(RuntimeError, match="not committed"):
            do(beat_and_fail)
        assert stored_files(10, 20, 30) == [10, 20, 30]

    def test_superseded_attempt_stores_no_checkpoints(self):
        job_id = submit()
        old = claim()
        do(outcomes.fail, job_id, old.attempt, Reason.CHILD_LOST, "gone")
        claim_again(job_id)
        late = Batch(points(10), [write_checkpoint(old, 10)], ["late"])
        beat(old, late)
        assert not do(outcomes.finish, old, Reason.COMPLETED, batches=[late])
        assert not do(outcomes.requeue, old, "drained", batches=[late])
        assert (stored_checkpoints(job_id), steps(job_id), messages(job_id)) == ([], [], ["gone"])


class TestNextAttempt:
    def test_continues_from_a_checkpoint(self):
        job_id = submit()
        claimed = claim()
        first = points(*range(1, 5)) | points(2, 4, name="val_loss")
        beat(
            claimed,
            Batch(first, [write_checkpoint(claimed, 4)]),
            Batch(points(*range(5, 16)), [write_checkpoint(claimed, 15)]),
        )
        lost = Batch(points(*range(16, 20)) | points(19, name="late"), [write_checkpoint(claimed, 19)])
        do(outcomes.fail, job_id, claimed.attempt, Reason.CHILD_LOST, "gone", [lost])
        assert stored_checkpoints(job_id) == [19, 15]
        claimed = claim_again(job_id)
        assert do(claims.begin, claimed, 15, ["loss"])  # 19 turned out to be damaged
        assert steps(job_id) == list(range(1, 16))
        assert (steps(job_id, "val_loss"), steps(job_id, "late")) == ([2, 4], [])
        assert (stored_checkpoints(job_id), stored_files(15), load(job_id).step) == ([15], [15], 15)
        assert messages(job_id) == ["gone", "continued after step 15"]

    @pytest.mark.parametrize("step", [1, 2, 3, 6, 7])
    def test_chunks_are_trimmed_at_the_start(self, step):
        job_id = submit()
        claimed = claim()
        beat(claimed, Batch(points(1, 2, 3)), Batch(points(4, 5, 6)))
        do(outcomes.requeue, claimed, "drained", batches=[Batch(points(7, 8))])
        claimed = claim_again(job_id)
        do(claims.begin, claimed, step, ["loss"])
        beat(claimed, Batch(points(*range(step + 1, 10))))
        do(outcomes.finish, claimed, Reason.COMPLETED, batches=[Batch(points(10))])
        curve = do(read.curves, [job_id])[job_id]["loss"]
        assert curve.steps.tolist() == list(range(1, 11))
        assert curve.values.tolist() == [1.0 / at for at in range(1, 11)]

    def test_points_at_the_start_step_are_measured_again(self):
        """The first attempt stopped before its validation, the second was lost after it, before its next checkpoint."""
        job_id = submit()
        claimed = claim()
        do(outcomes.requeue, claimed, "drained", batches=[Batch(points(1, 2, 3), [write_checkpoint(claimed, 3)])])
        claimed = claim_again(job_id)
        do(claims.begin, claimed, 3, ["loss"])
        do(outcomes.fail, job_id, claimed.attempt, Reason.CHILD_LOST, "gone", [Batch(points(1, 3, name="val_loss"))])
        assert (steps(job_id), steps(job_id, "val_loss")) == ([1, 2, 3], [1, 3])
        claimed = claim_again(job_id)
        do(claims.begin, claimed, 3, ["loss"])
        assert (steps(job_id), steps(job_id, "val_loss")) == ([1, 2, 3], [1])

    def test_later_checkpoint_of_the_same_step_replaces_the_earlier(self):
        job_id = submit()
        first = claim()
        do(outcomes.requeue, first, "drained", batches=[Batch({}, [write_checkpoint(first, 3)])])
        second = claim_again(job_id)
        do(claims.begin, second, 3)
        for _ in range(2):  # sending it again changes nothing
            beat(second, Batch(points(3, name="val_loss"), [write_checkpoint(second, 3)]))
            (checkpoint,) = do(checkpoints.newest_first, job_id)
            assert checkpoint.file == name_of(job_id, 2, "3.pt")
            assert stored_files(3) == [3]
            assert [name for name, _ in store().names()] == [checkpoint.file]

    def test_checkpoints_that_an_older_version_ignored_are_deleted(self):
        """The older version deleted the points, restarted from the beginning and left the rows of the checkpoints."""
        job_id = submit()
        claimed = claim()
        do(outcomes.requeue, claimed, "drained", batches=[Batch(points(1, 2), [write_checkpoint(claimed, 2)])])
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET attempt = attempt + 1"))
            session.execute(text("DELETE FROM metric_chunks"))
        claim_again(job_id)
        assert (stored_checkpoints(job_id), stored_files()) == ([], [])

    def test_restart_from_the_start_deletes_everything(self):
        job_id = submit()
        claimed = claim()
        do(outcomes.requeue, claimed, "drained", batches=[Batch(points(1, 2), [write_checkpoint(claimed, 2)])])
        claimed = claim_again(job_id)
        assert do(claims.begin, claimed, 0)
        assert (steps(job_id), stored_checkpoints(job_id), stored_files(), load(job_id).step) == ([], [], [], 0)
        assert messages(job_id) == ["drained", "began anew"]

    def test_waiting_time_for_missing_checkpoints_adds_up_until_the_job_begins(self):
        job_id = submit()
        do(outcomes.requeue, claim(), "drained")
        assert do(claims.waited_seconds, job_id) == 0
        for waiting in range(3):
            claimed = claim_again(job_id)
            do(outcomes.requeue, claimed, f"{claims.WAITS}: 2.pt is not there")
            time.sleep(0.05)
            assert do(claims.waited_seconds, job_id) >= 0.05 * (waiting + 1)
        claimed = claim_again(job_id)
        do(claims.begin, claimed, 0)
        assert do(claims.waited_seconds, job_id) == 0
        before = time.monotonic()
        do(outcomes.requeue, claimed, f"{claims.WAITS}: 3.pt is not there")
        waited = do(claims.waited_seconds, job_id)
        assert 0 < waited <= time.monotonic() - before  # counted from zero again

    def test_shows_progress_of_the_preceding_attempt_until_it_begins(self):
        job_id = submit()
        claimed = claim()
        do(heartbeats.beat, "w1", [Beat(claimed, 40, 100, [])])
        do(outcomes.requeue, claimed, "drained")
        assert claim_again(job_id).step == 40
        assert load(job_id).step == 40


def test_job_of_a_newer_engine_waits_for_a_newer_worker():
    waiting, other = submit(), submit()
    with database.transaction() as session:
        newer = {"newer": ENGINE_VERSION + 1, "job": waiting}
        session.execute(text("UPDATE jobs SET engine_version = :newer WHERE id = :job"), newer)
    assert do(claims.count_eligible, 10, has_cuda=True) == 1
    assert claim().job_id == other
    assert claim() is None
    assert load(waiting).status == "queued"


def test_history_over_http(api):
    job_id = api.post("/v1/jobs", json=REQUEST).json()["id"]
    claimed = claim()
    do(outcomes.requeue, claimed, "drained", batches=[Batch({}, [write_checkpoint(claimed, 2)], ["no room"])])
    do(claims.begin, claim_again(claimed.job_id), 2)
    events = api.get(f"/v1/jobs/{job_id}/history").json()["events"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [(event["attempt"], event["status"], event["message"]) for event in events] == [
        (0, "queued", None),
        (1, "running", None),
        (1, "running", "no room"),
        (1, "queued", "drained"),
        (2, "running", None),
        (2, "running", "continued after step 2"),
    ]
    assert api.get(f"/v1/jobs/{uuid4()}/history").status_code == 404
