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
from pathlib import Path
from typing import Any, Literal

import pytorch_optimizer
import schedulefree
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from ko import KO
from service.specs.catalog.declaration import BASE_PARAMETERS, Declaration, Need, Parameter
from service.specs.catalog.libraries import FILE, Library
from workers.training import conformance
from workers.training.conformance import Candidate, Check
from workers.training.groups import muon_groups
from workers.training.libraries import construct

URLS = {
    "torch": "https://pytorch.org",
    "pytorch_optimizer": "https://github.com/kozistr/pytorch_optimizer",
    "schedulefree": "https://github.com/facebookresearch/schedule_free",
}
LICENCES = {"torch": "BSD-3-Clause", "pytorch_optimizer": "Apache-2.0", "schedulefree": "Apache-2.0"}
"""The licence of each library, which their metadata states differently or not at all."""

TECHNICAL = {"foreach", "fused", "capturable", "differentiable", "maximize", "seed", "process_group"}
"""Parameters that are left at their defaults: they change speed, not results, or train in the wrong direction."""

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
TABLES = "<!-- The tables below are written by `make catalog`. -->"

_MATRICES = "it accepts matrices only; muon and pytorch_optimizer/muon train the rest with AdamW"
_IN_BACKWARD = "it changes the weights during the backward pass"
REASONS = {
    "torch/muon": _MATRICES,
    "torch/sparseadam": "it accepts sparse gradients only",
    "pytorch_optimizer/adalomo": _IN_BACKWARD,
    "pytorch_optimizer/lomo": _IN_BACKWARD,
    "pytorch_optimizer/demo": "it needs the package einops",
    "pytorch_optimizer/distributedmuon": "it needs a process group",
    "pytorch_optimizer/safefp16optimizer": "it is a wrapper for weights in float16",
    "pytorch_optimizer/spectralsphere": _MATRICES,
}
"""Why some that fail do, where their errors do not say it."""

WRAPPED = ("optimizer", "base")
"""Names of the first argument of optimizers that wrap another one."""

NEEDS: tuple[tuple[Need, ...], ...] = (
    (),
    ("use_muon",),
    ("model",),
    ("create_graph",),
    ("gradients_then_closure",),
    ("base",),
    ("base", "gradients_then_closure"),
    ("base_class",),
    ("base_class", "gradients_then_closure"),
)
"""What is tried, in this order, until the optimizer does a step."""


def classes() -> dict[str, type[Optimizer]]:
    """Name -> class of all optimizers."""
    found: dict[str, type[Optimizer]] = {}
    for library, module in (
        ("torch", torch.optim),
        ("pytorch_optimizer", pytorch_optimizer),
        ("schedulefree", schedulefree),
    ):
        for name, member in sorted(vars(module).items()):
            is_optimizer = isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
            if is_optimizer and member.__module__.partition(".")[0] == library and not inspect.isabstract(member):
                found[f"{library}/{name.lower()}"] = member
    return dict(sorted(found.items(), key=lambda item: (list(URLS).index(item[0].partition("/")[0]), item[0])))


