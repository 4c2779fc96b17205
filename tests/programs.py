"""Test programs that start processes as a worker does and print JSON."""

import json
import os
import subprocess
import sys
import warnings
from typing import Any

from tests import forked

SECONDS = 100
"""Time limit of a program."""


def run_program(program: str, *arguments: str, **environment: str) -> Any:
    """Run a program in a fresh interpreter, with no modules loaded yet; return the JSON that it prints.

    It must exit with status 0 and without warnings.
    """
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return _output(process)


def run_forked(program: str, *arguments: str, **environment: str) -> Any:
    """As `run_program`, in a process that has the worker's modules loaded."""
    return _output(forked.run("tests.programs", program, *arguments, seconds=SECONDS, env=os.environ | environment))


def _output(process: subprocess.CompletedProcess[str]) -> Any:
    assert (process.returncode, process.stderr) == (0, ""), f"status {process.returncode}\n{process.stderr}"
    return json.loads(process.stdout)


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    exec(sys.argv.pop(1), {"__name__": "__main__"})
