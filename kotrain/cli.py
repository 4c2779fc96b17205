"""The console script `kotrain`. It starts without the optional dependencies, to name the one that is missing."""

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
    """Run the command line and exit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    if _missing:
        sys.exit(f"kotrain: the command line needs the package {_missing}: pip install 'kotrain[sdk]'")
    sys.exit(run())
