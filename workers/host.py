"""The slots and devices of a worker, and the share of them that a job gets."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from uuid_utils.compat import uuid7

from service.config import settings
from service.jobs.memory import USUAL_ENGINE_BYTES, JobMemory, default_slots, machine_bytes
from service.specs.text import counted
from workers import process


class Host:
    """A worker process and its devices. `draining` is set when the worker shuts down."""

    def __init__(self) -> None:
        self.id = f"{socket.gethostname()}-{uuid7().hex[-12:]}"
        self.name = socket.gethostname()
        machine = process.describe_machine()
        self.torch, self.gpus = machine.torch, machine.gpus
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpu_names = visible.split(",") if visible else [str(index) for index in range(len(self.gpus))]
        self.cores = len(os.sched_getaffinity(0))
        self.slots = settings().slots or len(self.gpus) or default_slots(self.cores)
        self.engine_bytes = USUAL_ENGINE_BYTES
        """Resident memory of the training engine, measured once it is imported."""
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
        return [*self.gpus, {"kind": "cpu", "name": counted(self.cores, "core"), "memory_bytes": machine_bytes()}]

    @property
    def threads_per_job(self) -> int:
        """CPU threads of one job. Results may depend on it, so it is recorded with each job."""
        return max(1, self.cores // self.slots)

    @property
    def job_memory(self) -> JobMemory:
        """The memory of each CPU job."""
        return JobMemory(self.slots, settings().job_memory_bytes, self.engine_bytes)

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


@lru_cache(maxsize=1)
def this_host() -> Host:
    """The host of this process; the first call detects GPUs."""
    return Host()
