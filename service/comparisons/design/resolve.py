"""From what is asked to a plan; what is wrong is refused with pointers into the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import comb, floor, log, prod
from typing import Any, Literal

from pydantic import ValidationError

from service.comparisons.design.labels import flat, labels
from service.comparisons.design.plan import Plan, PlannedOptimizer, PlannedTask, Rung, scaled
from service.comparisons.design.requests import ComparisonRequest, OptimizerRequest, Seeds, TaskRequest, Tuning
from service.comparisons.design.search_spaces import MOST_PARAMETERS, dimensions, grid, points
from service.errors import FieldError, Invalid
from service.specs.catalog.datasets import Dataset
from service.specs.metric_text import many, out_of_reach
from service.specs.training import TrainSpec
from service.validation import field_errors

UNTOLD = frozenset({"target", "device", "log_every_steps", "diagnostics_every_steps"})
"""No part of a task's label: they change nothing of what is trained."""


UNTRAINED = UNTOLD | {"eval_every_steps"}
"""What two tasks may differ in and train the same all the same."""

MOST_PAIRS = 10_000
"""Of optimizers, over all tasks: an answer lists each, and takes 2.5 kB and 0.6 ms for it."""

MOST_LOSS = 1e6
"""As the score of a diverged run."""

Records = Callable[[str], int | None]
"""The name of a data set -> how many training records it has without a limit; None where that is not known."""
Classes = Callable[[Dataset], int]
"""A data set -> how many classes it has."""


def resolve(
    request: ComparisonRequest,
    devices: Mapping[str, str] | None = None,
    most_jobs: int | None = None,
    records: Records = lambda _: None,
    classes: Classes = lambda dataset: dataset.classes,
) -> Plan:
    """The plan of a request. Raises Invalid, which points to what is wrong, and where it is more than `most_jobs`.

    `devices` says what a task's device is to be instead, such as {"auto": "cpu"}; `classes` knows those of own data.
    """
    counts = [classes(task.dataset) for task in request.tasks]
    _refuse_what_does_not_fit(request, records, counts)
    _refuse_too_many(request, most_jobs)
    names = dimensions(one.space or {} for one in request.optimizers)
    if len(names) > MOST_PARAMETERS:
        raise Invalid.field("/optimizers", f"{len(names)} different parameters to tune; at most {MOST_PARAMETERS}")
    tried = [_trials(request, index, names) for index in range(len(request.optimizers))]
    resolved = _validated(request, tried)
    tasks = [
        PlannedTask(label=label, spec=_task_spec(task, devices or {}), diverged_score=_diverged_score(request, count))
        for task, label, count in zip(request.tasks, _task_labels(request.tasks), counts, strict=True)
    ]
    optimizers = [
        PlannedOptimizer(label=label, name=one.name, space=one.space, trials=trials)
        for one, label, trials in zip(request.optimizers, _labels(request, resolved), resolved, strict=True)
    ]
    seeds = request.seeds
    stopping: Literal["fixed", "looks", "any"] = (
        "fixed" if seeds.looks is None else "any" if seeds.looks == "any" else "looks"
    )
    looks = (
        list(seeds.looks)
        if isinstance(seeds.looks, tuple)
        else list(range(min(2, seeds.max), seeds.max + 1))
        if stopping == "any"
        else [seeds.max]
    )
    return Plan(
        name=request.name,
        metric=request.metric,
        tasks=tasks,
        optimizers=optimizers,
        seeds=list(range(seeds.first, seeds.first + seeds.max)),
        looks=looks,
        stopping=stopping,
        tuning=_tuning(request),
        rungs=_rungs(request),
        vary=sorted({"seed", *request.vary}),
        reuse=request.reuse,
        tags=request.tags,
        priority=request.priority,
        time_limit_seconds=request.time_limit_seconds,
        max_failures=request.max_failures,
    )


def _tuning(request: ComparisonRequest) -> Tuning | None:
    """A grid is as large as it is, whatever number of trials was asked for."""
    grids = request.tuning is not None and request.tuning.method == "grid"
    return request.tuning.model_copy(update={"trials": None}) if request.tuning and grids else request.tuning


