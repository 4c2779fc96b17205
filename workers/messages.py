"""What a supervisor and its child say to each other: tuples over a pipe, the first element being one of these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.specs.quantities import size

STARTED = "started"
"""(STARTED, environment, total_steps, step, told, seconds): once, before anything is measured. It goes on after `step`,
of which the metrics `told` were measured; 0 is the beginning."""
POINTS = "points"
"""(POINTS, step, {name: (steps, values, wall_seconds)}), at least every second: a sign of life, too."""
CHECKPOINT = "checkpoint"
"""(CHECKPOINT, step, name of the file, size in bytes, SHA-256, seconds); points up to that step were sent before it."""
NOTE = "note"
"""(NOTE, text): something that the user should know and that ends nothing."""
RESULT = "result"
"""(RESULT, Summary as a dict): the run ended by itself, or because it was asked to."""
FAILURE = "failure"
"""(FAILURE, Reason's value, text): it could not go on."""
UNABLE = "unable"
"""(UNABLE, text): it could not begin, because this machine lacks its data; another one may have it."""

CANCEL, PAUSE = "cancel", "pause"
"""What the child is told: to end, or to write a checkpoint and end."""


@dataclass(frozen=True)
class Assignment:
    """What a child is to do, and with which share of the machine."""

    spec: dict[str, Any]
    data_dir: Path
    threads: int
    cuda_device: str | None
    """As CUDA_VISIBLE_DEVICES has it: a number, or the UUID of a GPU or of a part of one; None for none."""
    memory_bytes: int | None
    """What it may allocate; None where that cannot be limited, because CUDA reserves addresses beyond all measure."""
    folder: Path
    """Where it writes its checkpoints."""
    checkpoint_seconds: float
    resume: Path | None
    """The checkpoint to continue from."""


def may_have(memory_bytes: int) -> str:
    """Which limit a job met, for people."""
    limits = "memory_limit_bytes of the job, KOTRAIN_JOB_MEMORY_BYTES of the worker"
    return f"it may have {size(memory_bytes)}: {limits}"
