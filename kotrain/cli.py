"""The console script `kotrain`. It starts without the optional dependencies, to name the one that is missing."""

import sys

SDK_PACKAGES = ("httpx2", "pydantic", "rich", "typer")


def main() -> None:
    """Run the command line and exit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    try:
        from kotrain.commands import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name not in SDK_PACKAGES:
            raise
        remedy = "install kotrain's extra `sdk`: pip install '.[sdk]' in its checkout"
        sys.exit(f"kotrain: the command line needs the package {error.name}; {remedy}")
    sys.exit(status)