def declare(name: str, optimizer: type[Optimizer]) -> Declaration:
    """The declaration of an optimizer, with what was found by trying it."""
    basic = describe(name, optimizer)
    if basic.refusal is not None:
        return basic
    needs = _needs(optimizer)
    if needs is None:
        error = _made(Candidate(lambda model: construct(optimizer, (), model, {}))).text
        return basic.model_copy(update={"refusal": REASONS.get(name, f"it does no step: {error}")})
    candidate = Candidate(lambda model: construct(optimizer, needs, model, {}), needs)
    checks = conformance.check(candidate)
    failures = [f"{check.name}: {check.text}" for check in checks if check.outcome == "fail"]
    return basic.model_copy(
        update={
            "parameters": tuple(_bounded(parameter, optimizer, needs) for parameter in basic.parameters),
            "needs": (*needs, *(("modes",) if hasattr(optimizer, "train") and hasattr(optimizer, "eval") else ())),
            "is_base_of_ko": not failures and _is_base_of_ko(optimizer, needs),
            "refusal": REASONS.get(name, "; ".join(failures)) if failures else None,
            "is_resumable": all(check.outcome == "pass" for check in checks if check.name == "resume"),
            "remarks": tuple(check.text for check in checks if check.outcome == "warning"),
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
    parameters = [
        parameter
        for argument in arguments
        if argument.name not in TECHNICAL and argument.default is not argument.empty
        if (parameter := _parameter(argument, hints.get(argument.name), texts.get(argument.name, ""))) is not None
    ]
    return Declaration(
        name=name,
        class_name=optimizer.__name__,
        title=_title(optimizer),
        source=_source(inspect.getdoc(optimizer) or ""),
        parameters=(*parameters, *(BASE_PARAMETERS if wraps else ())),
        refusal=f"it needs {', '.join(required)}, which a job cannot give" if required else None,
    )


def _hints(optimizer: type[Optimizer]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(optimizer.__init__)
    except Exception:  # an annotation that exists for type checkers only
        return {}


def _parameter(argument: inspect.Parameter, hint: Any, text: str) -> Parameter | None:
    """The parameter, or None if JSON cannot express its values."""
    default = argument.default
    kinds = _kinds(hint)
    is_optional = default is None or type(None) in kinds
    common = {"name": argument.name, "description": text, "is_optional": is_optional}
    literals = [value for kind in kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)]
    if literals and all(isinstance(value, str) for value in literals):
        return Parameter(**common, type="string", default=default, choices=tuple(literals))
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


def _needs(optimizer: type[Optimizer]) -> tuple[Need, ...] | None:
    """What the optimizer needs from the loop; None if it does no step with anything."""
    for needs in NEEDS:
        candidate = Candidate(lambda model, needs=needs: construct(optimizer, needs, model, {}), needs)  # type: ignore[misc]
        if _made(candidate).outcome == "pass":
            if needs == ("gradients_then_closure",) and _evaluates_first(candidate):
                return ("closure",)
            return needs
    return None


def _made(candidate: Candidate) -> Check:
    """Whether the optimizer can be made, and does a step."""
    return conformance.run("construct", conformance.construct, candidate)


def _evaluates_first(candidate: Candidate) -> bool:
    """Whether the first call of the closure in each step evaluates the weights before the step."""
    model = conformance.network()
    stepper = candidate.stepper(model)
    x = torch.randn(16, 8)
    for _ in range(5):
        loss = model(x).square().mean()
        stepper.backward(loss)
        before, seen = _weights(model), list[Tensor]()

        def evaluate() -> Tensor:
            seen.append(_weights(model))  # noqa: B023
            present: Tensor = model(x).square().mean()
            return present

        stepper.step(loss, evaluate)
        if not seen or not torch.equal(seen[0], before):
            return False
    return True


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def _bounded(parameter: Parameter, optimizer: type[Optimizer], needs: tuple[Need, ...]) -> Parameter:
    """The parameter with the range that the optimizer accepts, as far as it ends at 0 or 1."""
    if parameter.type not in ("number", "integer", "numbers"):
        return parameter
    is_whole = parameter.type == "integer"

    def is_accepted(value: float) -> bool:
        values = _each(parameter, int(value) if is_whole else value)
        return all(_does_a_step(optimizer, needs, {parameter.name: value}) for value in values)

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


def _does_a_step(optimizer: type[Optimizer], needs: tuple[Need, ...], params: dict[str, Any]) -> bool:
    def build(model: nn.Module) -> Optimizer:
        return construct(optimizer, needs, model, params)

    text = conformance.run("construct", conformance.does_a_step, Candidate(build, needs))
    return text.outcome == "pass"


def _is_base_of_ko(optimizer: type[Optimizer], needs: tuple[Need, ...]) -> bool:
    """Whether KO on it does a step."""

    def build(model: nn.Module) -> Optimizer:
        groups = muon_groups(model) if "use_muon" in needs else model.parameters()
        lr = {"lr": 0.01} if "lr" in inspect.signature(optimizer).parameters else {}
        return KO(groups, base=optimizer, seed=0, **lr)  # type: ignore[arg-type]

    return "model" not in needs and _made(Candidate(build)).outcome == "pass"


# --- the files -----------------------------------------------------------------------------------------------------


def catalog(declare: Callable[[str, type[Optimizer]], Declaration] = declare) -> list[Library]:
    """All libraries with their optimizers."""
    found = classes()
    libraries = []
    for library, url in URLS.items():
        names = [name for name in found if name.startswith(f"{library}/")]
        libraries.append(
            Library(
                name=library,
                version=importlib.metadata.version(library.replace("_", "-")).partition("+")[0],
                licence=LICENCES[library],
                url=url,
                optimizers=tuple(declare(name, found[name]) for name in names),
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
            f"| {'yes' if declared.is_base_of_ko else 'no'} | {'; '.join(declared.remarks)} |"
            for declared in offered
        ]
        parts.append(
            "\n".join(
                [
                    f"### {library.name} {library.version} ({library.licence}): {len(offered)} optimizers",
                    "",
                    "| name | what it is | default `lr` | needs | base of KO | remarks of the conformance test |",
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
