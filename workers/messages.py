"""Messages between supervisor and child: tuples over a pipe, whose first element is one of these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.specs.quantities import size

STARTED = "started"
"""(STARTED, environment, total_steps, step, reported, seconds): once, before any metric. Training continues after
`step` (0: from the beginning); the metrics `reported` have been stored for that step."""
POINTS = "points"
"""(POINTS, step, {name: (steps, values, wall_seconds)}), at least every second; without points, as a keep-alive."""
CHECKPOINT = "checkpoint"
"""(CHECKPOINT, step, file name, size in bytes, SHA-256, seconds), after all points up to that step."""
NOTE = "note"
"""(NOTE, text): a message for the user; the run continues."""
CHECKPOINT_FAILED = "checkpoint failed"
"""(CHECKPOINT_FAILED, text): a checkpoint could not be written; the run continues."""
RESULT = "result"
"""(RESULT, Summary as a dict): the run has ended, by itself or on request."""
FAILURE = "failure"
"""(FAILURE, value of Reason, text): the run failed."""
UNABLE = "unable"
"""(UNABLE, text): the run cannot start on this machine, which lacks its data; another one may have it."""
NO_ENGINE = "no engine"
"""(NO_ENGINE, text): this machine cannot train at all, because an import fails."""

CANCEL, PAUSE = "cancel", "pause"
"""Requests to the child: end, or write a checkpoint and end."""


@dataclass(frozen=True)
class Assignment:
    """The job of a child, and its share of the machine."""

    spec: dict[str, Any]
    data_dir: Path
    threads: int
    cuda_device: str | None
    """Value of CUDA_VISIBLE_DEVICES: a number, or the UUID of a GPU or MIG device; None without GPU."""
    memory_bytes: int | None
    """Memory that it may use beyond the training engine; None on a GPU, where CUDA reserves huge address ranges."""
    folder: Path
    """Folder of its checkpoints."""
    checkpoint_seconds: float
    resume: Path | None
    """The checkpoint to continue from."""


def memory_text(used_bytes: int, limit_bytes: int) -> str:
    """A clause with the memory used beyond the training engine, its limit and the settings that define the limit."""
    limits = "memory_limit_bytes of the job, KOTRAIN_JOB_MEMORY_BYTES of the worker"
    return f"used {size(used_bytes)} of at most {size(limit_bytes)} ({limits})"
