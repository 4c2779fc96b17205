"""Programs of their own, for what has to start as a worker does: from a fresh interpreter, with nothing loaded yet."""

import json
import os
import subprocess
import sys
from typing import Any


def said(program: str, *arguments: str, **environment: str) -> Any:
    """What a program printed, as JSON; it has to end well and to warn of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"status {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)
