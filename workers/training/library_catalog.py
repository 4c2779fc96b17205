"""Writes the catalog of the libraries' optimizers: `python -m workers.training.library_catalog`, or `make catalog`.

Names, types and defaults of parameters are read from the signatures, their ranges found by trying values, and what an
optimizer needs from the loop by trying to train with it. The conformance test decides whether it is offered.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.optim import Optimizer

from ko import KO
from service.specs.catalog.declaration import BASE_PARAMETERS, Declaration, Need, Parameter, as_values
from service.specs.catalog.libraries import FILE, Library
from workers.training import conformance
from workers.training.bimaxwell import BiMaxwell
from workers.training.conformance import Candidate, Check
from workers.training.groups import muon_groups
from workers.training.libraries import MODULES, TOTAL_STEPS, construct
from workers.training.library_signatures import WRAPPED, describe

SOURCES = {
    "torch": ("BSD-3-Clause", "https://pytorch.org"),
    "pytorch_optimizer": ("Apache-2.0", "https://github.com/kozistr/pytorch_optimizer"),
    "schedulefree": ("Apache-2.0", "https://github.com/facebookresearch/schedule_free"),
    "heavyball": ("BSD-2-Clause", "https://github.com/HomebrewML/HeavyBall"),
}
"""Library -> its licence, which the metadata states differently or not at all, and its page."""

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
TABLES = "<!-- The tables below are written by `make catalog`. -->"

KNOWN_NEEDS: dict[str, tuple[Need, ...]] = dict.fromkeys(
    ("pytorch_optimizer/emofact", "pytorch_optimizer/emolynx", "pytorch_optimizer/emonavi"), ("closure",)
)
"""Needs without which an optimizer takes a step, but not its own: these scale it with the loss of a closure."""

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
    ("model", "base_class", "closure"),
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
        trial = replace(trial, needs=(*needs, *_evident(optimizer)))
        if trial.takes_a_step():
            return _tried(described, trial)
    first = replace(trial, needs=(*attempts[0], *_evident(optimizer))).constructs()
    return described.model_copy(update={"refusal": f"it takes no step: {first.text}"})


def _attempts(optimizer: type[Optimizer]) -> list[tuple[Need, ...]]:
    """The needs to try beside the evident ones; with another optimizer to wrap, if the first argument is one."""
    first = list(inspect.signature(optimizer.__init__).parameters)[1]
    return [needs for needs in NEEDS if first not in WRAPPED or "base" in needs]


def _evident(optimizer: type[Optimizer]) -> tuple[Need, ...]:
    """The needs that its methods and the names of its parameters show."""
    modes: tuple[Need, ...] = ("modes",) if hasattr(optimizer, "train") and hasattr(optimizer, "eval") else ()
    counts_steps = TOTAL_STEPS in inspect.signature(optimizer.__init__).parameters
    return (*(("total_steps",) if counts_steps else ()), *modes)


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

        def build(model: nn.Module) -> Optimizer:
            return construct(self.optimizer, self.needs, model, self.params, conformance.TRAINING_STEPS)

        return Candidate(build, self.needs)

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
        return BiMaxwell(construct(self.optimizer, self.needs, model, self.params | as_values(self.momentum_off)))

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
    write_tables(PAGE, table(libraries))


def write_tables(page: Path, tables: str) -> None:
    """Replace the tables at the end of a page of the documentation, if there is one."""
    if page.exists():
        text = page.read_text()
        page.write_text(text[: text.index(TABLES) + len(TABLES)] + "\n\n" + tables)


if __name__ == "__main__":
    main()
