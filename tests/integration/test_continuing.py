"""What a lost attempt leaves, and what its successor makes of it: checkpoints, the points up to them, and no more."""

import time
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from service.config import settings
from service.jobs import checkpoints, claims, heartbeats, outcomes
from service.jobs.checkpoints import Written, name_of
from service.jobs.heartbeats import Batch, Beat
from service.metrics import read
from service.specs.engine import ENGINE_VERSION
from service.specs.states import Reason
from service.storage import database
from service.storage.files import store
from service.storage.tables import JobEvent
from tests.integration.at_work import REQUEST, claim, do, load, submit


@pytest.fixture(autouse=True)
def files(users, monkeypatch, tmp_path):
    """A store of the test's own."""
    monkeypatch.setenv("KOTRAIN_FILES", str(tmp_path))
    for made in (settings, store):
        made.cache_clear()
    yield
    monkeypatch.undo()
    for made in (settings, store):
        made.cache_clear()


def points(*steps, name="loss"):
    return {name: ([*steps], [1.0 / step for step in steps], [0.1 * step for step in steps])}


def written(mine, step):
    """A checkpoint's file in the store, and what its row will say."""
    name = name_of(mine.job_id, mine.attempt, f"{step}.pt")
    store().place(name).write_bytes(b"state")
    store().put(name)
    return Written(step, name, 5, "digest", 0.1 * step)


def beat(mine, *batches):
    return do(heartbeats.beat, "w1", [Beat(mine, 1, 100, batches)])


def again(job_id):
    """The next attempt."""
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = clock_timestamp()"))
    mine = claim()
    assert mine.job_id == job_id
    return mine


def steps(job_id, name="loss"):
    curves = do(read.curves, [job_id]).get(job_id, {})
    return curves[name].steps.tolist() if name in curves else []


def kept(job_id):
    return [one.step for one in do(checkpoints.newest_first, job_id)]


def in_the_store(*expected):
    """Steps of the files, once they are those: a thread removes them."""
    deadline = time.monotonic() + 10
    while (found := _in_the_store()) != list(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _in_the_store():
    return sorted(int(name.rpartition("/")[2].removesuffix(".pt")) for name, _ in store().names())


def messages(job_id):
    with database.transaction() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row.message for row in rows if row.message]


class TestRows:
    def test_newest_two_are_kept_and_files_of_others_are_removed(self):
        job_id = submit()
        mine = claim()
        for step in (10, 20, 30):
            beat(mine, Batch(points(step), [written(mine, step)]))
        assert (kept(job_id), in_the_store(20, 30)) == ([30, 20], [20, 30])

    def test_batch_sent_again_is_stored_once(self):
        job_id = submit()
        mine = claim()
        batches = [Batch(points(step), [written(mine, step)], ["no room"]) for step in (10, 20, 30)]
        for sent in (batches[:1], batches, batches):
            beat(mine, *sent)
        assert (kept(job_id), in_the_store(20, 30), steps(job_id)) == ([30, 20], [20, 30], [10, 20, 30])
        assert messages(job_id) == ["no room"]

    def test_failed_transaction_keeps_files(self):
        submit()
        mine = claim()
        beat(mine, Batch({}, [written(mine, 10)]), Batch({}, [written(mine, 20)]))

        def fail_after_all(session):
            heartbeats.beat(session, "w1", [Beat(mine, 1, 100, [Batch({}, [written(mine, 30)])])])
            raise RuntimeError("the commit never came")

        with pytest.raises(RuntimeError, match="never came"):
            do(fail_after_all)
        assert in_the_store(10, 20, 30) == [10, 20, 30]

    def test_superseded_attempt_stores_no_checkpoints(self):
        job_id = submit()
        old = claim()
        do(outcomes.fail, job_id, old.attempt, Reason.CHILD_LOST, "gone")
        again(job_id)
        late = Batch(points(10), [written(old, 10)], ["late"])
        beat(old, late)
        assert not do(outcomes.finish, old, Reason.COMPLETED, batches=[late])
        assert not do(outcomes.requeue, old, "drained", batches=[late])
        assert (kept(job_id), steps(job_id), messages(job_id)) == ([], [], ["gone"])


