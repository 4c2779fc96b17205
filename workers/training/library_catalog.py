"""Writes the catalog of the libraries' optimizers: `python -m workers.training.library_catalog`, or `make catalog`.

Names, types and defaults of parameters are read from the signatures, their ranges found by trying values, and what an
optimizer needs from the loop by trying to train with it. The conformance test decides whether it is offered.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.optim import Optimizer

from ko import KO
from service.specs.catalog.declaration import BASE_PARAMETERS, Declaration, Need, Parameter
from service.specs.catalog.libraries import FILE, Library
from workers.training import conformance
from workers.training.bimaxwell import BiMaxwell
from workers.training.conformance import Candidate, Check
from workers.training.groups import muon_groups
from workers.training.libraries import MODULES, construct

SOURCES = {
    "torch": ("BSD-3-Clause", "https://pytorch.org"),
    "pytorch_optimizer": ("Apache-2.0", "https://github.com/kozistr/pytorch_optimizer"),
    "schedulefree": ("Apache-2.0", "https://github.com/facebookresearch/schedule_free"),
}
"""Library -> its licence, which the metadata states differently or not at all, and its page."""

TECHNICAL = {"foreach", "fused", "capturable", "differentiable", "maximize", "seed", "process_group"}
"""Parameters that are left at their defaults: they change speed, not results, or train in the wrong direction."""

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
TABLES = "<!-- The tables below are written by `make catalog`. -->"

_MATRICES = "it accepts matrices only; muon and pytorch_optimizer/muon train the rest with AdamW"
_IN_BACKWARD = "it changes the weights during the backward pass"
_GROUPS = "it needs {} in its parameter groups, which a job cannot give; without them it is {}"
_REFERENCE = "it is the reference implementation of the class without `reference` in its name, and prints at each test"
REFUSED = {
    "torch/muon": _MATRICES,
    "torch/sparseadam": "it accepts sparse gradients only",
    "pytorch_optimizer/adalomo": _IN_BACKWARD,
    "pytorch_optimizer/adamc": _GROUPS.format("the normalization layers", "AdamW"),
    "pytorch_optimizer/adamwsn": _GROUPS.format("`sn`", "AdamW"),
    "pytorch_optimizer/apollo": _GROUPS.format("ranks", "AdamW"),
    "pytorch_optimizer/demo": "it needs the package einops",
    "pytorch_optimizer/distributedmuon": "it needs a process group",
    "pytorch_optimizer/fira": _GROUPS.format("ranks", "AdamW"),
    "pytorch_optimizer/galore": _GROUPS.format("ranks", "AdamW"),
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

KNOWN_NEEDS: dict[str, tuple[Need, ...]] = dict.fromkeys(
    ("pytorch_optimizer/emofact", "pytorch_optimizer/emolynx", "pytorch_optimizer/emonavi"), ("closure",)
)
"""Needs without which an optimizer takes a step, but not its own: these scale it with the loss of a closure."""

OPTIONS = {("torch/lbfgs", "line_search_fn"): ("strong_wolfe",)}
"""Values of parameters that are strings, where the source does not list them."""

WRAPPED = ("optimizer", "base")
"""Names of the first argument of optimizers that wrap another one."""

NEEDS: tuple[tuple[Need, ...], ...] = (
    (),
    ("use_muon",),
    ("model",),
    ("create_graph",),
    ("closure",),
    ("base",),
    ("base", "closure"),
    ("base_class",),
    ("base_class", "closure"),
)
"""What is tried, in this order, until the optimizer takes a step."""


def classes() -> dict[str, type[Optimizer]]:
    """Name -> class of all optimizers, by library and name."""
    return {
        f"{library}/{member.__name__.lower()}": member
        for library, module in MODULES.items()
        for member in sorted(vars(module).values(), key=lambda member: getattr(member, "__name__", "").lower())
        if isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
        if member.__module__.partition(".")[0] == library and not inspect.isabstract(member)
    }


def declare(name: str, optimizer: type[Optimizer]) -> Declaration:
    """The declaration of an optimizer, with what was found by trying it."""
    described = describe(name, optimizer)
    if described.refusal is not None:
        return described
    trial = Trial(optimizer, KNOWN_NEEDS.get(name, ()), {each.name: each.value for each in described.parameters})
    attempts = [KNOWN_NEEDS[name]] if name in KNOWN_NEEDS else _attempts(optimizer)
    for needs in attempts:
        trial = replace(trial, needs=(*needs, *_modes(optimizer)))
        if trial.takes_a_step():
            return _tried(described, trial)
    first = replace(trial, needs=attempts[0]).constructs()
    return described.model_copy(update={"refusal": f"it takes no step: {first.text}"})


def _attempts(optimizer: type[Optimizer]) -> list[tuple[Need, ...]]:
    """The needs to try: with another optimizer to wrap, if the first argument of the constructor is one."""
    first = list(inspect.signature(optimizer.__init__).parameters)[1]
    return [needs for needs in NEEDS if first not in WRAPPED or "base" in needs]


def _modes(optimizer: type[Optimizer]) -> tuple[Need, ...]:
    return ("modes",) if hasattr(optimizer, "train") and hasattr(optimizer, "eval") else ()


def _tried(described: Declaration, trial: Trial) -> Declaration:
    """The declaration with what the conformance test shows."""
    checks = {check.name: check for check in conformance.check(trial.candidate)}
    failures = [f"{check.name}: {check.text}" for check in checks.values() if check.outcome == "fail"]
    has_lr = not checks["schedule"].text.startswith("has no learning rate")
    parameters = [each for each in described.parameters if has_lr or each.name != "lr"]
    return described.model_copy(
        update={
            "parameters": tuple(_bounded(each, trial) for each in parameters),
            "needs": trial.needs,
            "base_of": () if failures else tuple(name for name in WRAPPERS if trial.is_base_of(name)),
            "momentum_off": trial.momentum_off,
            "refusal": "; ".join(failures) or None,
            "is_resumable": checks["resume"].outcome == "pass",
            # Without figures, which differ between processors.
            "remarks": tuple(check.text.partition(" (")[0] for check in checks.values() if check.outcome == "warning"),
        }
    )


# --- what the signature and the docstring say ----------------------------------------------------------------------


def describe(name: str, optimizer: type[Optimizer]) -> Declaration:
    """Names, types and defaults of the parameters, and the description."""
    signature = inspect.signature(optimizer.__init__)
    first, *arguments = [argument for argument in signature.parameters.values() if argument.name != "self"]
    required = [
        argument.name
        for argument in arguments
        if argument.default is argument.empty and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    wraps = first.name in WRAPPED or required == ["base_optimizer"]
    if wraps:
        required = []
    hints = _hints(optimizer)
    texts = _parameter_texts(inspect.getdoc(optimizer) or "")
    options = _options(name, optimizer)
    parameters = [
        parameter
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
    if isinstance(default, float) or float in kinds:
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
    return _sentence(text)[:160] or optimizer.__name__


def _sentence(text: str) -> str:
    """The first sentence of a text, without its period."""
    return re.split(r"\.(?:\s+(?=[A-Z])|\s*$)", " ".join(text.split()), maxsplit=1)[0].rstrip(".:")


def _source(text: str) -> str:
    found = re.search(
        r"https?://(?:www\.)?(?:arxiv\.org|openreview\.net|proceedings\.[\w.]+|jmlr\.org)/[^\s>)`]+", text
    )
    return found.group() if found else ""


def _parameter_texts(text: str) -> dict[str, str]:
    """Parameter -> the first sentence about it in a docstring."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {2,}(\w+)\s*(?:\([^\n]*\))?\s*:\s*((?:[^\n]+\n?)(?:^ {6,}[^\n]+\n?)*)", text, re.M):
        name, words = match[1], " ".join(match[2].split())
        found.setdefault(name, _sentence(re.split(r"\s*\(default", words, maxsplit=1)[0])[:160])
    return found


