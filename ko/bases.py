"""Base optimizers: the names that `KO(base=...)` accepts, and the check of optimizer classes."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ko.muon import MuonAdamW

BASES: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "nadamw": (NAdam, {"decoupled_weight_decay": True}),
    "radam": (RAdam, {}),
    "rmsprop": (RMSprop, {}),
    "adagrad": (Adagrad, {}),
    "muon": (MuonAdamW, {}),
}
"""Name -> optimizer class and the constructor options that the name implies."""


def resolve(base: str | type[Optimizer]) -> tuple[type[Optimizer], dict[str, Any]]:
    """Look up a base optimizer.

    Args:
        base: a key of `BASES`, or a subclass of `torch.optim.Optimizer`.

    Returns:
        The optimizer class and the constructor options that its name implies (none for a class).

    Raises:
        ValueError: if the name is unknown, or if the optimizer needs a closure or wraps another optimizer.
        TypeError: if `base` is neither a name nor an Optimizer class.
    """
    if isinstance(base, str):
        if base not in BASES:
            close = difflib.get_close_matches(base.lower(), BASES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "for any other optimizer, pass its class"
            raise ValueError(f"base: {base!r} is not one of {', '.join(BASES)}; {hint}")
        return BASES[base]
    if not (isinstance(base, type) and issubclass(base, Optimizer)):
        given = repr(base) if isinstance(base, type) else f"a {type(base).__name__}"
        raise TypeError(f"base: expected a name or a torch.optim.Optimizer class, not {given}")
    if _needs_closure(base):
        raise ValueError(f"base: {base.__name__} needs a closure at each step, so KO cannot collide its gradients")
    if isinstance(getattr(base, "param_groups", None), property):
        raise ValueError(f"base: {base.__name__} wraps another optimizer; pass a KO to it instead of passing it to KO")
    return base, {}


def _needs_closure(base: type[Optimizer]) -> bool:
    """Whether `step()` without a closure fails: `closure` has no default, or the code raises a `...ClosureError`."""
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return True
    code = getattr(inspect.unwrap(base.step), "__code__", None)
    return code is not None and any(name.endswith("ClosureError") for name in code.co_names)
