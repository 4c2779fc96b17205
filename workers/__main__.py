"""`python -m workers`: the forkserver first, then Celery.

This module imports the standard library only, and the forkserver starts before anything else: children are forked from
a process that has never seen the database's password, and that has one thread.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver

INHERITED = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "KOTRAIN_REVISION")
INHERITED_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "MKL_", "COVERAGE_")


def start_forkserver() -> None:
    """Start it from the main thread, with an environment that holds no secret and one OpenMP thread."""
    whole = dict(os.environ)
    kept = {name: value for name, value in whole.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)}
    os.environ.clear()
    os.environ.update(kept, OMP_NUM_THREADS="1")
    try:
        forkserver.set_forkserver_preload(["workers.warm"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(whole)


def main() -> int:
    """Serve until SIGTERM; the exit status of the worker."""
    start_forkserver()
    from workers import tasks  # noqa: PLC0415 (nothing of ours may be loaded before the forkserver runs)

    return tasks.serve()


if __name__ == "__main__":
    raise SystemExit(main())