def _refuse_what_does_not_fit(request: ComparisonRequest, records: Records, classes: Sequence[int]) -> None:
    """What contradicts itself, whatever data sets and optimizers say."""
    errors = []
    for index, one in enumerate(request.optimizers):
        for name in sorted((one.space or {}).keys() & one.params.keys()):
            pointer = f"/optimizers/{index}/params/{name}"
            errors.append(FieldError(pointer, f"'{name}' is in the search space, too: give it in one of them"))
        if one.space and request.tuning and request.tuning.method == "grid":
            errors += [
                FieldError(f"/optimizers/{index}/space/{name}", "a grid needs the values themselves: give a choice")
                for name, values in one.space.items()
                if values.choice is None
            ]
    tuned = [index for index, one in enumerate(request.optimizers) if one.space]
    if tuned and request.tuning is None:
        errors.append(
            FieldError(
                "/tuning",
                f"needed, because optimizer {tuned[0]} has a search space: give a number of trials, "
                'such as {"trials": 8}',
            )
        )
    if request.tuning and not tuned:
        errors.append(FieldError("/tuning", "no optimizer has a search space: give one a space, or leave this out"))
    if request.tuning and _overlap(request.tuning, request.seeds):
        errors.append(
            FieldError(
                "/tuning/first_seed", "the trials would share seeds with the runs that judge them: keep them apart"
            )
        )
    errors += [*_misfits_of_tasks(request), *_tasks_listed_twice(request, records)]
    errors += _misfits_of_score(request, classes)
    if errors:
        raise Invalid.fields(errors)


def _refuse_too_many(request: ComparisonRequest, most: int | None) -> None:
    """Before anything is enumerated: a grid of ten parameters would fill the memory."""
    tasks, optimizers = many(len(request.tasks), "task"), many(len(request.optimizers), "optimizer")
    pairs = len(request.tasks) * comb(len(request.optimizers), 2)
    if pairs > MOST_PAIRS:
        raise Invalid.field(
            "/optimizers",
            f"{tasks} x {comb(len(request.optimizers), 2)} pairs of {optimizers} are {pairs:,} pairs to be tested "
            f"together, and at most {MOST_PAIRS:,} are allowed: take fewer optimizers or tasks",
        )
    tried = 0
    for one in request.optimizers:
        if one.space and request.tuning:
            size = prod(len(values.choice or ()) for values in one.space.values())
            runs = size if request.tuning.method == "grid" else sum(rung.trials for rung in _rungs(request))
            tried += runs * request.tuning.seeds
    reported = len(request.optimizers) * request.seeds.max
    jobs = len(request.tasks) * (tried + reported)
    if most is not None and jobs > most:
        raise Invalid.field(
            "/optimizers",
            f"{tasks} x ({many(tried, 'run')} to tune + {optimizers} x {many(request.seeds.max, 'seed')}) are up to "
            f"{many(jobs, 'job')}, and at most {most} are allowed (KOTRAIN_MAX_COMPARISON_JOBS): take fewer "
            "optimizers, trials or seeds",
        )


def _overlap(tuning: Tuning, seeds: Seeds) -> bool:
    return tuning.first_seed < seeds.first + seeds.max and seeds.first < tuning.first_seed + tuning.seeds


def _misfits_of_tasks(request: ComparisonRequest) -> Iterator[FieldError]:
    for index, task in enumerate(request.tasks):
        if task.target and (why := out_of_reach(task.target)):
            yield FieldError(f"/tasks/{index}/target/value", why)
        if "split" in request.vary and getattr(task.dataset.params, "split", None) == "golden":
            yield FieldError(
                f"/tasks/{index}/dataset/params/split",
                "the golden split is one fixed split: take fixed_test or seeded, or leave 'split' out of vary",
            )
        if "split" in request.vary and request.tuning and task.dataset.resplits == "all":
            yield FieldError(
                f"/tasks/{index}/dataset/params/split",
                "parameters would be chosen on records that other splits test on: take the split 'fixed_test', or "
                "leave 'split' out of vary",
            )
        if request.tuning and request.tuning.method == "halving":
            yield from _misfits_of_halving(request.tuning, task, index)


def _tasks_listed_twice(request: ComparisonRequest, records: Records) -> Iterator[FieldError]:
    names = [task.dataset.name for task in request.tasks]
    trained = [
        _trained(request, task, records(name) if names.count(name) > 1 else None)  # counting may take long
        for task, name in zip(request.tasks, names, strict=True)
    ]
    for index, document in enumerate(trained):
        if (first := trained.index(document)) < index:
            yield FieldError(
                f"/tasks/{index}",
                f"trains the same as task {first} (/tasks/{first}), and would count as further evidence: list each "
                "once. Targets, devices and how often is validated or logged make no other task",
            )


