"""Test programs that run in a fresh interpreter, as a worker does, with no modules loaded yet."""

import json
import os
import subprocess
import sys
from typing import Any


def run_program(program: str, *arguments: str, **environment: str) -> Any:
    """Return the JSON that a program prints; it must exit with status 0 and without warnings."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, ""), f"status {process.returncode}\n{process.stderr}"
    return json.loads(process.stdout)
