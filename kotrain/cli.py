"""The console script `kotrain`. It starts without the optional dependencies, to name the one that is missing."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main`, Ctrl-C ends the process without a traceback

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from service.specs.extras import install_hint

OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE)
SDK_PACKAGES = ("httpx2", "pydantic", "rich", "typer")


def main() -> None:
    """Run the command line and exit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no output fails because of a character that the locale lacks
            with suppress(OSError):  # of a closed or unusual file
                stream.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _run()
        if sys.stdout is not None:  # it is None if the shell has closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = _end("interrupted", 128 + signal.SIGINT)
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS or error.filename is not None:
            raise
        status = _end(f"cannot write the output ({error.strerror})", 1)
    sys.exit(status)


def _run() -> int:
    try:
        from kotrain.commands import run

        return run()
    except ModuleNotFoundError as error:
        if error.name not in SDK_PACKAGES:
            raise
        sys.exit(f"kotrain: the command line needs the package {error.name}; {install_hint('sdk')}")


def _end(message: str, status: int) -> int:
    """Print a message; what is left of the output is discarded, which would otherwise fail again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    from kotrain.output import note

    note(f"kotrain: {message}")
    return status
