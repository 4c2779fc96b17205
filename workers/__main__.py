"""`python -m workers`: starts the forkserver, then Celery.

This module imports the standard library only, and the forkserver starts before anything else: children are forked
from a single-threaded process that never had the password of the database.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from multiprocessing import forkserver

INHERITED = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "KOTRAIN_REVISION")
PARENT = "KOTRAIN_WORKER_PROCESS"
"""As in `workers.lifetime`."""
CLIENT_PREFIXES = ("PGSSL", "PGPASSFILE", "PGSERVICE", "PGTZ", "SSL_CERT_")
"""Read by the PostgreSQL and Redis clients on each connection; none of it is secret."""
INHERITED_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "MKL_", "COVERAGE_")


def scrub(extra_prefixes: tuple[str, ...] = ()) -> None:
    """Remove all environment variables except those that children inherit and those with one of `extra_prefixes`."""
    prefixes = (*INHERITED_PREFIXES, *extra_prefixes)
    allowed = {
        name: value for name, value in os.environ.items() if name in (*INHERITED, PARENT) or name.startswith(prefixes)
    }
    os.environ.clear()
    os.environ.update(allowed, OMP_NUM_THREADS="1")


def unbuffer() -> None:
    """Drop lines that cannot be written: multiprocessing would write them, and fail, when it starts a process."""
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), errors="backslashreplace", write_through=True)
        for descriptor in (1, 2)
    )


def start_forkserver() -> None:
    """Start the forkserver from the main thread. multiprocessing restarts it if it is killed."""
    os.environ[PARENT] = str(os.getpid())
    forkserver.set_forkserver_preload(["workers.preload"])
    forkserver.ensure_running()


def main() -> int:
    """Run the worker until SIGTERM and return its exit status."""
    environment = dict(os.environ)
    unbuffer()
    scrub()
    start_forkserver()
    os.environ.update(environment)
    from service.config import hide_memory, settings  # noqa: PLC0415 (no own module may be imported before the forkserver runs)

    settings()  # caches the addresses and passwords, which are then removed from the environment
    scrub(CLIENT_PREFIXES)
    hide_memory()  # which holds both passwords, as /proc/PID/environ does
    from workers import tasks  # noqa: PLC0415 (as above)

    return tasks.serve()


if __name__ == "__main__":
    status = main()
    # Do not wait for unkillable child processes or for threads blocked in a hanging store.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed from the start, or its disk is full
            stream.flush()
    os._exit(status)
