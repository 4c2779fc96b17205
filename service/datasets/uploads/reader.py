"""The process that reads an uploaded file: forked for each file, confined to its folder, killed if it takes too long.

A decoder that crashes, hangs or is taken over by its file harms nothing but the upload. The processes are forked from
one that has imported the readers, because that takes 0.7 s of CPU time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import sysconfig
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from service.datasets.schemas import Description
from service.datasets.uploads import confinement
from service.datasets.uploads.build import FOLDER_OF, Limits, Upload, build
from service.errors import FieldError, Invalid, KotrainError, StorageFull, Unavailable
from service.specs.quantities import size

_CONTEXT = multiprocessing.get_context("forkserver")
_COPIES = 3
"""Memory for reading, in copies of the records."""
_BASE_BYTES = 2**31
"""Memory besides: libraries, and the arenas that Arrow reserves."""
_ANSWER_BYTES = 2**26
_ERRORS: dict[str, type[KotrainError]] = {kind.slug: kind for kind in (Invalid, StorageFull, Unavailable)}
_INHERITED = {"PATH", "LANG", "TZ", "LD_LIBRARY_PATH"}
_INHERITED_PREFIXES = ("LC_", "PYTHON", "COVERAGE_")
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
Image.init()  # else the decoders are imported for each file


def read_confined(upload: Upload, limits: Limits) -> Description:
    """Build the data set of an upload in another process. Call it from one thread at a time.

    Raises:
        Invalid: the contents are invalid, or reading them failed or took too long or too much memory.
        StorageFull, Unavailable: the disk is full or not writable, or the process could not start.
    """
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_main, args=(theirs, upload, limits), daemon=True)
    try:
        _start_forkserver()
        process.start()
    except OSError as error:
        ours.close()
        raise Unavailable(f"the file cannot be read now: {error.strerror}") from error
    finally:
        theirs.close()
    answer = b""
    has_answered = False
    try:
        has_answered = ours.poll(limits.seconds)
        with suppress(EOFError, OSError):  # it died, or its answer is too long
            answer = ours.recv_bytes(_ANSWER_BYTES) if has_answered else b""
        if not answer and has_answered:
            process.join(1)  # for its status
    finally:
        status = process.exitcode
        with suppress(ProcessLookupError):  # it leads no group yet, or none any more
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        ours.close()
    if answer:
        return _checked(answer, upload)
    is_late = not has_answered or status == -signal.SIGXCPU
    raise _late(upload, limits) if is_late else _died(upload, status)


def _start_forkserver() -> None:
    """Start it unless it runs, without the secrets that this process's environment may hold."""
    environment = dict(os.environ)
    for name in environment.keys() - _INHERITED:
        if not name.startswith(_INHERITED_PREFIXES):
            del os.environ[name]
    try:
        forkserver.set_forkserver_preload([__name__])  # takes effect unless it runs already
        forkserver.ensure_running()
    finally:
        os.environ.update(environment)


def _checked(answer: bytes, upload: Upload) -> Description:
    """The description, or the error, in the answer of the process, which is not trusted."""
    try:
        content = json.loads(answer)
        if "error" in content:
            errors = tuple(FieldError(str(pointer), str(detail)) for pointer, detail in content["errors"])
            raise _ERRORS[content["error"]](str(content["detail"]), errors)
        description = Description.model_validate(content)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise _died(upload, None) from error
    if description.name not in {f"{folder}/{upload.name}" for folder in FOLDER_OF.values()}:
        raise _died(upload, None)
    return description


def _named(upload: Upload) -> str:
    return f"the {upload.form.file_format} file of '{upload.name}' ({size(upload.size_bytes)})"


def _late(upload: Upload, limits: Limits) -> Invalid:
    return Invalid.field(
        "",
        f"reading {_named(upload)} takes more than {limits.seconds:g} s, which is the limit "
        "(KOTRAIN_MAX_READ_SECONDS); split it, or make its records smaller",
    )


def _died(upload: Upload, status: int | None) -> Invalid:
    with suppress(ValueError):
        reason = f"signal {signal.Signals(-status).name}" if status else "no answer"
        return Invalid.field("", f"{_named(upload)} cannot be read: its reader ended with {reason}; is it damaged?")
    return Invalid.field("", f"{_named(upload)} cannot be read: its reader ended with status {status}; is it damaged?")


# --- in the process --------------------------------------------------------------------------------------------------


def _main(pipe: Connection, upload: Upload, limits: Limits) -> None:
    """Read the file and send the description of the data set, or the error."""
    os.setsid()  # so that what it starts is killed with it
    confinement.die_with_parent()
    confinement.limit(limits.seconds, _COPIES * limits.max_bytes + _BASE_BYTES, 2 * limits.max_bytes + 2**24)
    paths = {*filter(None, sys.path), *(sysconfig.get_paths()[name] for name in _PATHS), "/usr/share/zoneinfo"}
    confinement.confine(map(Path, paths), upload.folder)
    try:
        answer = build(upload, limits).model_dump_json()
    except KotrainError as error:
        errors = [(field.pointer, field.detail) for field in error.errors]
        answer = json.dumps({"error": error.slug, "detail": error.detail, "errors": errors})
    except MemoryError:
        detail = (
            f"reading {_named(upload)} takes more than {size(_COPIES * limits.max_bytes + _BASE_BYTES)} of memory; "
            "split it, or make its records smaller"
        )
        answer = json.dumps({"error": Invalid.slug, "detail": detail, "errors": [("", detail)]})
    pipe.send_bytes(answer.encode())
