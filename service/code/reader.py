"""Read an uploaded file in a process of its own, so that one that takes long to parse, crashes the parser, or takes it
over harms nothing but its upload.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from service.code.source import Source
from service.datasets.uploads import confinement
from service.errors import FieldError, Invalid, KotrainError
from service.specs.catalog.declaration import Declaration
from service.specs.quantities import size

SECONDS, WALL_SECONDS = 10.0, 40.0
"""CPU time to read a file, and the time including that for which the processor is busy with others."""
MAX_WAITING = 8
"""Files that wait to be read, at most."""
MEMORY_BYTES = 2**30
ANSWER_BYTES = 2**22
"""Size of the answer; a file is smaller, and its declaration hardly larger."""
_PROGRAM = ("-P", "-m", __name__)
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")


def declare(file: str, content: bytes, name: str) -> Declaration:
    """The optimizer that a file defines. Raises Invalid."""
    source = Source.from_bytes(file, content)
    answer = _answer(source, name)
    if "error" in answer:
        raise Invalid(answer["error"], (FieldError("", answer["error"]),))
    try:
        return Declaration.model_validate(answer)
    except ValidationError:
        raise _unread(source, "cannot be read: its parser gave an invalid answer") from None


def _answer(source: Source, name: str) -> dict[str, Any]:
    """The declaration, or the error, as the process has written it. Raises Invalid if it has not."""
    with TemporaryDirectory(prefix="kotrain-code-") as folder, Path(folder, "answer").open("w+b") as file:
        try:
            process = subprocess.run(
                [sys.executable, *_PROGRAM, source.file, name],
                input=source.text.encode(),
                stdout=file,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {},  # the same modules
                timeout=WALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unread(source, f"takes more than {WALL_SECONDS:g} s to read") from None
        file.seek(0)
        text = file.read(ANSWER_BYTES + 1)
    if process.returncode == -signal.SIGXCPU:
        raise _unread(source, f"takes more than {SECONDS:g} s of CPU time to read")
    with suppress(ValueError):
        answer = json.loads(text) if process.returncode == 0 else None
        if isinstance(answer, dict) and (isinstance(answer.get("error"), str) or answer.get("name") == name):
            return answer
    status = process.returncode
    ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status} and no answer"
    raise _unread(source, f"cannot be read: its parser {ended}")


def _unread(source: Source, problem: str) -> Invalid:
    return Invalid.field("", f"{source.file} {problem}; make it shorter")


# --- in the process --------------------------------------------------------------------------------------------------


def confine() -> None:
    """Limit this process, which can write to its working directory only, and read the interpreter and its modules."""
    confinement.limit(SECONDS, MEMORY_BYTES, ANSWER_BYTES)
    paths = {*filter(None, sys.path), *(sysconfig.get_paths()[name] for name in _PATHS)}
    confinement.confine(map(Path, paths), Path.cwd())


def main() -> None:
    """Print the declaration of the file on standard input, or its error, as JSON."""
    file, name = sys.argv[1:]
    confine()
    try:
        answer = Source(file, sys.stdin.buffer.read().decode()).declare(name).model_dump_json()
    except KotrainError as error:
        answer = json.dumps({"error": error.detail})
    except MemoryError:
        answer = json.dumps(
            {"error": f"{file} takes more than {size(MEMORY_BYTES)} of memory to read; make it shorter"}
        )
    except Exception as error:  # unforeseen, but caused by the file: not an error of the server
        answer = json.dumps({"error": f"{file} cannot be read: {type(error).__name__}"})
    sys.stdout.buffer.write(answer.encode())


if __name__ == "__main__":
    main()
