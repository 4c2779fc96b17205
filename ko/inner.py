"""One optimizer that does its step inside another one's."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def step_inside(inner: Optimizer, param_groups: list[dict[str, Any]], state: dict[Tensor, Any]) -> None:
    """Step `inner` on the outer optimizer's parameter groups and state.

    Groups and state are handed over each time, because loading a state dict gives the outer one new objects. torch
    wraps every optimizer's `step` to call hooks, the global ones among them; the outer step has called those already,
    so the function below the wrapper is called.
    """
    inner.param_groups = param_groups
    inner.state = state  # type: ignore[assignment]  # torch annotates the defaultdict it always is
    step: Any = type(inner).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__
    step(inner)
