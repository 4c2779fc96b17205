"""Detects torch's version and the GPUs for the worker, which itself does not import torch."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

import torch

from workers import messages


def describe(pipe: Connection) -> None:
    """Entry point of a short-lived process: send torch's version and the GPUs of this host.

    It may initialize CUDA because nothing is forked from it.
    """
    os.setsid()
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append({"kind": "cuda", "name": properties.name, "memory_bytes": properties.total_memory})
    messages.send(pipe, messages.Machine(str(torch.__version__), devices))
    pipe.close()
