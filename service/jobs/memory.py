"""The memory of this machine, and how much of it each job of its worker may use.

The training engine, with torch, is loaded once and shared by all jobs; limits count what a job uses beyond it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.jobs.requests import MIN_MEMORY_BYTES
from service.specs.quantities import size

USED_SHARE = 0.8
"""Share of the memory for the engine and the jobs; the rest is for servers, the worker itself and the system."""
USUAL_ENGINE_BYTES = 2**29
"""Resident memory of the training engine, where it has not been measured; 450 MiB with a CPU build of torch."""


def machine_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no cgroup v2, or "max"
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return physical


def default_slots(cores: int) -> int:
    """One per core, but no more than get twice the least memory of a job."""
    return max(1, min(cores, _for_jobs(USUAL_ENGINE_BYTES) // (2 * MIN_MEMORY_BYTES)))


@dataclass(frozen=True)
class JobMemory:
    """The memory of each CPU job of a worker with this many slots."""

    slots: int
    setting: int | None
    """KOTRAIN_JOB_MEMORY_BYTES; an equal share of what the engine leaves if None."""
    engine_bytes: int = USUAL_ENGINE_BYTES

    @property
    def limit_bytes(self) -> int:
        """Memory limit of a job."""
        return self.setting or _for_jobs(self.engine_bytes) // self.slots

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Why no job fits into its share of the memory, and the remedy; None if it does."""
        if self.limit_bytes >= MIN_MEMORY_BYTES:
            return None
        most = _for_jobs(self.engine_bytes) // MIN_MEMORY_BYTES
        return (
            f"{self.slots} slots leave {size(self.limit_bytes)} of {size(machine_bytes())} to each job, beyond the "
            f"{size(self.engine_bytes)} of the training engine; a job needs at least {size(MIN_MEMORY_BYTES)}",
            f"set KOTRAIN_SLOTS to at most {most}" if most else "use a machine with more memory",
        )

    @property
    def warning(self) -> str | None:
        """Why jobs that keep to their limits may exhaust the memory; None if they cannot."""
        if self.slots * self.limit_bytes + self.engine_bytes <= machine_bytes():
            return None
        return (
            f"{self.slots} jobs of {size(self.limit_bytes)} (KOTRAIN_SLOTS, KOTRAIN_JOB_MEMORY_BYTES) and the training "
            f"engine may need more than the {size(machine_bytes())} of memory"
        )


def _for_jobs(engine_bytes: int) -> int:
    return max(0, int(USED_SHARE * machine_bytes()) - engine_bytes)
