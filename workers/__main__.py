"""`python -m workers`: the forkserver first, then Celery.

This module imports the standard library only, and the forkserver starts before anything else: children are forked from
a process that has never seen the database's password, and that has one thread.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver

INHERITED = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "KOTRAIN_REVISION")
WORKERS_OWN = ("PGSSL", "PGPASSFILE", "PGSERVICE", "PGTZ", "SSL_CERT_")
"""What the PostgreSQL and Redis clients read whenever they connect; none of it is a secret."""
INHERITED_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "MKL_", "COVERAGE_")


def scrub(also: tuple[str, ...] = ()) -> None:
    """Leave nothing in this process's environment but what children may inherit and the prefixes `also` named."""
    prefixes = (*INHERITED_PREFIXES, *also)
    kept = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(prefixes)}
    os.environ.clear()
    os.environ.update(kept, OMP_NUM_THREADS="1")


def start_forkserver() -> None:
    """Start it, from the main thread. It is started again by itself should it ever be killed."""
    forkserver.set_forkserver_preload(["workers.preload"])
    forkserver.ensure_running()


def main() -> int:
    """Serve until SIGTERM; the exit status of the worker."""
    whole = dict(os.environ)
    scrub()
    start_forkserver()
    os.environ.update(whole)
    from service.config import settings  # noqa: PLC0415 (nothing of ours may be loaded before the forkserver runs)

    settings()  # reads the addresses and passwords, which then leave the environment for good
    scrub(WORKERS_OWN)
    from workers import tasks  # noqa: PLC0415 (as above)

    return tasks.serve()


if __name__ == "__main__":
    status = main()
    # A process that outlived its kill, or a thread within a store that hangs, must not keep one that has signed off.
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)
