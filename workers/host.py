"""The slots and devices of a worker, and the share of them that a job gets."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from uuid_utils.compat import uuid7

from service.config import settings
from workers import process


class Host:
    """A worker process and its devices. `draining` is set when the worker shuts down."""

    def __init__(self) -> None:
        self.id = f"{socket.gethostname()}-{uuid7().hex[-12:]}"
        self.name = socket.gethostname()
        self.torch, self.gpus = process.describe_machine()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpu_names = visible.split(",") if visible else [str(index) for index in range(len(self.gpus))]
        self.cores = len(os.sched_getaffinity(0))
        self.slots = settings().slots or len(self.gpus) or self.cores
        self.draining = threading.Event()
        self.failure: str | None = None
        """Why this machine cannot train."""
        self.job_ended = threading.Event()
        """Set when a job has ended, to run maintenance at once."""
        self._lock = threading.Lock()
        self._busy = 0
        self._jobs_on_gpu = Counter(dict.fromkeys(range(len(self.gpus)), 0))

    @property
    def has_cuda(self) -> bool:
        """Whether jobs that need a GPU can run here."""
        return bool(self.gpus)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The devices as stored in the table of workers."""
        return [*self.gpus, {"kind": "cpu", "name": f"{self.cores} cores", "memory_bytes": _memory_bytes()}]

    @property
    def threads_per_job(self) -> int:
        """CPU threads of one job. Results may depend on it, so it is recorded with each job."""
        return max(1, self.cores // self.slots)

    @property
    def job_memory_bytes(self) -> int:
        """Memory limit of a CPU job: by default its share of 80 % of the memory."""
        return settings().job_memory_bytes or int(0.8 * _memory_bytes() / self.slots)

    @property
    def idle_slots(self) -> int:
        """Slots without a job."""
        return self.slots - self._busy

    def fail(self, reason: str) -> None:
        """Shut the worker down because this machine cannot train."""
        with self._lock:
            if self.draining.is_set():
                return
            self.failure = reason
            self.draining.set()
        os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def slot(self, *, on_gpu: bool) -> Iterator[str | None]:
        """Occupy a slot and, with `on_gpu`, the GPU with the fewest jobs; yields its `CUDA_VISIBLE_DEVICES`."""
        with self._lock:
            self._busy += 1
            gpu = min(self._jobs_on_gpu, key=self._jobs_on_gpu.__getitem__) if on_gpu and self.gpus else None
            if gpu is not None:
                self._jobs_on_gpu[gpu] += 1
        try:
            yield None if gpu is None else self._gpu_names[gpu]
        finally:
            with self._lock:
                self._busy -= 1
                if gpu is not None:
                    self._jobs_on_gpu[gpu] -= 1


def _memory_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no cgroup v2, or "max"
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return physical


@lru_cache(maxsize=1)
def this_host() -> Host:
    """The host of this process; the first call detects GPUs."""
    return Host()
