"""Checks of a request that need no data: contradictions within it, repeated tasks, and its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import comb, floor, log
from typing import Any

from service.comparisons.design.plan import scaled
from service.comparisons.design.requests import ComparisonRequest, Seeds, TaskRequest, Tuning
from service.comparisons.design.rungs import grid_size, halving, rungs
from service.errors import FieldError, Invalid
from service.specs.metric_text import out_of_reach
from service.specs.text import counted

UNLABELED = frozenset({"target", "device", "log_every_steps", "diagnostics_every_steps"})
"""Fields that a task's label omits, because they do not change the training."""

UNTRAINED = UNLABELED | {"eval_every_steps"}
"""Fields in which two tasks may differ although they train identically."""

MAX_PAIRS = 10_000
"""Maximum number of pairs over all tasks; each takes 2.5 kB and 0.6 ms of an answer."""

MAX_VALUES = 10_000
"""Maximum number of values to validate in all search spaces: choices, and ends of ranges; each takes 0.05 ms."""

MAX_LOSS = 1e6
"""Maximum score of a diverged run, for metrics other than accuracies."""

Records = Callable[[str], int | None]
"""Name of a data set -> number of its training records without a limit; None if unknown."""


def refuse_contradictions(request: ComparisonRequest, records: Records, classes: Sequence[int]) -> None:
    """Raise Invalid with a pointer to each contradiction. `classes`: number of classes of each task's data."""
    errors = [
        *_of_spaces(request),
        *_of_tuning(request),
        *_of_tasks(request),
        *_repeated_tasks(request, records),
        *_of_score(request, classes),
    ]
    if errors:
        raise Invalid.fields(errors)


def _of_spaces(request: ComparisonRequest) -> Iterator[FieldError]:
    for index, optimizer in enumerate(request.optimizers):
        space = optimizer.space or {}
        for name in sorted(space.keys() & optimizer.params.keys()):
            pointer = f"/optimizers/{index}/params/{name}"
            yield FieldError(pointer, f"'{name}' is in the search space, too: give it in one of them")
        if request.tuning and request.tuning.method == "grid":
            for name, values in space.items():
                if values.choice is None:
                    pointer = f"/optimizers/{index}/space/{name}"
                    yield FieldError(pointer, "a grid needs a list of values: write it as a choice")


def _of_tuning(request: ComparisonRequest) -> Iterator[FieldError]:
    tuned = [index for index, optimizer in enumerate(request.optimizers) if optimizer.space]
    if tuned and request.tuning is None:
        yield FieldError(
            "/tuning",
            f"needed, because optimizer {tuned[0]} has a search space: give a number of trials, "
            'such as {"trials": 8}',
        )
    if request.tuning and not tuned:
        yield FieldError("/tuning", "no optimizer has a search space: give one a space, or leave this out")
    if request.tuning and _overlap(request.tuning, request.seeds):
        yield FieldError(
            "/tuning/first_seed",
            "the trials would share seeds with the final runs: choose a first_seed outside their range",
        )


def _overlap(tuning: Tuning, seeds: Seeds) -> bool:
    return tuning.first_seed < seeds.first + seeds.max and seeds.first < tuning.first_seed + tuning.seeds


def _of_tasks(request: ComparisonRequest) -> Iterator[FieldError]:
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
                "hyperparameters would be chosen on records that other splits test on: take the split 'fixed_test', or "
                "leave 'split' out of vary",
            )
        if request.tuning and request.tuning.method == "halving":
            yield from _of_halving(request.tuning, task, index)


def _of_halving(tuning: Tuning, task: TaskRequest, index: int) -> Iterator[FieldError]:
    assert tuning.trials is not None
    if tuning.trials < 2 * tuning.reduction:
        yield FieldError(
            "/tuning/trials",
            f"halving by {tuning.reduction} needs at least {2 * tuning.reduction} trials, so that two remain",
        )
        return
    budgets = [scaled(task.budget.model_dump(), rung.share) for rung in halving(tuning)]
    if any(budget == next_budget for budget, next_budget in pairwise(budgets)):
        yield FieldError(f"/tasks/{index}/budget", f"too small to be divided by {tuning.reduction} for each rung")


