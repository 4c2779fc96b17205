"""Classes of the libraries' optimizers, and how declared optimizers are constructed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import heavyball
import pytorch_optimizer
import schedulefree
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from service.specs.catalog.declaration import BASE_PARAMETERS, Declaration
from workers.training.groups import muon_groups

# Compiling each optimizer's step takes minutes on a CPU, at the start of each job.
heavyball.utils.compile_mode = None

BASES: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
"""Optimizers that others can wrap."""

MODULES: dict[str, ModuleType] = {
    "torch": torch.optim,
    "pytorch_optimizer": pytorch_optimizer,
    "schedulefree": schedulefree,
    "heavyball": heavyball,
}
"""Library -> module that has its optimizers."""


TOTAL_STEPS = "num_iterations"
"""The parameter of a constructor that the need `total_steps` gives, instead of the job."""


def optimizer_class(declared: Declaration) -> type[Optimizer]:
    """The class of an optimizer."""
    optimizer: type[Optimizer] = getattr(MODULES[declared.name.partition("/")[0]], declared.class_name)
    return optimizer


def construct(
    optimizer: Callable[..., Optimizer],
    needs: tuple[str, ...],
    model: nn.Module,
    params: dict[str, Any],
    total_steps: int | None = None,
) -> Optimizer:
    """An optimizer of a model, with what it needs beside its parameters; `total_steps` only if it needs them."""
    if "total_steps" in needs:
        assert total_steps is not None, "a spec with an optimizer that needs its steps has a budget of steps or epochs"
        params = {**params, TOTAL_STEPS: total_steps}
    if "base" in needs or "base_class" in needs:
        return _wrapping(optimizer, needs, model, params)
    first: Any = model.parameters()
    if "model" in needs:
        first = model
    elif "use_muon" in needs:
        first = muon_groups(model)
    return optimizer(first, **params)


def _wrapping(
    optimizer: Callable[..., Optimizer], needs: tuple[str, ...], model: nn.Module, params: dict[str, Any]
) -> Optimizer:
    """An optimizer that wraps another one."""
    names = {parameter.name for parameter in BASE_PARAMETERS}
    own = {name: value for name, value in params.items() if name not in names}
    # The momentum is null for bases other than sgd.
    of_base = {name: params[name] for name in names if params[name] is not None}
    base = BASES[of_base.pop("base")]
    if "base_class" in needs:
        first = (model, model.parameters()) if "model" in needs else (model.parameters(),)
        return optimizer(*first, base, **own, **of_base)
    return optimizer(base(model.parameters(), **of_base), **own)
