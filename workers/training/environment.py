"""What a run ran on: versions, device, host and revision, recorded beside its numbers."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from service.specs.outcome import Environment


def describe(device: torch.device) -> Environment:
    """Versions, device, host, git revision and number of threads of a run on `device`."""
    return {
        "kotrain": version("kotrain"),
        "torch": str(torch.__version__),  # its own type would load torch wherever it is unpickled
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "python": platform.python_version(),
        "device_kind": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "host": platform.node(),
        "git_revision": os.environ.get("KOTRAIN_REVISION") or _git_revision(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    """The processor's model, as Linux tells it."""
    with Path("/proc/cpuinfo").open() as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())


@cache
def _git_revision() -> str | None:
    """The commit of the checkout that this file lies in; None where it is installed or git is missing."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
