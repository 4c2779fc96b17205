"""One optimizer that does its step inside another one's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ko.compiling import eager_outside

# Both optimizers may have an option of one name, such as `gamma`; the inner one's is kept under another.
_INNERS = "base_{}"


@eager_outside  # torch 2.11 cannot trace an optimizer that is given other groups
def step_inside(
    inner: Optimizer, param_groups: list[dict[str, Any]], state: dict[Tensor, Any], hidden: Collection[str] = ()
) -> None:
    """Step `inner` on the outer optimizer's parameter groups and state.

    Groups and state are handed over each time, because loading a state dict gives the outer one new objects. The inner
    one does not see the `hidden` options of the groups: a compiled step would be compiled again whenever one changes.
    torch wraps every optimizer's `step` to call hooks, the global ones among them; the outer step has called those
    already, so the function below the wrapper is called.
    """
    seen = [inner_group(group, hidden) for group in param_groups]
    inner.param_groups = seen
    inner.state = state  # type: ignore[assignment]  # torch annotates the defaultdict it always is
    step: Any = type(inner).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__
    try:
        step(inner)
    finally:
        for group, after in zip(param_groups, seen, strict=False):  # a step may count in its groups, and add or drop
            own = {name: value for name, value in group.items() if name in hidden}
            group.clear()
            group.update(outer_group(after, hidden) | own)
        inner.param_groups = param_groups


def inner_group(group: dict[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """The group as the inner optimizer knows it: without the outer one's options."""
    own = {_INNERS.format(name): name for name in hidden}
    return {own.get(name, name): value for name, value in group.items() if name not in hidden}


def outer_group(group: dict[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """The other way round, still without the outer one's options."""
    return {_INNERS.format(name) if name in hidden else name: value for name, value in group.items()}
