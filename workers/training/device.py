"""The device and the number format of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch
import torch.utils.deterministic as determinism

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(requested: Literal["auto", "cpu", "cuda"], precision: Precision) -> torch.device:
    """The device for a spec's `device` on this machine.

    Raises:
        ValueError: no GPU is available, or the device does not support this precision.
    """
    has_cuda = torch.cuda.is_available()
    if requested == "cuda" and not has_cuda:
        raise ValueError("device 'cuda' was requested, but this worker has no GPU")
    device = torch.device("cuda" if has_cuda and requested != "cpu" else "cpu")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU, but this worker has none; choose fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision 'bf16' is not supported by this GPU; choose fp16 or fp32")
    return device


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic algorithms, so that equal runs give equal bits; torch warns where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its start
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill_memory: bool = determinism.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    determinism.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # takes time and changes no result
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        determinism.fill_uninitialized_memory = fill_memory  # type: ignore[attr-defined]