# --- what trying shows ---------------------------------------------------------------------------------------------

WRAPPERS: tuple[Literal["ko", "bimaxwell"], ...] = ("ko", "bimaxwell")


@dataclass(frozen=True)
class Trial:
    """An optimizer with parameters, and with what it is assumed to need."""

    optimizer: type[Optimizer]
    needs: tuple[Need, ...]
    params: dict[str, Any]

    @property
    def candidate(self) -> Candidate:
        """The optimizer as the conformance test takes it."""
        return Candidate(lambda model: construct(self.optimizer, self.needs, model, self.params), self.needs)

    def constructs(self) -> Check:
        """Whether it can be constructed, and takes a step to finite weights."""
        return conformance.run("construct", conformance.construct, self.candidate)

    def takes_a_step(self, **params: Any) -> bool:
        """Whether it takes a step, with these parameters beside its own."""
        tried = replace(self, params=self.params | params)
        return conformance.run("step", conformance.takes_a_step, tried.candidate).outcome == "pass"

    def is_base_of(self, wrapper: str) -> bool:
        """Whether a wrapper on it trains, and resumes if the optimizer itself does."""
        if not set(self.needs) <= {"modes", "use_muon"}:
            return False
        candidate = Candidate(self._on_ko if wrapper == "ko" else self._on_bimaxwell, self.needs)
        checks = [
            conformance.run(check.__name__, check, candidate)
            for check in (conformance.construct, conformance.evaluation, conformance.repeatability, conformance.resume)
        ]
        resumes = conformance.run("resume", conformance.resume, self.candidate).outcome
        return [check.outcome for check in checks] == ["pass", "pass", "pass", resumes]

    def _on_ko(self, model: nn.Module) -> Optimizer:
        groups: Any = muon_groups(model) if "use_muon" in self.needs else model.parameters()
        params = {name: value for name, value in self.params.items() if name not in ("gamma", "rate")}
        return KO(groups, base=self.optimizer, seed=0, **params)

    def _on_bimaxwell(self, model: nn.Module) -> Optimizer:
        off = {name: tuple(value) if isinstance(value, list) else value for name, value in self.momentum_off.items()}
        return BiMaxwell(construct(self.optimizer, self.needs, model, self.params | off))

    @property
    def momentum_off(self) -> dict[str, Any]:
        """Parameters that switch its own momentum off, as far as their names tell."""
        off: dict[str, Any] = {}
        if isinstance(self.params.get("momentum"), float):
            off["momentum"] = 0.0
        if isinstance(self.params.get("betas"), tuple):
            off["betas"] = [0.0, *self.params["betas"][1:]]
        if off and self.params.get("nesterov") is True:
            off["nesterov"] = False
        return off


