"""The console script `kotrain`; it starts even where nothing but kotrain is installed, to say what is missing."""

import sys

try:
    from kotrain.commands import run
except ModuleNotFoundError as error:
    if error.name in (None, "kotrain", "service") or "." in str(error.name):
        raise
    _missing: str | None = error.name
else:
    _missing = None


def main() -> None:
    """Run the command line and exit with its status: 0, 1 for what went wrong, 2 for wrong usage, 130 for Ctrl-C."""
    if _missing:
        sys.exit(f"kotrain: the command line needs the package {_missing}: pip install 'kotrain[sdk]'")
    sys.exit(run())
