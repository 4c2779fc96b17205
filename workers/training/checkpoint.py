"""Checkpoints: the whole state of a run in one file, from which another process goes on, bit for bit.

The file is torch's own format, read with `weights_only=True`: nothing in it is executed.
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
"""At the end of an epoch, which is a good place to continue from, so much of the interval is enough."""


class Place(NamedTuple):
    """Where a run is: after so many optimizer steps, of the last of which these metrics were reported.

    They are a part of it because a run can be stopped between a step and its validation, or while it is tested.
    """

    step: int = 0
    told: frozenset[str] = frozenset()


class Saved(NamedTuple):
    """A checkpoint that was written; its file is complete and on the disk."""

    step: int
    """Optimizer steps done."""
    name: str
    """Of the file, in the run's folder."""
    size_bytes: int
    sha256: str
    seconds: float
    """Wall-clock of the run until then, over all processes that it was made by."""


class Unusable(ValueError):
    """A checkpoint of a run that would have gone on otherwise than this one; the message says what differs."""


class Keeper:
    """Decides when a run writes a checkpoint, and writes it.

    Args:
        folder: where the files go, made with the first of them; nobody else writes there.
        every_seconds: between two of them.
        report: gets each that was written.
        warn: gets a sentence for each that could not be written (no room on the disk); the run goes on without.
    """

    def __init__(
        self, folder: Path, every_seconds: float, report: Callable[[Saved], None], warn: Callable[[str], None]
    ) -> None:
        self._folder, self._every_seconds = folder, every_seconds
        self._report, self._warn = report, warn
        self._looked_at = time.perf_counter()
        self._place: Place | None = None

    def has(self, place: Place) -> None:
        """A checkpoint of this place is there already: the one that the run continues from."""
        self._place = place

    def is_due(self, *, at_epoch_end: bool) -> bool:
        """Whether a run that has come so far should write one now."""
        wait = self._every_seconds * (EPOCH_END_SHARE if at_epoch_end else 1)
        return time.perf_counter() - self._looked_at >= wait

    def save(self, place: Place, seconds: float, state: dict[str, Any]) -> None:
        """Write a checkpoint, unless the last one is of this very place."""
        if place == self._place:
            return
        step = place.step
        name = f"{step}.pt"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            size_bytes, sha256 = write(state, self._folder / name)
        except OSError as error:
            self._warn(f"a checkpoint could not be written: {error.strerror or error}")
        else:
            self._place = place
            self._report(Saved(step, name, size_bytes, sha256, seconds))
        self._looked_at = time.perf_counter()


class _Hashing:
    """A file that is written from its beginning to its end, and what was written.

    It remembers an error of its own, because torch's writer turns it into one that says nothing.
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
        """Nothing: the file is flushed once it is complete."""


def write(state: dict[str, Any], path: Path) -> tuple[int, str]:
    """Write a state so that the file is there whole or not at all, and outlives a power cut; its bytes and SHA-256.

    Raises:
        OSError: no room, or no permission; nothing is left behind.
    """
    unfinished = path.with_name(path.name + ".new")
    try:
        with unfinished.open("wb") as file:
            hashing = _Hashing(file)
            try:
                torch.save(state, hashing)  # type: ignore[arg-type]  # all that it needs of a file is here
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
    """The state in a file that `write` made, its tensors on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def random_states() -> dict[str, Any]:
    """The states of all generators that belong to the process: torch's, on each device, Python's and numpy's."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """What `random_states` gave holds again."""
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
