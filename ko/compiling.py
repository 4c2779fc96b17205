"""Decorators that keep functions out of the graphs of `torch.compile(optimizer.step)`.

Only operations on tensors are compiled. The bookkeeping around them (parameter groups, state, hooks) runs as Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., object])


def eager(function: F) -> F:
    """Exclude `function` and every function that it calls from compilation."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def eager_shallow(function: F) -> F:
    """Exclude `function` itself from compilation; functions that it calls may be compiled."""
    return cast(F, torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]
