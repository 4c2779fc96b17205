"""What a worker process knows of its machine: its slots, its devices, and how much of them a job gets."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from uuid_utils.compat import uuid7

from service.config import settings
from workers import process


class Host:
    """One worker process and the devices it owns. `draining` is set once the worker shuts down."""

    def __init__(self) -> None:
        self.id = f"{socket.gethostname()}-{uuid7().hex[-12:]}"
        self.name = socket.gethostname()
        self.gpus: list[dict[str, Any]] = process.cuda_devices()
        self.cores = len(os.sched_getaffinity(0))
        self.slots = settings().slots or len(self.gpus) or self.cores
        self.draining = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._jobs_on_gpu = Counter(dict.fromkeys(range(len(self.gpus)), 0))

    @property
    def has_cuda(self) -> bool:
        """Whether jobs that need a GPU can run here."""
        return bool(self.gpus)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The devices as the workers table shows them."""
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [*self.gpus, {"kind": "cpu", "name": f"{self.cores} cores", "memory_bytes": memory_bytes}]

    @property
    def threads_per_job(self) -> int:
        """CPU threads of one job; a job's numbers may depend on it, so it is recorded with each."""
        return max(1, self.cores // self.slots)

    @property
    def job_memory_bytes(self) -> int:
        """What a CPU job may allocate."""
        return settings().job_memory_bytes or int(0.8 * self.devices[-1]["memory_bytes"])

    @property
    def idle_slots(self) -> int:
        """Slots without a job."""
        return self.slots - self._busy

    @contextmanager
    def slot(self, *, on_gpu: bool) -> Iterator[int | None]:
        """Occupy a slot, and where asked the GPU with the fewest jobs, whose index this gives."""
        with self._lock:
            self._busy += 1
            gpu = min(self._jobs_on_gpu, key=self._jobs_on_gpu.__getitem__) if on_gpu and self.gpus else None
            if gpu is not None:
                self._jobs_on_gpu[gpu] += 1
        try:
            yield gpu
        finally:
            with self._lock:
                self._busy -= 1
                if gpu is not None:
                    self._jobs_on_gpu[gpu] -= 1


@lru_cache(maxsize=1)
def this_host() -> Host:
    """This process's host; the first call looks for GPUs."""
    return Host()