def _repeated_tasks(request: ComparisonRequest, records: Records) -> Iterator[FieldError]:
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
                "once. Targets, devices and intervals of validation and logging do not make another task",
            )


def _trained(request: ComparisonRequest, task: TaskRequest, available: int | None) -> dict[str, Any]:
    """The fields that determine the training: epochs as steps, and a limit only if below the `available` records."""
    spec = task.model_dump(mode="json", exclude={"label", *UNTRAINED})
    params: dict[str, Any] = spec["dataset"]["params"]
    limit = params.get("limit")
    if limit is not None and available is not None and limit >= available:
        limit = params["limit"] = None
    if (task.dataset.resplits == "nothing" and limit is None) or (
        task.dataset.resplits != "nothing" and "split" in request.vary
    ):
        params.pop("split_seed", None)  # without effect, or replaced by the seed of each run
    used = limit if limit is not None else available
    if used is not None and task.budget.epochs is not None:
        spec["budget"] |= {"epochs": None, "steps": task.budget.steps_on(used, task.batch_size)}
    return spec


def _of_score(request: ComparisonRequest, classes: Sequence[int]) -> Iterator[FieldError]:
    """The score of a diverged run has to be in the metric's range, and no better than guessing."""
    score = request.diverged_score
    if score is None:
        return
    if request.metric.endswith("accuracy"):
        low, high, why = 0.0, 1.0 / max(classes), "a share, no better than guessing between the classes"
    elif request.metric.endswith("loss"):
        low, high = floor(100 * log(max(classes))) / 100, MAX_LOSS
        why = "a loss, no better than that of guessing between the classes"
    else:
        low, high, why = 0.0, MAX_LOSS, "samples per second"
    if not low <= score <= 1.01 * high:  # tolerance for rounding: 0.143 for 1/7
        yield FieldError("/diverged_score", f"has to be from {low:g} to {high:g} here ({why}), and {score:g} is not")


def refuse_too_many(request: ComparisonRequest, max_jobs: int | None) -> None:
    """Raise Invalid for too many pairs, values or jobs, before any of them is built in memory or validated."""
    tasks, optimizers = counted(len(request.tasks), "task"), counted(len(request.optimizers), "optimizer")
    pairs = len(request.tasks) * comb(len(request.optimizers), 2)
    if pairs > MAX_PAIRS:
        raise Invalid.field(
            "/optimizers",
            f"{tasks} x {comb(len(request.optimizers), 2)} pairs of {optimizers} are {pairs:,} pairs to be tested "
            f"together, and at most {MAX_PAIRS:,} are allowed: take fewer optimizers or tasks",
        )
    values = sum(len(of.extremes) for optimizer in request.optimizers for of in (optimizer.space or {}).values())
    if values > MAX_VALUES:
        raise Invalid.field(
            "/optimizers", f"the search spaces list {values:,} values, and at most {MAX_VALUES:,} are allowed"
        )
    tuning_runs = _tuning_runs(request)
    jobs = len(request.tasks) * (tuning_runs + len(request.optimizers) * request.seeds.max)
    if max_jobs is not None and jobs > max_jobs:
        raise Invalid.field(
            "/optimizers",
            f"{tasks} x ({counted(tuning_runs, 'run')} to tune + {optimizers} x {counted(request.seeds.max, 'seed')}) "
            f"are up to {counted(jobs, 'job')}, and at most {max_jobs:,} are allowed (KOTRAIN_MAX_COMPARISON_JOBS): "
            "take fewer optimizers, trials or seeds",
        )


def _tuning_runs(request: ComparisonRequest) -> int:
    """Number of tuning runs per task."""
    if request.tuning is None:
        return 0
    tuned = [optimizer for optimizer in request.optimizers if optimizer.space]
    if request.tuning.method == "grid":
        return request.tuning.seeds * sum(map(grid_size, tuned))
    return request.tuning.seeds * len(tuned) * sum(rung.trials for rung in rungs(request))
