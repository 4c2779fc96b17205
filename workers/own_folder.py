"""The folder that uploaded code may write to: whether there is too much in it, and its removal when the job ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from service.specs.quantities import size

MAX_BYTES = 2**34
MAX_FILES = 10_000


def excess(folder: Path, min_free_bytes: int = 0, max_bytes: int = MAX_BYTES) -> str | None:
    """What is wrong if there is too much in the folder, too little left on its disk, or what cannot be counted."""
    used = files = 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    with suppress(FileNotFoundError):
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if files > MAX_FILES:
                        return f"it wrote more than {MAX_FILES:,} files"
                    if used > max_bytes:
                        return f"it wrote more than {size(max_bytes)}"
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            return f"it made a folder that cannot be read ({error.strerror})"
    with suppress(OSError):
        if shutil.disk_usage(folder).free < min_free_bytes:  # perhaps by files that have no name any more
            return f"less than {size(min_free_bytes)} (KOTRAIN_MIN_FREE_BYTES) is left on the disk"
    return None


def clear(folder: Path, keep: Collection[str]) -> None:
    """Delete everything but these files, and the folder itself if it is empty then."""
    if not folder.exists():
        return
    folder.chmod(0o700)
    kept = [word for name in keep for word in ("!", "-name", name)]
    # Programs that mind neither the depth nor the number.
    for command in (
        ["chmod", "-R", "u+rwX", "--", str(folder)],
        ["find", str(folder), "-mindepth", "1", "-maxdepth", "1", *kept, "-exec", "rm", "-rf", "--", "{}", "+"],
    ):
        subprocess.run(command, capture_output=True, check=False)
    if not any(folder.iterdir()):
        folder.rmdir()
