"""Resolve a request to its plan. Errors point into the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from service.comparisons.design.checks import UNLABELED, Records, refuse_contradictions, refuse_too_many
from service.comparisons.design.labels import flat, labels
from service.comparisons.design.plan import Plan, PlannedOptimizer, PlannedTask
from service.comparisons.design.requests import ComparisonRequest, OptimizerRequest, Seeds, TaskRequest, Tuning
from service.comparisons.design.rungs import rungs
from service.comparisons.design.search_spaces import dimensions, grid, points
from service.comparisons.design.warnings import warnings
from service.errors import FieldError, Invalid
from service.specs.catalog.datasets import Dataset
from service.specs.search_space import MAX_PARAMETERS
from service.specs.text import counted
from service.specs.training import TrainSpec
from service.validation import field_errors

Classes = Callable[[Dataset], int]
"""A data set -> its number of classes."""

Params = dict[str, Any]


def resolve(
    request: ComparisonRequest,
    devices: Mapping[str, str] | None = None,
    max_jobs: int | None = None,
    records: Records = lambda _: None,
    classes: Classes = lambda dataset: dataset.classes,
) -> Plan:
    """The plan of a request.

    Args:
        request: what to compare.
        devices: replacements of the tasks' devices, such as {"auto": "cpu"}.
        max_jobs: maximum number of jobs; None: no limit.
        records: the number of training records of a data set, by name.
        classes: the number of classes of a data set, uploaded ones included.

    Raises:
        Invalid: with a pointer to each error.
    """
    refuse_too_many(request, max_jobs)
    counts = [classes(task.dataset) for task in request.tasks]
    refuse_contradictions(request, records, counts)
    stopping, looks = _looks(request.seeds)
    plan = Plan(
        name=request.name,
        metric=request.metric,
        optimizers=_optimizers(request),
        tasks=_tasks(request, devices or {}, counts),
        seeds=list(range(request.seeds.first, request.seeds.first + request.seeds.max)),
        looks=looks,
        stopping=stopping,
        tuning=_tuning(request),
        rungs=rungs(request),
        vary=sorted({"seed", *request.vary}),
        reuse=request.reuse,
        tags=request.tags,
        priority=request.priority,
        time_limit_seconds=request.time_limit_seconds,
        max_failures=request.max_failures,
    )
    return plan.model_copy(update={"warnings": list(warnings(request, plan, records))})


def _tuning(request: ComparisonRequest) -> Tuning | None:
    """The tuning of the plan; for a grid without a number of trials, which is its number of points."""
    is_grid = request.tuning is not None and request.tuning.method == "grid"
    return request.tuning.model_copy(update={"trials": None}) if request.tuning and is_grid else request.tuning


def _looks(seeds: Seeds) -> tuple[Literal["fixed", "looks", "any"], list[int]]:
    """The stopping rule, and the numbers of seeds at which results are tested."""
    if seeds.looks is None:
        return "fixed", [seeds.max]
    if seeds.looks == "any":
        return "any", list(range(min(2, seeds.max), seeds.max + 1))
    return "looks", list(seeds.looks)


def _refuse_repeated(names: Sequence[str], field: str) -> None:
    for index, label in enumerate(names):
        if label in names[:index]:
            raise Invalid.field(
                f"/{field}/{index}/label", f"'{label}' is taken by {field}/{names.index(label)}: choose another one"
            )


# --- tasks -----------------------------------------------------------------------------------------------------------


def _tasks(request: ComparisonRequest, devices: Mapping[str, str], classes: Sequence[int]) -> list[PlannedTask]:
    return [
        PlannedTask(label=label, spec=_task_spec(task, devices), diverged_score=_diverged_score(request, count))
        for task, label, count in zip(request.tasks, _task_labels(request.tasks), classes, strict=True)
    ]


def _task_spec(task: TaskRequest, devices: Mapping[str, str]) -> dict[str, Any]:
    """The spec with its device replaced; not by a CPU for fp16, which needs a GPU, although none may be up now."""
    spec = task.model_dump(mode="json", exclude={"label"})
    device = devices.get(spec["device"], spec["device"])
    return {**spec, "device": spec["device"] if task.precision == "fp16" and device == "cpu" else device}


def _diverged_score(request: ComparisonRequest, classes: int) -> float | None:
    if request.diverged_score is None and request.metric.endswith("accuracy"):
        return 1.0 / classes
    return request.diverged_score


def _task_labels(tasks: Sequence[TaskRequest]) -> list[str]:
    """Requested labels, else data set, model, and the fields that distinguish tasks that share both."""
    specs = [flat(task.model_dump(mode="json", exclude={"label", *UNLABELED})) for task in tasks]
    names = [f"{spec['dataset.name']} {spec['model.name']}" for spec in specs]
    task_labels = []
    for task, spec, name in zip(tasks, specs, names, strict=True):
        others = [other for other, other_name in zip(specs, names, strict=True) if other_name == name]
        details = [
            f"{path.rpartition('.')[2]}={value}"
            for path, value in spec.items()
            if value is not None and any(other.get(path) != value for other in others)
        ]
        task_labels.append(task.label or " ".join([name, *details]))
    _refuse_repeated(task_labels, "tasks")
    return task_labels


# --- optimizers ------------------------------------------------------------------------------------------------------


def _optimizers(request: ComparisonRequest) -> list[PlannedOptimizer]:
    names = dimensions(optimizer.space or {} for optimizer in request.optimizers)
    if len(names) > MAX_PARAMETERS:
        raise Invalid.field("/optimizers", f"{len(names)} different hyperparameters to tune; at most {MAX_PARAMETERS}")
    trials = [_trials(request, index, names) for index in range(len(request.optimizers))]
    resolved = _validated(request, trials)
    return [
        PlannedOptimizer(label=label, name=optimizer.name, space=optimizer.space, trials=explicit)
        for optimizer, label, explicit in zip(request.optimizers, _labels(request, resolved), resolved, strict=True)
    ]


def _trials(request: ComparisonRequest, index: int, names: Sequence[str]) -> list[Params]:
    """The points of an optimizer, without defaults."""
    optimizer = request.optimizers[index]
    if optimizer.space is None or request.tuning is None:
        return [optimizer.params]
    if request.tuning.method == "grid":
        return [{**optimizer.params, **point} for point in grid(optimizer.space)]
    assert request.tuning.trials is not None
    distinct = points(optimizer.space, names, request.tuning.trials, request.tuning.points_seed)
    if len(distinct) < request.tuning.trials:
        raise Invalid.field(
            "/tuning/trials",
            f"{request.tuning.trials} trials exceed the {counted(len(distinct), 'different point')} in the space of "
            f"optimizer {index}: request at most {len(distinct)}, because all tuned optimizers get the same number, or "
            "enlarge the space",
        )
    return [{**optimizer.params, **point} for point in distinct]


def _validated(request: ComparisonRequest, requested: Sequence[Sequence[Params]]) -> list[list[Params]]:
    """The trials with every default explicit. Raises Invalid with pointers into the request.

    The first trial of an optimizer is validated on each task, its other points on one task for each unit of budget,
    the only field of a task on which parameters depend. Points times tasks can be half a million specs.
    """
    errors: dict[str, FieldError] = {}
    resolved: list[list[Params]] = []
    tasks = [task.model_dump(mode="json", exclude={"label"}) for task in request.tasks]
    units = [[unit for unit, amount in task["budget"].items() if amount is not None] for task in tasks]
    kinds = [number for number, unit in enumerate(units) if units.index(unit) == number]
    for index, (optimizer, trials) in enumerate(zip(request.optimizers, requested, strict=True)):
        explicit = []
        for point, params in enumerate([*trials, *_extremes(optimizer)]):
            for number in kinds if point else range(len(tasks)):
                body = {**tasks[number], "optimizer": {"name": optimizer.name, "params": dict(params)}}
                try:
                    spec = TrainSpec.model_validate(body)
                except ValidationError as error:
                    for of_spec in field_errors(error, body):
                        field = _pointed(of_spec, number, index, optimizer)
                        errors.setdefault(field.pointer, field)
                    continue
                if number == 0:
                    explicit.append(spec.optimizer.params.model_dump(mode="json"))
        resolved.append(explicit[: len(trials)])
    if errors:
        raise Invalid.fields(list(errors.values()))
    return resolved


def _extremes(optimizer: OptimizerRequest) -> Iterator[Params]:
    """Points that check whether the whole space is valid: each parameter at its ends, the others in the middle."""
    middle = {name: values.at(0.5) for name, values in (optimizer.space or {}).items()}
    for name, values in (optimizer.space or {}).items():
        for value in values.extremes:
            yield {**optimizer.params, **middle, name: value}


def _pointed(error: FieldError, task: int, index: int, optimizer: OptimizerRequest) -> FieldError:
    """An error in a spec as one in the request."""
    if not error.pointer.startswith("/optimizer"):
        return FieldError(f"/tasks/{task}{error.pointer}", error.detail)
    rest = error.pointer.removeprefix("/optimizer")
    name = rest.removeprefix("/params/").partition("/")[0]
    if rest.startswith("/params/") and name in (optimizer.space or {}):
        rest = f"/space/{name}"
    return FieldError(f"/optimizers/{index}{rest}", error.detail)


def _labels(request: ComparisonRequest, resolved: Sequence[Sequence[Params]]) -> list[str]:
    """Requested labels, else derived from the parameters that distinguish the optimizers, without tuned ones."""
    _refuse_equal(request, resolved)
    fixed = [
        {
            "name": optimizer.name,
            "params": {name: value for name, value in trials[0].items() if name not in (optimizer.space or {})},
        }
        for optimizer, trials in zip(request.optimizers, resolved, strict=True)
    ]
    derived = labels(fixed, "optimizer")
    if len(set(derived)) < len(derived):  # same fixed parameters, different tuned ones
        derived = [
            f"{label} tuned {'+'.join(optimizer.space)}" if optimizer.space else label
            for label, optimizer in zip(derived, request.optimizers, strict=True)
        ]
    chosen = [optimizer.label or label for optimizer, label in zip(request.optimizers, derived, strict=True)]
    _refuse_repeated(chosen, "optimizers")
    return chosen


def _refuse_equal(request: ComparisonRequest, resolved: Sequence[Sequence[Params]]) -> None:
    """Raise Invalid for two optimizers with the same trials."""
    trials = [
        (optimizer.name, {json.dumps(params, sort_keys=True) for params in of_optimizer})
        for optimizer, of_optimizer in zip(request.optimizers, resolved, strict=True)
    ]
    for index, of_optimizer in enumerate(trials):
        if (first := trials.index(of_optimizer)) < index:
            raise Invalid.field(f"/optimizers/{index}", f"the same as optimizer {first}: list each once")
