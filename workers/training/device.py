"""The device and the number format that a run computes with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch
import torch.utils.deterministic as determinism

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(wanted: Literal["auto", "cpu", "cuda"], precision: Precision) -> torch.device:
    """The device that a spec's `device` means on this machine.

    Raises:
        ValueError: there is no GPU, or it cannot compute in this precision.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ValueError("device 'cuda' is asked for, but this worker sees no GPU")
    device = torch.device("cuda" if has_cuda and wanted != "cpu" else "cpu")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU, but this worker sees none; fp32 and bf16 run on a CPU")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision 'bf16' is not supported by this GPU; choose fp16 or fp32")
    return device


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Make equal runs give equal bits wherever torch has a deterministic algorithm; elsewhere torch warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it starts
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fills: bool = determinism.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    determinism.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, changes no result
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        determinism.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
