"""Transfers to and from stores that hang, refuse, or are slow."""

import threading
import time
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.attempts import Claim
from service.checkpoints import Written
from service.config import settings
from service.store import digest, store
from workers.relay import Track
from workers.transfers import Uploads, newest_sound


class SlowFiles(MemoryFileSystem):
    """Files elsewhere, that wait at a gate."""

    protocol = "slow"
    cachable = False
    gate = threading.Event()
    error: Exception | None = None
    asked = 0

    def _wait(self):
        type(self).asked += 1
        self.gate.wait(60)
        if self.error is not None:
            raise self.error

    def put_file(self, *args, **kwargs):
        self._wait()
        super().put_file(*args, **kwargs)

    def get_file(self, *args, **kwargs):
        self._wait()
        super().get_file(*args, **kwargs)


fsspec.register_implementation("slow", SlowFiles, clobber=True)


@pytest.fixture(autouse=True)
def slow(monkeypatch, tmp_path):
    """The store of the process is a slow one, whose gate is open."""
    monkeypatch.setenv("KOTRAIN_FILES", "slow://kotrain")
    monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
    monkeypatch.setenv("KOTRAIN_STALL_SECONDS", "2")
    monkeypatch.setattr(SlowFiles, "gate", threading.Event())
    monkeypatch.setattr(SlowFiles, "error", None)
    monkeypatch.setattr(SlowFiles, "asked", 0)
    SlowFiles.gate.set()
    SlowFiles.store.clear()
    for made in (settings, store):
        made.cache_clear()
    yield SlowFiles
    SlowFiles.gate.set()
    monkeypatch.undo()
    for made in (settings, store):
        made.cache_clear()


@pytest.fixture
def track():
    return Track(Claim(uuid4(), 2, {}, None, None, 0))


def written(step, contents=b"state"):
    """A checkpoint that a child has left on this machine."""
    path = store().place(f"{step}.pt")
    path.write_bytes(contents)
    return Written(step, f"{step}.pt", len(contents), digest(path), 0.1)


def stored(step):
    one = written(step)
    store().put(one.file)
    return one


def kept(track):
    return [one.step for batch in track.seal() for one in batch.checkpoints]


def notes(track):
    return [note for batch in track.seal() for note in batch.notes]


def until_done(uploads):
    deadline = time.monotonic() + 20
    while not uploads.are_done:
        assert time.monotonic() < deadline, "the uploads did not end"
        time.sleep(0.01)
        uploads.look()


class TestUploads:
    def test_what_has_arrived_counts_and_its_copy_is_gone(self, track, tmp_path):
        uploads = Uploads(track)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(track), notes(track)) == ([1], [])
        assert [name for name, _ in store().names()] == ["1.pt"]
        assert not store().path("1.pt").exists()

    def test_nobody_waits_and_only_the_newest_follows(self, track, slow):
        slow.gate.clear()
        uploads = Uploads(track)
        began = time.monotonic()
        for step in (1, 2, 3):
            uploads.add(written(step))
        assert time.monotonic() - began < 1
        assert (kept(track), uploads.are_done) == ([], False)
        assert not store().path("2.pt").exists()
        slow.gate.set()
        until_done(uploads)
        assert kept(track) == [1, 3]

    def test_a_store_that_hangs_is_given_up(self, track, slow):
        slow.gate.clear()
        uploads = Uploads(track)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(track), notes(track)) == ([], ["a checkpoint could not be stored: TimeoutError"])
        assert not store().path("1.pt").exists()
        slow.gate.set()
        uploads.add(written(2))
        until_done(uploads)
        assert kept(track) == [2]

    def test_a_store_that_refuses_is_told_of(self, track, slow):
        slow.error = PermissionError("not yours")
        uploads = Uploads(track)
        uploads.add(written(1))
        until_done(uploads)
        assert (kept(track), notes(track)) == ([], ["a checkpoint could not be stored: PermissionError"])


class TestTheNewestSound:
    def test_is_the_first_that_is_not_damaged(self, track):
        older, newer = stored(1), stored(2)
        with store()._files.open(store()._at("2.pt"), "wb") as file:
            file.write(b"STATE")
        copy = newest_sound([newer, older], track, lambda: False)
        assert copy.read_bytes() == b"state"
        assert copy.name.startswith("1.pt")
        (note,) = notes(track)
        assert note.startswith("a checkpoint could not be used: the contents of 2.pt have changed")

    def test_may_be_none(self, track):
        gone = written(1)
        assert newest_sound([], track, lambda: False) is None
        assert newest_sound([gone], track, lambda: False) is None

    def test_is_not_waited_for_by_a_job_that_is_to_end(self, track, slow):
        rows = [stored(1)]
        slow.gate.clear()
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="to end before its checkpoint has arrived"):
            newest_sound(rows, track, lambda: slow.asked == 2)
        assert time.monotonic() - began < 1.5

    def test_is_not_waited_for_longer_than_a_hanging_process(self, track, slow):
        rows = [stored(1)]
        slow.gate.clear()
        with pytest.raises(TimeoutError, match="did not answer for 2 s"):
            newest_sound(rows, track, lambda: False)

    def test_an_error_of_the_store_is_told_as_it_is(self, track, slow):
        rows = [stored(1)]
        slow.error = ConnectionError("reset by peer")
        with pytest.raises(ConnectionError, match="reset by peer"):
            newest_sound(rows, track, lambda: False)
