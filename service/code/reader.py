"""Read an uploaded file in a process of its own, so that one that takes long to parse, or crashes the parser, harms
nothing but its upload.
"""

from __future__ import annotations

import json
import subprocess
import sys

from service.code.source import Source
from service.datasets.uploads import confinement
from service.errors import FieldError, Invalid, KotrainError
from service.specs.catalog.declaration import Declaration

SECONDS = 10.0
MAX_WAITING = 8
"""Files that wait to be read, at most."""
MEMORY_BYTES = 2**30


def declare(file: str, content: bytes, name: str) -> Declaration:
    """The optimizer that a file defines. Raises Invalid."""
    source = Source.from_bytes(file, content)
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-m", __name__, source.file, name],
            input=source.text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={},
            timeout=4 * SECONDS,  # waiting included; the CPU time is limited in the process
            check=False,
        )
        answer = json.loads(process.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise Invalid.field("", f"{file} cannot be read: its parser ended without an answer; make it shorter") from None
    if "error" in answer:
        raise Invalid(answer["error"], (FieldError("", answer["error"]),))
    return Declaration.model_validate(answer)


def main() -> None:
    """Print the declaration of the file on standard input, or its error, as JSON."""
    file, name = sys.argv[1:]
    confinement.limit(SECONDS, MEMORY_BYTES, 0)
    try:
        answer = Source(file, sys.stdin.read()).declare(name).model_dump_json()
    except KotrainError as error:
        answer = json.dumps({"error": error.detail})
    except Exception as error:  # unforeseen, but caused by the file: not an error of the server
        answer = json.dumps({"error": f"{file} cannot be read: {type(error).__name__}"})
    sys.stdout.write(answer)


if __name__ == "__main__":
    main()