class TestNextAttempt:
    def test_continues_from_a_checkpoint(self):
        job_id = submit()
        mine = claim()
        first = points(*range(1, 5)) | points(2, 4, name="val_loss")
        beat(mine, Batch(first, [written(mine, 4)]), Batch(points(*range(5, 16)), [written(mine, 15)]))
        lost = Batch(points(*range(16, 20)) | points(19, name="late"), [written(mine, 19)])
        do(outcomes.fail, job_id, mine.attempt, Reason.CHILD_LOST, "gone", [lost])
        assert kept(job_id) == [19, 15]
        mine = again(job_id)
        assert do(claims.begin, mine, 15, ["loss"])  # 19 turned out to be damaged
        assert steps(job_id) == list(range(1, 16))
        assert (steps(job_id, "val_loss"), steps(job_id, "late")) == ([2, 4], [])
        assert (kept(job_id), in_the_store(15), load(job_id).step) == ([15], [15], 15)
        assert messages(job_id) == ["gone", "continued after step 15"]

    @pytest.mark.parametrize("step", [1, 2, 3, 6, 7])
    def test_chunks_are_trimmed_at_the_start(self, step):
        job_id = submit()
        mine = claim()
        beat(mine, Batch(points(1, 2, 3)), Batch(points(4, 5, 6)))
        do(outcomes.requeue, mine, "drained", batches=[Batch(points(7, 8))])
        mine = again(job_id)
        do(claims.begin, mine, step, ["loss"])
        beat(mine, Batch(points(*range(step + 1, 10))))
        do(outcomes.finish, mine, Reason.COMPLETED, batches=[Batch(points(10))])
        curve = do(read.curves, [job_id])[job_id]["loss"]
        assert curve.steps.tolist() == list(range(1, 11))
        assert curve.values.tolist() == [1.0 / at for at in range(1, 11)]

    def test_points_at_the_start_step_are_measured_again(self):
        """It was stopped before its validation; the next attempt was lost between that and its next checkpoint."""
        job_id = submit()
        mine = claim()
        do(outcomes.requeue, mine, "drained", batches=[Batch(points(1, 2, 3), [written(mine, 3)])])
        mine = again(job_id)
        do(claims.begin, mine, 3, ["loss"])
        do(outcomes.fail, job_id, mine.attempt, Reason.CHILD_LOST, "gone", [Batch(points(1, 3, name="val_loss"))])
        assert (steps(job_id), steps(job_id, "val_loss")) == ([1, 2, 3], [1, 3])
        mine = again(job_id)
        do(claims.begin, mine, 3, ["loss"])
        assert (steps(job_id), steps(job_id, "val_loss")) == ([1, 2, 3], [1])

    def test_later_checkpoint_of_the_same_step_replaces_the_earlier(self):
        job_id = submit()
        first = claim()
        do(outcomes.requeue, first, "drained", batches=[Batch({}, [written(first, 3)])])
        second = again(job_id)
        do(claims.begin, second, 3)
        for _ in range(2):  # sent again, it stays
            beat(second, Batch(points(3, name="val_loss"), [written(second, 3)]))
            (only,) = do(checkpoints.newest_first, job_id)
            assert only.file == name_of(job_id, 2, "3.pt")
            assert in_the_store(3) == [3]
            assert [name for name, _ in store().names()] == [only.file]

    def test_checkpoints_before_a_version_without_them_are_deleted(self):
        """That one discarded the points, started from the beginning and left the rows."""
        job_id = submit()
        mine = claim()
        do(outcomes.requeue, mine, "drained", batches=[Batch(points(1, 2), [written(mine, 2)])])
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET attempt = attempt + 1"))
            session.execute(text("DELETE FROM metric_chunks"))
        again(job_id)
        assert (kept(job_id), in_the_store()) == ([], [])

    def test_restart_from_the_start_deletes_everything(self):
        job_id = submit()
        mine = claim()
        do(outcomes.requeue, mine, "drained", batches=[Batch(points(1, 2), [written(mine, 2)])])
        mine = again(job_id)
        assert do(claims.begin, mine, 0)
        assert (steps(job_id), kept(job_id), in_the_store(), load(job_id).step) == ([], [], [], 0)
        assert messages(job_id) == ["drained", "began anew"]

    def test_requeued_for_missing_checkpoints_records_since_when(self):
        job_id = submit()
        do(outcomes.requeue, claim(), "drained")
        assert do(claims.waited_seconds, job_id) == 0
        for waiting in range(3):
            mine = again(job_id)
            do(outcomes.requeue, mine, f"{claims.WAITS}: 2.pt is not there")
            time.sleep(0.05)
            assert do(claims.waited_seconds, job_id) >= 0.05 * (waiting + 1)
        mine = again(job_id)
        do(claims.begin, mine, 0)
        assert do(claims.waited_seconds, job_id) == 0
        before = time.monotonic()
        do(outcomes.requeue, mine, f"{claims.WAITS}: 3.pt is not there")
        waited = do(claims.waited_seconds, job_id)
        assert 0 < waited <= time.monotonic() - before  # counted anew

    def test_shows_progress_of_the_preceding_attempt_until_it_begins(self):
        job_id = submit()
        mine = claim()
        do(heartbeats.beat, "w1", [Beat(mine, 40, 100, [])])
        do(outcomes.requeue, mine, "drained")
        assert again(job_id).step == 40
        assert load(job_id).step == 40


def test_job_of_a_newer_engine_waits_for_it():
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
    mine = claim()
    do(outcomes.requeue, mine, "drained", batches=[Batch({}, [written(mine, 2)], ["no room"])])
    do(claims.begin, again(mine.job_id), 2)
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
