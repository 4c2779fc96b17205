"""The folder that uploaded code may write to: its size, and what is left of it when the job ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from service.specs.quantities import size

MAX_BYTES = 2**34
MAX_FILES = 10_000


def excess(folder: Path) -> str | None:
    """What is wrong if there is too much in the folder."""
    used = 0
    for files, entry in enumerate(_entries(folder), 1):
        used += entry.stat(follow_symlinks=False).st_blocks * 512
        if files > MAX_FILES:
            return f"it wrote more than {MAX_FILES:,} files"
        if used > MAX_BYTES:
            return f"it wrote more than {size(MAX_BYTES)}"
    return None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files and folders below a folder that changes meanwhile."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    yield entry
        except FileNotFoundError:
            continue


def clear(folder: Path) -> None:
    """Delete everything but checkpoints, and the folder itself if it is empty then."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".pt":
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
