"""Transfers of checkpoints to and from stores that hang, refuse or are slow."""

import errno
import os
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
    """Make the process's store a slow one, with an open gate."""
    monkeypatch.setenv("KOTRAIN_FILES", "slow://kotrain")
    monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
    monkeypatch.setenv("KOTRAIN_STALL_SECONDS", str(STALL_SECONDS))
    monkeypatch.setattr(SlowFiles, "gate", threading.Event())
    monkeypatch.setattr(SlowFiles, "error", None)
    monkeypatch.setattr(SlowFiles, "transfers", 0)
    SlowFiles.gate.set()
    SlowFiles.store.clear()
    for cached in (settings, store):
        cached.cache_clear()
    yield SlowFiles
    SlowFiles.gate.set()
    until(lambda: not transferring())
    monkeypatch.undo()
    for cached in (settings, store):
        cached.cache_clear()


@pytest.fixture
def state():
    return AttemptState(Claim(uuid4(), 2, {}, None, None, 0))


def written(step, contents=b"state"):
    """A checkpoint file that a child has written on this machine."""
    path = store().place(f"{step}.pt")
    path.write_bytes(contents)
    return Written(step, f"{step}.pt", len(contents), digest(path), 0.1)


def stored(step):
    """A checkpoint in the store."""
    checkpoint = written(step)
    store().put(checkpoint.file)
    return checkpoint


def stored_steps(state):
    """The steps of the checkpoints that wait for the next heartbeat to be recorded."""
    return [checkpoint.step for batch in state.seal() for checkpoint in batch.checkpoints]


def notes(state):
    return [note for batch in state.seal() for note in batch.notes]


def finish(uploads):
    until(lambda: uploads.poll() or uploads.are_done)


def transferring():
    return [thread for thread in threading.enumerate() if thread.name == "transfer"]


class TestUploads:
    def test_records_stored_checkpoint_and_removes_local_copy(self, state, tmp_path):
        uploads = Uploads(state)
        uploads.add(written(1))
        finish(uploads)
        assert (stored_steps(state), notes(state)) == ([1], [])
        assert [name for name, _ in store().names()] == ["1.pt"]
        assert not store().path("1.pt").exists()

    def test_adding_does_not_block_and_only_newest_waits(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        start = time.monotonic()
        for step in (1, 2, 3):
            uploads.add(written(step))
        assert time.monotonic() - start < 1
        assert (stored_steps(state), uploads.are_done) == ([], False)
        assert not store().path("2.pt").exists()
        slow.gate.set()
        finish(uploads)
        assert stored_steps(state) == [1, 3]

    def test_abandons_transfer_to_hanging_store(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        uploads.add(written(1))
        finish(uploads)
        assert (stored_steps(state), notes(state)) == (
            [],
            ["a checkpoint could not be stored in KOTRAIN_FILES: TimeoutError (step 1)"],
        )
        assert not store().path("1.pt").exists()
        for step in (2, 3):  # the store still hangs: no new thread starts
            uploads.add(written(step))
            finish(uploads)
        assert len(notes(state)) == 1
        assert slow.transfers == 1
        assert state.message == "a checkpoint could not be stored in KOTRAIN_FILES: TimeoutError"
        slow.gate.set()
        until(lambda: not transferring())
        uploads.add(written(4))
        finish(uploads)
        assert (stored_steps(state), notes(state)[1:]) == ([4], ["a checkpoint is stored again: step 4"])
        assert state.message is None

    def test_slow_transfer_with_progress_succeeds(self, state, slow):
        slow.gate.clear()
        uploads = Uploads(state)
        uploads.add(written(1))
        for _ in range(8):
            time.sleep(STALL_SECONDS / 4)
            slow.progress.relative_update(1)
            uploads.poll()
        slow.gate.set()
        finish(uploads)
        assert (stored_steps(state), notes(state)) == ([1], [])

    def test_notes_error_of_store(self, state, slow):
        uploads = Uploads(state)
        for error, cause in (
            (PermissionError("not yours"), "PermissionError"),
            (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path"), "No space left on device"),
        ):
            slow.error = error
            uploads.add(written(1))
            finish(uploads)
            assert (stored_steps(state), state.message) == (
                [],
                f"a checkpoint could not be stored in KOTRAIN_FILES: {cause}",
            )
            assert notes(state)[-1] == f"{state.message} (step 1)"

    def test_history_has_each_series_of_failures(self, state, slow):
        for step, error in enumerate([None, "full", "full", None, "full", None], start=1):
            slow.error = error and OSError(errno.ENOSPC, "full")
            uploads = Uploads(state)
            uploads.add(written(step))
            finish(uploads)
        failed, stored = (
            "a checkpoint could not be stored in KOTRAIN_FILES: full (step {})",
            "a checkpoint is stored again: step {}",
        )
        assert notes(state) == [failed.format(2), stored.format(4), failed.format(5), stored.format(6)]

    def test_older_checkpoint_does_not_clear_the_failure_of_a_newer_one(self, state):
        state.step = 20
        state.report_checkpoint_failure("a checkpoint could not be written: No space left on device")
        state.add_checkpoint(written(10))
        assert state.message == "a checkpoint could not be written: No space left on device"
        state.add_checkpoint(written(30))
        assert state.message is None


class TestFetchNewestValid:
    def test_skips_damaged_checkpoint(self, state):
        older, newer = stored(1), stored(2)
        with store()._files.open(store()._at("2.pt"), "wb") as file:
            file.write(b"STATE")
        copy = fetch_newest_valid([newer, older], state, lambda: False)
        assert copy.read_bytes() == b"state"
        assert copy.name.startswith("1.pt")
        (note,) = notes(state)
        assert note.startswith("a checkpoint could not be used: 2.pt does not match its SHA-256")

    def test_returns_none_without_valid_checkpoint(self, state):
        assert fetch_newest_valid([], state, lambda: False) is None
        damaged = stored(1)
        assert fetch_newest_valid([replace(damaged, sha256="0" * 64)], state, lambda: False) is None

    def test_missing_file_raises_absent_to_be_retried(self, state):
        """A row outlives its file only if the disk is not mounted or the file is on another host."""
        damaged = replace(stored(1), sha256="0" * 64)
        with pytest.raises(Absent, match=r"2\.pt is missing"):
            fetch_newest_valid([written(2), damaged], state, lambda: False)
        assert len(notes(state)) == 2

    def test_uses_older_checkpoint_if_newest_is_missing(self, state):
        older = stored(1)
        assert fetch_newest_valid([written(2), older], state, lambda: False).read_bytes() == b"state"

    def test_job_that_has_to_stop_does_not_wait(self, state, slow):
        rows = [stored(1)]
        slow.gate.clear()
        start = time.monotonic()
        with pytest.raises(TransferCancelled):
            fetch_newest_valid(rows, state, lambda: slow.transfers == 2)
        assert time.monotonic() - start < STALL_SECONDS

    def test_hanging_store_raises_timeout_error(self, state, slow):
        rows = [stored(1)]
        slow.gate.clear()
        with pytest.raises(TimeoutError, match="no progress of the store of checkpoints for 1 s"):
            fetch_newest_valid(rows, state, lambda: False)

    def test_raises_error_of_store(self, state, slow):
        rows = [stored(1)]
        slow.error = ConnectionError("reset by peer")
        with pytest.raises(ConnectionError, match="reset by peer"):
            fetch_newest_valid(rows, state, lambda: False)
