"""What a supervisor and its child say to each other: tuples over a pipe, the first element being one of these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED = "started"
"""(STARTED, environment, total_steps): once, before the first step."""
POINTS = "points"
"""(POINTS, step, {name: (steps, values, wall_seconds)})."""
RESULT = "result"
"""(RESULT, Summary as a dict): the run ended by itself, or because it was asked to."""
FAILURE = "failure"
"""(FAILURE, Reason's value, text): it could not go on."""


@dataclass(frozen=True)
class Assignment:
    """What a child is to do, and with which share of the machine."""

    spec: dict[str, Any]
    data_dir: Path
    threads: int
    cuda_device: str | None
    """As CUDA_VISIBLE_DEVICES has it: a number, or the UUID of a GPU or of a part of one; None for none."""
    memory_bytes: int | None
