"""What `torch.compile(optimizer.step)` may look into: tensors, and not the bookkeeping around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., object])


def eager(function: F) -> F:
    """The function runs as Python, with all that it calls."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def eager_outside(function: F) -> F:
    """The function runs as Python; what it calls is compiled."""
    return cast(F, torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]
