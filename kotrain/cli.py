"""The console script `kotrain`; it starts even where nothing but kotrain is installed, to say what is missing."""

import sys


def main() -> None:
    """Run the command line and exit with its status: 0, 1 for what went wrong, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        from kotrain.commands import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name in (None, "kotrain", "service") or "." in str(error.name):
            raise
        sys.exit(f"kotrain: the command line needs the package {error.name}: pip install 'kotrain[sdk]'")
    sys.exit(status)
