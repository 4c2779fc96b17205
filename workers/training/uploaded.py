"""Modules of uploaded code, imported from memory in the process of a job that uses them."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from service.code import plugins
from service.specs.catalog import uploaded
from service.specs.catalog.declaration import Declaration
from workers.messages import Code
from workers.training import conformance
from workers.training.conformance import Candidate
from workers.training.libraries import construct

_CODE: dict[str, Code] = {}
_MODULES: dict[str, ModuleType] = {}


def receive(code: Iterable[Code]) -> None:
    """Make versions known to this process. Nothing of them is executed yet."""
    for version in code:
        _CODE[version.declaration.name] = version
        uploaded.remember(version.declaration)


def factory(declared: Declaration) -> Callable[..., Optimizer]:
    """The class, or the function `make`, of an uploaded optimizer or a plug-in. The first call executes its module."""
    if declared.name not in _CODE and plugins.find(declared.name) is not None:
        return plugins.load(declared.name)
    module = _MODULES.get(declared.name) or _execute(_CODE[declared.name])
    made: Callable[..., Optimizer] = getattr(module, declared.class_name)
    return made


def _execute(code: Code) -> ModuleType:
    name = f"{code.declaration.name}/{code.file}"
    module = ModuleType(f"uploaded_{code.declaration.name.partition('/')[2].partition('@')[0]}")
    module.__file__ = name
    # For tracebacks, and for torch's compiler, which reads the source of what it compiles.
    linecache.cache[name] = (len(code.source), None, code.source.splitlines(keepends=True), name)
    sys.modules[module.__name__] = module
    exec(compile(code.source, name, "exec"), module.__dict__)
    _MODULES[code.declaration.name] = module
    return module


def candidate(code: Code) -> Candidate:
    """An optimizer with its defaults, for the conformance test."""
    receive([code])
    return candidate_of(code.declaration)


def candidate_of(declared: Declaration) -> Candidate:
    """A known optimizer with its defaults, for the conformance test."""
    params = declared.params_model().model_dump()

    def build(model: nn.Module) -> Optimizer:
        return checked(construct(factory(declared), declared.needs, model, params), declared.name)

    return Candidate(build, declared.needs)


def check_plugins(optimizer: Mapping[str, Any]) -> None:
    """Run the check `resume` of the conformance test on the plug-ins that the optimizer of a spec uses.

    No conformance test has run when they were installed, and only those that pass may write checkpoints.
    """
    for name in uploaded.names_in(optimizer):
        declared = plugins.find(name)
        if declared is not None and declared.refusal is None:
            result = conformance.run("resume", conformance.resume, candidate_of(declared))
            uploaded.remember(declared.model_copy(update={"is_resumable": result.outcome == "pass"}))


def checked(made: Any, name: str) -> Optimizer:
    """What the code returned. Raises ValueError if it is no optimizer."""
    if not isinstance(made, Optimizer):
        raise ValueError(f"{name} made a {type(made).__name__}, which is no torch.optim.Optimizer")
    return made
