"""The base optimizers that KO knows by name, and how one optimizer steps inside another."""

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
"""Name -> class and the options that make it what the name says."""


def resolve(base: str | type[Optimizer]) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class that `base` means and the options its name implies.

    Raises:
        ValueError: an unknown name, or an optimizer that cannot step without a closure.
        TypeError: neither a name nor an Optimizer class.
    """
    if isinstance(base, str):
        if base not in BASES:
            meant = difflib.get_close_matches(base.lower(), BASES, n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else "pass an Optimizer class for others"
            raise ValueError(f"base: {base!r} is not one of {', '.join(BASES)}; {hint}")
        return BASES[base]
    if not (isinstance(base, type) and issubclass(base, Optimizer)):
        found = repr(base) if isinstance(base, type) else f"a {type(base).__name__}"
        raise TypeError(f"base: expected a name or a torch.optim.Optimizer class, not {found}")
    if _needs_closure(base):
        raise ValueError(f"base: {base.__name__} needs a closure at each step, so KO cannot collide its gradients")
    if isinstance(getattr(base, "param_groups", None), property):
        raise ValueError(f"base: {base.__name__} wraps another optimizer; put KO into it, not it into KO")
    return base, {}


def _needs_closure(base: type[Optimizer]) -> bool:
    """Whether a step without a closure fails, by its signature or because it raises an error named after it."""
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return True
    code = getattr(inspect.unwrap(base.step), "__code__", None)
    return code is not None and any(name.endswith("ClosureError") for name in code.co_names)
