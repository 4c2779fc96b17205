"""The environment of a run, recorded with its results: versions, device, host and revision."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from service.code import plugins
from service.specs.catalog import uploaded
from service.specs.engine import ENGINE_VERSION
from service.specs.summary import Environment
from service.specs.training import TrainSpec


def describe(device: torch.device) -> Environment:
    """Versions, device, host, git revision and number of threads of a run on `device`."""
    return {
        "kotrain": version("kotrain"),
        "torch": str(torch.__version__),  # str: unpickling torch's own type would import torch
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "python": platform.python_version(),
        "device_kind": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "host": platform.node(),
        "git_revision": os.environ.get("KOTRAIN_REVISION") or _git_revision(),
        "threads": torch.get_num_threads(),
    }


def of_run(spec: TrainSpec, device: torch.device, data_hash: str) -> Environment:
    """The environment of a run, with the version of the engine, its plug-in, its data and its seeds."""
    return {
        **describe(device),
        **_plugin(spec),
        "engine_version": ENGINE_VERSION,
        "data_hash": data_hash,
        "seed": spec.seed,
        "split_seed": spec.dataset.params.split_seed,
    }


def _plugin(spec: TrainSpec) -> Environment:
    """The distribution of the plug-in that is the optimizer or its base; the spec has a hash of its modules."""
    for name in uploaded.names_in(spec.optimizer.model_dump()):
        if plugins.find(name) is not None:
            plugin = plugins.plugins()[name.partition("@")[0]]
            return {"plugin": f"{plugin.fact('Name')} {plugin.fact('Version')}"}
    return {}


def _cpu_name() -> str:
    """The model of the processor, as reported by Linux."""
    with Path("/proc/cpuinfo").open() as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())


@cache
def _git_revision() -> str | None:
    """The commit of the checkout that contains this file; None for an installed package, or without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    # The checkout may belong to another user.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), "rev-parse", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()