def _bounded(parameter: Parameter, trial: Trial) -> Parameter:
    """The parameter with the range that the optimizer accepts, if its bounds are 0 or 1."""
    if parameter.type not in ("number", "integer", "numbers") or parameter in BASE_PARAMETERS:
        return parameter
    is_whole = parameter.type == "integer"

    def is_accepted(value: float) -> bool:
        values = _each(parameter, int(value) if is_whole else float(value))
        return any(trial.takes_a_step(**{parameter.name: value}) for value in values)

    bounds: dict[str, float] = {}
    if not is_accepted(-1) and not is_accepted(-2):
        if is_accepted(0):
            bounds["ge"] = 0
        elif is_whole:
            bounds["ge"] = 1
        else:
            bounds["gt"] = 0
    if not is_whole and not is_accepted(1.5) and not is_accepted(2.5):
        bounds["le" if is_accepted(1) else "lt"] = 1
    bounded = parameter.model_copy(update=bounds)
    return parameter if _excludes_default(bounded) else bounded  # the places of a list can have different ranges


def _excludes_default(parameter: Parameter) -> bool:
    """Whether the range of a parameter excludes its default."""
    try:
        TypeAdapter(parameter.annotation).validate_python(parameter.value)
    except ValidationError:
        return True
    return False


def _each(parameter: Parameter, value: float) -> Iterator[Any]:
    """The value; in a list of numbers, at each place with the defaults elsewhere."""
    if parameter.type != "numbers":
        yield value
        return
    for place in range(len(parameter.default)):
        yield tuple(value if place == other else usual for other, usual in enumerate(parameter.default))


# --- the files -----------------------------------------------------------------------------------------------------


def catalog(declare: Callable[[str, type[Optimizer]], Declaration] = declare) -> list[Library]:
    """All libraries with their optimizers."""
    by_name = classes()
    libraries = []
    for library, (licence, url) in SOURCES.items():
        names = [name for name in by_name if name.startswith(f"{library}/")]
        libraries.append(
            Library(
                name=library,
                version=importlib.metadata.version(library.replace("_", "-")).partition("+")[0],
                licence=licence,
                url=url,
                optimizers=tuple(declare(name, by_name[name]) for name in names),
            )
        )
    return libraries


def table(libraries: Iterable[Library]) -> str:
    """The tables of docs/optimizers.md: those that are offered by library, then those that are refused."""
    parts = []
    for library in libraries:
        offered = [declared for declared in library.optimizers if declared.refusal is None]
        rows = [
            f"| `{declared.name}` | {declared.title} | {_default_lr(declared)} | {', '.join(declared.needs)} "
            f"| {', '.join(declared.base_of)} | {'; '.join(declared.remarks)} |"
            for declared in offered
        ]
        parts.append(
            "\n".join(
                [
                    f"### {library.name} {library.version} ({library.licence}): {len(offered)} optimizers",
                    "",
                    "| name | what it is | default `lr` | needs | base of | remarks of the conformance test |",
                    "|---|---|---|---|---|---|",
                    *rows,
                ]
            )
        )
    refused = [declared for library in libraries for declared in library.optimizers if declared.refusal is not None]
    rows = [f"| `{declared.name}` | {declared.refusal} |" for declared in refused]
    parts.append("\n".join([f"### Refused: {len(refused)}", "", "| name | reason |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _default_lr(declared: Declaration) -> str:
    for parameter in declared.parameters:
        if parameter.name == "lr":
            return "none" if parameter.default is None else f"{parameter.default:g}"
    return ""


def main() -> None:
    """Write the file, and the tables of the documentation."""
    torch.set_num_threads(1)

    def reported(name: str, optimizer: type[Optimizer]) -> Declaration:
        declaration = declare(name, optimizer)
        sys.stderr.write(f"{name}: {declaration.refusal or 'offered'}\n")
        return declaration

    libraries = catalog(reported)
    documents = [library.model_dump(mode="json", exclude_defaults=True) for library in libraries]
    FILE.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    if PAGE.exists():
        text = PAGE.read_text()
        PAGE.write_text(text[: text.index(TABLES) + len(TABLES)] + "\n\n" + table(libraries))


if __name__ == "__main__":
    main()
