"""The console script `kotrain`. It starts without the optional dependencies, to name the one that is missing."""

import sys
from io import TextIOWrapper

from service.specs.extras import install_hint

SDK_PACKAGES = ("httpx2", "pydantic", "rich", "typer")


def main() -> None:
    """Run the command line and exit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no output fails because of a character that the locale lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        from kotrain.commands import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name not in SDK_PACKAGES:
            raise
        sys.exit(f"kotrain: the command line needs the package {error.name}; {install_hint('sdk')}")
    sys.exit(status)
