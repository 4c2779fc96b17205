"""Run the step of one optimizer inside the step of another, on the outer optimizer's parameter groups and state."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ko.compiling import eager_shallow

# Both optimizers may have an option with the same name, such as `gamma`. The outer optimizer's groups then hold the
# inner one's option under this name.
_INNER_OPTION = "base_{}"


@eager_shallow  # torch 2.11 cannot trace an optimizer whose parameter groups are replaced
def step_inside(
    inner: Optimizer, param_groups: list[dict[str, Any]], state: dict[Tensor, Any], hidden: Collection[str] = ()
) -> None:
    """Step `inner` on the outer optimizer's parameter groups and state.

    Groups and state are assigned at each step, because loading a state dict replaces the outer optimizer's objects.
    torch wraps the `step` of every optimizer to call its hooks, including the global ones. The outer step has already
    called those, so this calls the function below the wrapper.

    Args:
        inner: optimizer to step.
        param_groups: groups of the outer optimizer; options that the inner step changes are copied back to them.
        state: state of the outer optimizer.
        hidden: options of the outer optimizer that `inner` does not see. A compiled inner step would otherwise be
            compiled again whenever one of them changes.
    """
    inner_groups = [inner_group(group, hidden) for group in param_groups]
    inner.param_groups = inner_groups
    inner.state = state  # type: ignore[assignment]  # torch annotates the defaultdict it always is
    step: Any = type(inner).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__
    try:
        step(inner)
    finally:
        # An inner step may keep counters in its groups, and add or remove options.
        for group, after in zip(param_groups, inner_groups, strict=False):
            outer_options = {name: value for name, value in group.items() if name in hidden}
            group.clear()
            group.update(outer_group(after, hidden) | outer_options)
        inner.param_groups = param_groups


def inner_group(group: dict[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """A group of the outer optimizer as the inner one sees it: without `hidden`, with its own option names."""
    inner_names = {_INNER_OPTION.format(name): name for name in hidden}
    return {inner_names.get(name, name): value for name, value in group.items() if name not in hidden}


def outer_group(group: dict[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """A group of the inner optimizer with the outer one's option names; the `hidden` options are still missing."""
    return {_INNER_OPTION.format(name) if name in hidden else name: value for name, value in group.items()}
