"""Rewrite the golden answers: `python -m tests.golden.answers --write`; without --write, list those that differ."""

from __future__ import annotations

import sys

from tests.golden.answers.files import FOLDER, MAKERS, stored_names

if __name__ == "__main__":
    differing = [
        name
        for name, make in MAKERS.items()
        if not (path := FOLDER / name).is_file() or path.read_bytes() != make().encode()
    ]
    print("\n".join(differing) or "all answers equal the stored files")
    if "--write" in sys.argv[1:]:
        for name in stored_names() - MAKERS.keys():
            (FOLDER / name).unlink()
        for name in differing:
            (FOLDER / name).parent.mkdir(exist_ok=True)
            (FOLDER / name).write_bytes(MAKERS[name]().encode())
    sys.exit(bool(differing) and "--write" not in sys.argv[1:])
