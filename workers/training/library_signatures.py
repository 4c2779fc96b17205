"""What the signatures and docstrings of the libraries' optimizers say: names, types, defaults, descriptions."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from typing import Any, Literal

from torch.optim import Optimizer

from service.specs.catalog.declaration import BASE_PARAMETERS, Declaration, Parameter
from service.specs.docstrings import first_sentence, parameter_texts
from workers.training.libraries import TOTAL_STEPS

TECHNICAL = {
    *("foreach", "fused", "capturable", "differentiable", "maximize", "seed", "process_group"),
    *("multi_tensor", "store_triu_as_line"),
}
"""Parameters that are left at their defaults: they change speed, not results, or train in the wrong direction."""

_MATRICES = "it accepts matrices only; muon and pytorch_optimizer/muon train the rest with AdamW"
_BASE = "it is the base of others, without a method of its own"
_IN_BACKWARD = "it changes the weights during the backward pass"
_GROUPS = "it needs {} in its parameter groups, which a job cannot give; without them it is {}"
_REFERENCE = "it is the reference implementation of the class without `reference` in its name, and prints at each test"
REFUSED = {
    "torch/muon": _MATRICES,
    "torch/sparseadam": "it accepts sparse gradients only",
    "heavyball/psgdbase": _BASE,
    "heavyball/samwrapper": "it wraps an optimizer that exists already; pytorch_optimizer/sam is the same method",
    "heavyball/soapbase": _BASE,
    "heavyball/splitopt": "it needs an optimizer for each of its parameter groups, which a job cannot give",
    "pytorch_optimizer/adalomo": _IN_BACKWARD,
    "pytorch_optimizer/adamc": _GROUPS.format("the normalization layers", "AdamW"),
    "pytorch_optimizer/adamwsn": _GROUPS.format("`sn`", "AdamW"),
    "pytorch_optimizer/apollo": _GROUPS.format("ranks", "AdamW"),
    "pytorch_optimizer/bsam": "it leaves the noise and the perturbation of each step in the weights, so that with its "
    "defaults the loss rises",
    "pytorch_optimizer/demo": "it needs the package einops",
    "pytorch_optimizer/distributedmuon": "it needs a process group",
    "pytorch_optimizer/fira": _GROUPS.format("ranks", "AdamW"),
    "pytorch_optimizer/galore": _GROUPS.format("ranks", "AdamW"),
    "pytorch_optimizer/gsam": "its closure must return the model's outputs, too, and its radius follows a scheduler of "
    "its own, which the loop does not step",
    "pytorch_optimizer/lomo": _IN_BACKWARD,
    "pytorch_optimizer/lorarite": "it needs pairs of LoRA factors",
    "pytorch_optimizer/muonclip": "it needs the largest attention logits of each step; without them it is Muon",
    "pytorch_optimizer/pcgrad": "it needs several losses; with one it is its base",
    "pytorch_optimizer/safefp16optimizer": "it is a wrapper for weights in float16",
    "pytorch_optimizer/scionlight": "it keeps its momentum in the gradients, which the loop deletes after each step",
    "pytorch_optimizer/spectralsphere": _MATRICES,
    "schedulefree/adamwschedulefreereference": _REFERENCE,
    "schedulefree/sgdschedulefreereference": _REFERENCE,
}
"""Optimizers that are not tried, because a job cannot give them what makes them different, and why."""

OPTIONS = {("torch/lbfgs", "line_search_fn"): ("strong_wolfe",)}
"""Values of parameters that are strings, where the source does not list them."""

RANGES = {("pytorch_optimizer/wsam", "gamma"): {"ge": 0.0, "lt": 1.0}}
"""Ranges of parameters that trying values does not find: WSAM divides by 1 - gamma, and accepts 1.5."""

FRACTIONS = {"weight_decay"}
"""Parameters that are numbers, where the default 0 reads as an integer."""

WRAPPED = ("optimizer", "base")
"""Names of the first argument of optimizers that wrap another one."""


def describe(name: str, optimizer: type[Optimizer]) -> Declaration:
    """Names, types and defaults of the parameters, and the description."""
    signature = inspect.signature(optimizer.__init__)
    first, *arguments = [argument for argument in signature.parameters.values() if argument.name != "self"]
    required = [
        argument.name
        for argument in arguments
        if argument.default is argument.empty and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    required = [name for name in required if name != TOTAL_STEPS]
    wraps = first.name in WRAPPED or required in (["base_optimizer"], ["params", "base_optimizer"])
    if wraps:
        required = []
    hints = _hints(optimizer)
    texts = parameter_texts(inspect.getdoc(optimizer) or "")
    options = _options(name, optimizer)
    parameters = [
        parameter.model_copy(update=RANGES.get((name, parameter.name), {}))
        for argument in arguments
        if argument.name not in TECHNICAL and argument.default is not argument.empty
        if (parameter := _parameter(argument, hints.get(argument.name), texts.get(argument.name, ""), options))
        is not None
    ]
    return Declaration(
        name=name,
        class_name=optimizer.__name__,
        title=_title(optimizer),
        source=_source(inspect.getdoc(optimizer) or ""),
        parameters=(*parameters, *(BASE_PARAMETERS if wraps else ())),
        refusal=REFUSED.get(name, f"it needs {', '.join(required)}, which a job cannot give" if required else None),
    )


def _hints(optimizer: type[Optimizer]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(optimizer.__init__)
    except Exception:  # an annotation that exists for type checkers only
        return {}


def _options(name: str, optimizer: type[Optimizer]) -> dict[str, tuple[str, ...]]:
    """Parameter -> the strings that it accepts, as the constructor checks them."""
    source = inspect.getsource(optimizer.__init__)
    checked = re.findall(r"validate_options\((\w+), '\w+', [\[(]([^\])]*)[\])]", source)
    listed = {parameter: tuple(re.findall(r"'([^']*)'", values)) for parameter, values in checked}
    return listed | {parameter: values for (owner, parameter), values in OPTIONS.items() if owner == name}


def _parameter(
    argument: inspect.Parameter, hint: Any, text: str, options: dict[str, tuple[str, ...]]
) -> Parameter | None:
    """The parameter, or None if JSON cannot express its values."""
    default = argument.default
    kinds = _kinds(hint)
    is_optional = default is None or type(None) in kinds
    common = {"name": argument.name, "description": text, "is_optional": is_optional}
    literals = [value for kind in kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)]
    choices = options.get(argument.name) or tuple(value for value in literals if isinstance(value, str))
    if choices:
        return Parameter(**common, type="string", default=default, choices=choices)
    if isinstance(default, bool) or (default is None and bool in kinds):
        return Parameter(**common, type="boolean", default=default)
    if isinstance(default, tuple | list) and default and all(isinstance(value, int | float) for value in default):
        return Parameter(**common, type="numbers", default=[float(value) for value in default])
    if isinstance(default, float) and not math.isfinite(default):
        return None
    if not isinstance(default, int | float | None):  # an object that stands for a default
        return None
    if isinstance(default, float) or float in kinds or argument.name in FRACTIONS:
        return Parameter(**common, type="number", default=None if default is None else float(default))
    if isinstance(default, int) or int in kinds:
        return Parameter(**common, type="integer", default=default)
    return None


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in _kinds(part))
    return (hint,)


def _title(optimizer: type[Optimizer]) -> str:
    """The first sentence of the docstring."""
    paragraph = (inspect.getdoc(optimizer) or "").strip().split("\n\n")[0]
    text = re.sub(r"\s*\n\s*(?=[A-Z])", ". ", paragraph)  # a line that begins with a capital begins a sentence
    return first_sentence(text)[:160] or optimizer.__name__


def _source(text: str) -> str:
    found = re.search(
        r"https?://(?:www\.)?(?:arxiv\.org|openreview\.net|proceedings\.[\w.]+|jmlr\.org)/[^\s>)`]+", text
    )
    return found.group() if found else ""
