"""The console script `kotrain`. It starts without the optional dependencies, to name the one that is missing."""

import sys


def main() -> None:
    """Run the command line and exit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    try:
        from kotrain.commands import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name in (None, "kotrain", "service") or "." in str(error.name):
            raise
        sys.exit(f"kotrain: the command line needs the package {error.name}: pip install 'kotrain[sdk]'")
    sys.exit(status)
