"""Checkpoints: the whole state of a run in one file, from which another process continues bit for bit.

The file is in torch's own format and read with `weights_only=True`, so that nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

EPOCH_END_SHARE = 0.1
"""Share of the interval that suffices at the end of an epoch, a natural point to continue from."""


class Position(NamedTuple):
    """Position of a run: the number of optimizer steps done, and the metrics already reported for the last of them.

    The metrics belong to it because a run can be stopped between a step and its validation, or during its test.
    """

    step: int = 0
    reported: frozenset[str] = frozenset()


class Saved(NamedTuple):
    """A checkpoint whose file is complete and synced to disk."""

    step: int
    """Optimizer steps done."""
    name: str
    """Name of the file in the run's folder."""
    size_bytes: int
    sha256: str
    seconds: float
    """Wall-clock seconds of the run up to the checkpoint, over all its processes."""


class Unusable(ValueError):
    """A checkpoint from which this run would continue differently; the message names the differences."""


class CheckpointWriter:
    """Decides when a run writes a checkpoint, and writes it.

    Args:
        folder: folder of the files, created with the first one; used by this run alone.
        every_seconds: interval of the checkpoints.
        report: called with each checkpoint written.
        warn: called with a message for each checkpoint that could not be written (disk full); the run continues.
    """

    def __init__(
        self, folder: Path, every_seconds: float, report: Callable[[Saved], None], warn: Callable[[str], None]
    ) -> None:
        self._folder, self._every_seconds = folder, every_seconds
        self._report, self._warn = report, warn
        self._attempted_at = time.perf_counter()
        self._saved: Position | None = None

    def mark_saved(self, position: Position) -> None:
        """Record that a checkpoint of this position exists: the one that the run continues from."""
        self._saved = position

    def is_due(self, *, at_epoch_end: bool) -> bool:
        """Whether the interval since the last checkpoint has passed."""
        wait = self._every_seconds * (EPOCH_END_SHARE if at_epoch_end else 1)
        return time.perf_counter() - self._attempted_at >= wait

    def save(self, position: Position, seconds: float, state: dict[str, Any]) -> None:
        """Write a checkpoint, unless the last one has the same position."""
        if position == self._saved:
            return
        step = position.step
        name = f"{step}.pt"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            size_bytes, sha256 = write(state, self._folder / name)
        except OSError as error:
            self._warn(f"a checkpoint could not be written to KOTRAIN_FILES: {error.strerror or error}")
        else:
            self._saved = position
            self._report(Saved(step, name, size_bytes, sha256, seconds))
        self._attempted_at = time.perf_counter()


class _HashingFile:
    """A file that is written sequentially, with the hash and size of its content.

    It keeps the error of a failed write, because torch's writer replaces it with one that lacks the cause.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, piece: Any) -> int:
        try:
            self._file.write(piece)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(piece)
        size = memoryview(piece).nbytes
        self.size_bytes += size
        return size

    def flush(self) -> None:
        """Do nothing: the file is flushed once it is complete."""


def write(state: dict[str, Any], path: Path) -> tuple[int, str]:
    """Write a state atomically and durably, and return the size and SHA-256 of the file.

    Raises:
        OSError: disk full, or permission denied; no partial file remains.
    """
    unfinished = path.with_name(path.name + ".new")
    try:
        with unfinished.open("wb") as file:
            hashing = _HashingFile(file)
            try:
                torch.save(state, hashing)  # type: ignore[arg-type]  # it calls `write` and `flush` only
            except Exception:
                if hashing.error is not None:
                    raise hashing.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return hashing.size_bytes, hashing.sha256.hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The state in a file written by `write`, with its tensors on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def random_states() -> dict[str, Any]:
    """The states of the process's global generators: torch's on each device, Python's and numpy's."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the states returned by `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