def _trained(request: ComparisonRequest, task: TaskRequest, there: int | None) -> dict[str, Any]:
    """What is trained: epochs as the steps that they are, a limit only where it leaves some of the records out."""
    spec = task.model_dump(mode="json", exclude={"label", *UNTRAINED})
    params: dict[str, Any] = spec["dataset"]["params"]
    limit = params.get("limit")
    if limit is not None and there is not None and limit >= there:
        limit = params["limit"] = None
    if (task.dataset.resplits == "nothing" and limit is None) or (
        task.dataset.resplits != "nothing" and "split" in request.vary
    ):
        params.pop("split_seed", None)  # it draws nothing, or every run has that of its own seed
    used = limit if limit is not None else there
    if used is not None and task.budget.epochs is not None:
        spec["budget"] |= {"epochs": None, "steps": task.budget.epochs * -(-used // task.batch_size)}
    return spec


def _misfits_of_score(request: ComparisonRequest, classes: Sequence[int]) -> Iterator[FieldError]:
    """A run that diverged has learnt nothing: its score is in the metric's range, and no better than guessing."""
    score = request.diverged_score
    if score is None:
        return
    if request.metric.endswith("accuracy"):
        low, high, why = 0.0, 1.0 / max(classes), "a share, no better than guessing between the classes"
    elif request.metric.endswith("loss"):
        low, high = floor(100 * log(max(classes))) / 100, MOST_LOSS
        why = "a loss, no better than that of guessing between the classes"
    else:
        low, high, why = 0.0, MOST_LOSS, "records per second"
    if not low <= score <= 1.01 * high:  # 0.143 is meant for one of seven
        yield FieldError("/diverged_score", f"has to be from {low:g} to {high:g} here ({why}), and {score:g} is not")


def _misfits_of_halving(tuning: Tuning, task: TaskRequest, index: int) -> Iterator[FieldError]:
    assert tuning.trials is not None
    if tuning.trials < 2 * tuning.reduction:
        yield FieldError(
            "/tuning/trials",
            f"halving by {tuning.reduction} needs at least {2 * tuning.reduction} trials, so that two go on",
        )
        return
    budgets = [scaled(task.budget.model_dump(), rung.share) for rung in _halving(tuning)]
    if any(one == other for one, other in pairwise(budgets)):
        yield FieldError(f"/tasks/{index}/budget", f"too small to be divided by {tuning.reduction} for each rung")


def _halving(tuning: Tuning) -> list[Rung]:
    assert tuning.trials is not None
    sizes = [tuning.trials]
    while sizes[-1] // tuning.reduction >= 2:
        sizes.append(sizes[-1] // tuning.reduction)
    last = len(sizes) - 1
    return [Rung(trials=size, share=tuning.reduction ** (number - last)) for number, size in enumerate(sizes)]


def _rungs(request: ComparisonRequest) -> list[Rung]:
    if request.tuning is None:
        return []
    if request.tuning.method == "halving":
        return _halving(request.tuning)
    most = request.tuning.trials
    if request.tuning.method == "grid":
        most = max(len(grid(one.space)) for one in request.optimizers if one.space)
    assert most is not None
    return [Rung(trials=most, share=1.0)]


def _trials(request: ComparisonRequest, index: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """The points an optimizer is tried at, as far as they were given."""
    one = request.optimizers[index]
    if one.space is None or request.tuning is None:
        return [one.params]
    if request.tuning.method == "grid":
        found = grid(one.space)
    else:
        assert request.tuning.trials is not None
        found = points(one.space, names, request.tuning.trials, request.tuning.points_seed)
        if len(found) < request.tuning.trials:
            raise Invalid.field(
                "/tuning/trials",
                f"{request.tuning.trials} are more than the {many(len(found), 'different point')} that optimizer "
                f"{index} has in its space: take at most {len(found)}, so that every tuned optimizer gets as many, or "
                "give it a larger space",
            )
    return [{**one.params, **point} for point in found]


def _validated(request: ComparisonRequest, tried: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The trials with every default made explicit. Raises Invalid, with pointers into the request."""
    errors: dict[str, FieldError] = {}
    resolved: list[list[dict[str, Any]]] = []
    for index, (one, trials) in enumerate(zip(request.optimizers, tried, strict=True)):
        explicit = []
        for params in [*trials, *_extremes(one)]:
            for number, task in enumerate(request.tasks):
                body = _body(task, one.name, params)
                try:
                    spec = TrainSpec.model_validate(body)
                except ValidationError as error:
                    for found in field_errors(error, body):
                        field = _pointed(found, number, index, one)
                        errors.setdefault(field.pointer, field)
                    continue
                if number == 0:
                    explicit.append(spec.optimizer.params.model_dump(mode="json"))
        resolved.append(explicit[: len(trials)])
    if errors:
        raise Invalid.fields(list(errors.values()))
    return resolved


def _body(task: TaskRequest, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {**task.model_dump(mode="json", exclude={"label"}), "optimizer": {"name": name, "params": dict(params)}}


def _extremes(one: OptimizerRequest) -> Iterator[dict[str, Any]]:
    """Parameters that show whether all of the space is allowed: each tuned one at its extremes, beside its middle."""
    middle = {name: values.at(0.5) for name, values in (one.space or {}).items()}
    for name, values in (one.space or {}).items():
        for value in values.extremes:
            yield {**one.params, **middle, name: value}


def _pointed(error: FieldError, task: int, optimizer: int, one: OptimizerRequest) -> FieldError:
    """An error in a spec as one in the request."""
    if not error.pointer.startswith("/optimizer"):
        return FieldError(f"/tasks/{task}{error.pointer}", error.detail)
    rest = error.pointer.removeprefix("/optimizer")
    name = rest.removeprefix("/params/").partition("/")[0]
    if rest.startswith("/params/") and name in (one.space or {}):
        rest = f"/space/{name}"
    return FieldError(f"/optimizers/{optimizer}{rest}", error.detail)


def _task_spec(task: TaskRequest, devices: Mapping[str, str]) -> dict[str, Any]:
    """`auto` stays where it can mean a GPU alone, whether or not one is up now."""
    spec = task.model_dump(mode="json", exclude={"label"})
    device = devices.get(spec["device"], spec["device"])
    return {**spec, "device": spec["device"] if task.precision == "fp16" and device == "cpu" else device}


def _diverged_score(request: ComparisonRequest, classes: int) -> float | None:
    if request.diverged_score is None and request.metric.endswith("accuracy"):
        return 1.0 / classes
    return request.diverged_score


def _task_labels(tasks: Sequence[TaskRequest]) -> list[str]:
    """Given or made of the data set and the model, with what tells tasks apart that share them."""
    specs = [flat(task.model_dump(mode="json", exclude={"label", *UNTOLD})) for task in tasks]
    found = []
    for task, own in zip(tasks, specs, strict=True):
        name = f"{own['dataset.name']} {own['model.name']}"
        others = [other for other in specs if f"{other['dataset.name']} {other['model.name']}" == name]
        details = [
            f"{path.rpartition('.')[2]}={value}"
            for path, value in own.items()
            if value is not None and any(other.get(path) != value for other in others)
        ]
        found.append(task.label or " ".join([name, *details]))
    _refuse_twice(found, "tasks")
    return found


def _labels(request: ComparisonRequest, resolved: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Given or made of what tells the optimizers apart; what is tuned is no part of a label."""
    fixed = [
        {
            "name": one.name,
            "params": {name: value for name, value in trials[0].items() if name not in (one.space or {})},
        }
        for one, trials in zip(request.optimizers, resolved, strict=True)
    ]
    tried = [
        (one.name, {json.dumps(trial, sort_keys=True) for trial in trials})
        for one, trials in zip(request.optimizers, resolved, strict=True)
    ]
    for index, points_of_one in enumerate(tried):
        if (first := tried.index(points_of_one)) < index:
            raise Invalid.field(f"/optimizers/{index}", f"the same as optimizer {first}: list each once")
    made = labels(fixed, "optimizer")
    if len(set(made)) < len(made):  # the same parameters fixed, other ones tuned
        made = [
            f"{label} tuned {'+'.join(one.space)}" if one.space else label
            for label, one in zip(made, request.optimizers, strict=True)
        ]
    found = [one.label or label for one, label in zip(request.optimizers, made, strict=True)]
    _refuse_twice(found, "optimizers")
    return found


def _refuse_twice(found: Sequence[str], what: str) -> None:
    for index, label in enumerate(found):
        if label in found[:index]:
            raise Invalid.field(
                f"/{what}/{index}/label", f"'{label}' is taken by {what}/{found.index(label)}: give another"
            )
