"""Transfers to and from stores that hang, refuse, or are slow."""

import threading
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from service.config import settings
from service.jobs.checkpoints import Written
from service.jobs.claims import Claim
from service.storage.files import Absent, digest, store
from tests.slow_files import SlowFiles
from tests.waiting import until
from workers.checkpoint_transfer import TransferCancelled, Uploads, fetch_newest_valid
from workers.heartbeat import AttemptState

STALL_SECONDS = 1


@pytest.fixture(autouse=True)
def slow(monkeypatch, tmp_path):
    """The store of the process is a slow one, whose gate is open."""
    monkeypatch.setenv("KOTRAIN_FILES", "slow://kotrain")
    monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
    monkeypatch.setenv("KOTRAIN_STALL_SECONDS", str(STALL_SECONDS))
    monkeypatch.setattr(SlowFiles, "gate", threading.Event())
    monkeypatch.setattr(SlowFiles, "error", None)
    monkeypatch.setattr(SlowFiles, "transfers", 0)
    SlowFiles.gate.set()
    SlowFiles.store.clear()
    for made in (settings, store):
        made.cache_clear()
    yield SlowFiles
    SlowFiles.gate.set()
    until(lambda: not transferring())
    monkeypatch.undo()
    for made in (settings, store):
        made.cache_clear()


@pytest.fixture
def state():
    return AttemptState(Claim(uuid4(), 2, {}, None, None, 0))


def written(step, contents=b"state"):
    """A checkpoint that a child has left on this machine."""
    path = store().place(f"{step}.pt")
    path.write_bytes(contents)
    return Written(step, f"{step}.pt", len(contents), digest(path), 0.1)


def stored(step):
    one = written(step)
    store().put(one.file)
    return one


def kept(state):
    return [one.step for batch in state.pending() for one in batch.checkpoints]


def notes(state):
    return [note for batch in state.pending() for note in batch.notes]


def until_done(uploads):
    until(lambda: uploads.poll() or uploads.are_done)


def transferring():
    return [thread for thread in threading.enumerate() if thread.name == "transfer"]


class TestUploads:
    def test_what_has_arrived_counts_and_its_copy_is_gone(self, state, tmp_path):
        uploads = Uploads(state)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(state), notes(state)) == ([1], [])
        assert [name for name, _ in store().names()] == ["1.pt"]
        assert not store().path("1.pt").exists()

    def test_nobody_waits_and_only_the_newest_follows(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        began = time.monotonic()
        for step in (1, 2, 3):
            uploads.add(written(step))
        assert time.monotonic() - began < 1
        assert (kept(state), uploads.are_done) == ([], False)
        assert not store().path("2.pt").exists()
        slow.gate.set()
        until_done(uploads)
        assert kept(state) == [1, 3]

    def test_a_store_that_hangs_is_given_up(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(state), notes(state)) == ([], ["a checkpoint could not be stored: TimeoutError"])
        assert not store().path("1.pt").exists()
        for step in (2, 3):  # it still hangs: not one thread more for each
            uploads.add(written(step))
            until_done(uploads)
        assert notes(state) == 3 * ["a checkpoint could not be stored: TimeoutError"]
        assert slow.transfers == 1
        slow.gate.set()
        until(lambda: not transferring())
        uploads.add(written(4))
        until_done(uploads)
        assert kept(state) == [4]

    def test_one_that_moves_may_take_long(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        uploads.add(written(1))
        for _ in range(8):
            time.sleep(STALL_SECONDS / 4)
            slow.progress.relative_update(1)
            uploads.poll()
        slow.gate.set()
        until_done(uploads)
        assert (kept(state), notes(state)) == ([1], [])

    def test_a_store_that_refuses_is_told_of(self, state, slow):
        slow.error = PermissionError("not yours")
        uploads = Uploads(state)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(state), notes(state)) == ([], ["a checkpoint could not be stored: PermissionError"])


class TestTheNewestSound:
    def test_is_the_first_that_is_not_damaged(self, state):
        older, newer = stored(1), stored(2)
        with store()._files.open(store()._at("2.pt"), "wb") as file:
            file.write(b"STATE")
        copy = fetch_newest_valid([newer, older], state, lambda: False)
        assert copy.read_bytes() == b"state"
        assert copy.name.startswith("1.pt")
        (note,) = notes(state)
        assert note.startswith("a checkpoint could not be used: 2.pt does not match its SHA-256")

    def test_may_be_none(self, state):
        assert fetch_newest_valid([], state, lambda: False) is None
        damaged = stored(1)
        assert fetch_newest_valid([replace(damaged, sha256="0" * 64)], state, lambda: False) is None

    def test_is_waited_for_where_one_is_not_there(self, state):
        """Nothing removes a file before its row: its disk is away, or it lies on another host."""
        damaged = replace(stored(1), sha256="0" * 64)
        with pytest.raises(Absent, match=r"2\.pt is missing"):
            fetch_newest_valid([written(2), damaged], state, lambda: False)
        assert len(notes(state)) == 2

    def test_is_an_older_one_where_the_newest_is_not_there(self, state):
        older = stored(1)
        assert fetch_newest_valid([written(2), older], state, lambda: False).read_bytes() == b"state"

    def test_is_not_waited_for_by_a_job_that_is_to_end(self, state, slow):
        rows = [stored(1)]
        slow.gate.clear()
        began = time.monotonic()
        with pytest.raises(TransferCancelled):
            fetch_newest_valid(rows, state, lambda: slow.transfers == 2)
        assert time.monotonic() - began < STALL_SECONDS

    def test_is_not_waited_for_longer_than_a_hanging_process(self, state, slow):
        rows = [stored(1)]
        slow.gate.clear()
        with pytest.raises(TimeoutError, match="no progress of the store of checkpoints for 1 s"):
            fetch_newest_valid(rows, state, lambda: False)

    def test_an_error_of_the_store_is_told_as_it_is(self, state, slow):
        rows = [stored(1)]
        slow.error = ConnectionError("reset by peer")
        with pytest.raises(ConnectionError, match="reset by peer"):
            fetch_newest_valid(rows, state, lambda: False)
