"""From a comparison's runs to its answer: each task by itself, all tasks together, and what it all rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from service.comparisons.analysis import tuning
from service.comparisons.analysis.assumptions import assumptions
from service.comparisons.analysis.comparability import counts, settled
from service.comparisons.analysis.completeness import Obstacle, missing_runs, obstacle, untested_pairs, untested_races
from service.comparisons.analysis.costs import costs
from service.comparisons.analysis.cross_task import across_tasks
from service.comparisons.analysis.grouping import ENVIRONMENT_SETTING
from service.comparisons.analysis.methods_text import methods, plan_view
from service.comparisons.analysis.summaries import group_view, pair_view
from service.comparisons.analysis.verdict import Protocol, correction_in_words, verdict
from service.comparisons.answers import (
    AcrossTasks,
    ComparisonAnswer,
    ComparisonProgress,
    Estimate,
    FirstToTarget,
    GroupView,
    LeftOut,
    MissingRun,
    ReusedRun,
    TaskAnswer,
    ToTarget,
    TuningView,
    VerdictView,
)
from service.comparisons.design import schedule as protocol
from service.comparisons.design.durations import cell_seconds, most_seconds
from service.comparisons.design.labels import flat
from service.comparisons.design.plan import Plan
from service.comparisons.design.runs import CellRun
from service.comparisons.styles import looks
from service.specs.metric_text import Measure, listed
from service.specs.training import ComparisonStatus, JobStatus, Target, TargetHit
from service.stats import median_to_target, paired_to_target
from service.stats.multiple_testing import Family, Sampled, Test, Values, test_all
from service.storage.tables import Comparison

Estimates = Mapping[tuple[int, int], Estimate]


# --- one task --------------------------------------------------------------------------------------------------------


@dataclass
class _Task:
    """A task's reported runs, as far as they can be compared."""

    number: int
    label: str
    chosen: dict[int, int]
    runs: dict[int, list[CellRun]] = field(default_factory=dict)
    """Optimizer -> its runs on the chosen trial, by seed."""
    values: list[Values] = field(default_factory=list)
    """By optimizer."""
    order: list[int] = field(default_factory=list)
    """Optimizers, the best mean first: a pair is the better one's lead over the other."""
    looks_done: list[int] = field(default_factory=list)
    """By optimizer."""
    is_complete: bool = False
    missing: list[MissingRun] = field(default_factory=list)
    lost: list[frozenset[int]] = field(default_factory=list)
    """By optimizer: seeds whose reported run is missing."""

    @property
    def sampled(self) -> Sampled:
        """The scores, in the order of the table."""
        done = [self.looks_done[position] for position in self.order]
        lost = [self.lost[position] for position in self.order]
        return Sampled([self.values[position] for position in self.order], done, lost)


def _task(plan: Plan, number: int, runs: Sequence[CellRun], results: protocol.Results) -> _Task:
    task = _Task(number, plan.tasks[number].label, protocol.chosen_trials(plan, results, number))
    of_task = [run for run in runs if run.cell.task == number]
    task.missing = [_missing(plan, run) for run in of_task if run.result.failed]
    for position in range(len(plan.optimizers)):
        chosen = ("report", position, task.chosen.get(position))
        task.runs[position] = [run for run in of_task if (run.cell.phase, run.cell.optimizer, run.cell.trial) == chosen]
    task.values = protocol.values(plan, results, number, task.chosen)
    task.lost = protocol.lost(plan, results, number, task.chosen)
    task.order = _by_mean(task.values, Measure(plan.metric).sign)
    reporting = protocol.reporting(plan, results, number)
    task.looks_done, task.is_complete = reporting.looks_done, reporting.is_complete
    return task


def _by_mean(values: Sequence[Values], sign: int) -> list[int]:
    means = [sign * fmean(of_one.values()) if of_one else float("-inf") for of_one in values]
    return sorted(range(len(values)), key=lambda position: (-means[position], position))


def _missing(plan: Plan, run: CellRun) -> MissingRun:
    label = plan.optimizers[run.cell.optimizer].label
    last_line = (run.message or "").strip().splitlines()[-1:]
    why = ": ".join([*([str(run.result.reason)] if run.result.reason else []), *last_line]) or str(run.result.status)
    return MissingRun(label=label, phase=run.cell.phase, seed=run.cell.seed, job=run.job, why=why)


def _task_answer(
    plan: Plan,
    task: _Task,
    tests: Sequence[Test],
    results: protocol.Results,
    runs: Sequence[CellRun],
    family: Family,
    barred: Obstacle | None,
) -> TaskAnswer:
    """`barred`: what stands in the way of all verdicts."""
    spec = plan.tasks[task.number].spec
    measure = Measure(plan.metric)
    target = None if spec["target"] is None else Target.model_validate(spec["target"])
    views = [_group(plan, task, position, target, family) for position in task.order]
    values = [task.values[position] for position in task.order]
    labels, is_read = [view.label for view in views], barred is None
    pairs = untested_pairs([pair_view(test, labels, values, family, is_read=is_read) for test in tests], barred)
    tuned = [
        tuning.view(plan, results, runs, task.number, position, task.chosen.get(position))
        for position, one in enumerate(plan.optimizers)
        if one.is_tuned
    ]
    fixed = _held_fixed(plan, task)
    rules = Protocol(
        correction=correction_in_words(family),
        scored=plan.tasks[task.number].diverged_score is not None,
        missing=missing_runs(plan, task.number, runs, task.chosen, task.lost),
        caveats=tuple(_caveats(plan, task, measure, tuned)),
    )
    said = VerdictView(decided=False, best=None, text=barred.verdict) if barred else None
    return TaskAnswer(
        dataset=spec["dataset"]["name"],
        model=spec["model"]["name"],
        metric=plan.metric,
        group_by="optimizer",
        target=target,
        held_fixed=fixed,
        groups=views,
        pairs=pairs,
        verdict=said or verdict(measure, views, pairs, fixed, rules),
        left_out=_left_out(task, runs),
        label=task.label,
        tuning=tuned,
        cost=costs(plan, task.runs),
        to_target=[] if target is None else [_to_target(plan, task, position) for position in task.order],
        first_to_target=[] if target is None else untested_races(_first_to_target(plan, task), pairs, barred),
        missing=task.missing,
    )


def _group(plan: Plan, task: _Task, position: int, target: Target | None, family: Family) -> GroupView:
    """A group; its own interval only where seeds were not added after looks, since it does not allow for them."""
    optimizer = plan.optimizers[position]
    runs = [run for run in task.runs[position] if counts(run)]
    trial = optimizer.trials[task.chosen.get(position, 0)]
    value = {"name": optimizer.name, "params": trial}
    met = [_hit(run) for run in runs] if target else []
    diverged = sum(run.result.diverged for run in runs)
    view = group_view(optimizer.label, value, value, task.values[position], met, diverged, family.sign)
    changes: dict[str, Any] = {
        "jobs": [run.job for run in runs],
        "diverged_jobs": [run.job for run in runs if run.result.diverged],
    }
    if family.stopping != "fixed" and view.interval is not None:
        why = "not given, because seeds were added after looks: the intervals of the differences allow for that"
        changes |= {"interval": None, "cannot_say": f"the interval of the mean is {why}"}
    return view.model_copy(update=changes)


def _held_fixed(plan: Plan, task: _Task) -> dict[str, Any]:
    """The task, readable, and what its runs ran on, which all that are compared share."""
    untold = {"log_every_steps", "target"}
    spec = {name: value for name, value in plan.tasks[task.number].spec.items() if name not in untold}
    ended = [run for runs in task.runs.values() for run in runs if counts(run)]
    environment = {} if not ended else {name: ended[0].environment[name] for name in ENVIRONMENT_SETTING}
    told_elsewhere = {"dataset.name", "model.name", "diagnostics_every_steps"}
    return {
        path: value
        for path, value in flat({**spec, "environment": environment}).items()
        if value is not None and path not in told_elsewhere
    }


def _caveats(plan: Plan, task: _Task, measure: Measure, tuned: Sequence[TuningView]) -> Iterable[str]:
    score = plan.tasks[task.number].diverged_score
    ended = [[run for run in task.runs[position] if counts(run)] for position in range(len(plan.optimizers))]
    diverged = [sum(run.result.diverged for run in runs) for runs in ended]
    if score is not None and diverged != [len(runs) for runs in ended]:  # where all did, the verdict says so
        for one, runs, amount in zip(plan.optimizers, ended, diverged, strict=True):
            if amount:
                yield f"{amount} of {len(runs)} runs of {one.label} diverged and count as {measure.value(score)}."
    yield _tuning_in_words(plan)
    if lost := [f"{failed} of {len(view.trials)} of {view.label}" for view in tuned if (failed := tuning.failed(view))]:
        yield f"Trials failed, so that tuning was not equal: {listed(lost, most=None)}."
    if edges := [f"{listed(view.at_edge, most=None)} of {view.label}" for view in tuned if view.at_edge]:
        yield f"At the edge of what was tried, so that a wider range may help: {listed(edges, most=None)}."
    splits = max((len(values) for values in task.values), default=0)
    drawn = plan.resplits(task.number) if "split" in plan.vary else "nothing"
    yield {
        "all": f"This holds over {splits} splits of the data.",
        "validation": f"This holds over {splits} splits of training from validation data, on one test set.",
        "nothing": "This holds on this split of the data.",
    }[drawn]


def _tuning_in_words(plan: Plan) -> str:
    fixed = [one.label for one in plan.optimizers if not one.is_tuned]
    if plan.tuning is None:
        return "Parameters were given, not tuned."
    sizes = {len(one.trials) for one in plan.optimizers if one.is_tuned}
    if len(sizes) == 1:
        trials = sizes.pop()
        text = f"Parameters were chosen on validation data, with {trials} trial{'s' * (trials != 1)} for each optimizer"
    else:
        of_each = ", ".join(f"{one.label} {len(one.trials)}" for one in plan.optimizers if one.is_tuned)
        text = f"Parameters were chosen on validation data, with unequal numbers of trials ({of_each})"
    return text + (f"; those of {listed(fixed, most=None)} were given." if fixed else ".")


def _hit(run: CellRun) -> TargetHit | None:
    """When a run met the target; one that diverged has lost it again."""
    return None if run.result.diverged else run.hit


def _to_target(plan: Plan, task: _Task, position: int) -> ToTarget:
    met = [_hit(run) for run in task.runs[position] if counts(run)]
    return ToTarget(
        label=plan.optimizers[position].label,
        runs=len(met),
        reached=sum(hit is not None for hit in met),
        steps=median_to_target([hit.step if hit else None for hit in met]),
        seconds=median_to_target([hit.wall_seconds if hit else None for hit in met]),
    )


def _first_to_target(plan: Plan, task: _Task) -> list[FirstToTarget]:
    """All pairs, in steps: seconds depend on what else ran."""
    steps = {
        position: {run.cell.seed: hit.step if (hit := _hit(run)) else None for run in runs if counts(run)}
        for position, runs in task.runs.items()
    }
    found = []
    for a, b in combinations(task.order, 2):
        both = sorted(steps[a].keys() & steps[b].keys())
        pair = paired_to_target([steps[a][seed] for seed in both], [steps[b][seed] for seed in both])
        found.append(FirstToTarget(a=plan.optimizers[a].label, b=plan.optimizers[b].label, **vars(pair)))
    return found


def _left_out(task: _Task, runs: Sequence[CellRun]) -> LeftOut:
    statuses = [run.result.status for run in runs if run.cell.task == task.number and run.cell.phase == "report"]
    failed = [run for run in runs if run.cell.task == task.number and run.cell.phase == "report" and run.result.failed]
    cancelled = statuses.count(JobStatus.CANCELLED)
    return LeftOut(
        unfinished=sum(not status.is_final for status in statuses),
        failed=len(failed) - cancelled,
        cancelled=cancelled,
        without_metric=0,
        repeated=0,
    )


# --- all of it -------------------------------------------------------------------------------------------------------


def conclude(comparison: Comparison, plan: Plan, runs: Sequence[CellRun], estimates: Estimates) -> ComparisonAnswer:
    """The answer to a comparison, as far as its runs are."""
    runs = settled(plan, runs)
    results = {run.cell: run.result for run in runs}
    family = protocol.family(plan)
    tasks = [_task(plan, number, runs, results) for number in range(len(plan.tasks))]
    tests = test_all([task.sampled for task in tasks], family)
    is_complete = all(task.is_complete for task in tasks)
    ended = sum(counts(run) for task in tasks for of_one in task.runs.values() for run in of_one)
    barred = obstacle(plan, ComparisonStatus(comparison.status), ended, is_complete=is_complete)
    answers = [
        _task_answer(plan, task, of_task, results, runs, family, barred)
        for task, of_task in zip(tasks, tests, strict=True)
    ]
    across, together = _together(plan, tasks, answers) if is_complete and barred is None else (None, [])
    is_over = comparison.status != ComparisonStatus.RUNNING
    sentences = [
        f"{answer.label}: {answer.verdict.text}" if len(answers) > 1 else answer.verdict.text for answer in answers
    ]
    return ComparisonAnswer(
        id=comparison.id,
        name=comparison.name,
        user=comparison.user.name,
        status=ComparisonStatus(comparison.status),
        message=comparison.message,
        created_at=comparison.created_at,
        finished_at=comparison.finished_at,
        tags=plan.tags,
        verdict=[*sentences, *together],
        progress=_progress(comparison, plan, runs, estimates),
        tasks=answers,
        across=across,
        assumptions=list(assumptions(plan, answers, _seen_before(comparison, runs), is_over=is_over)),
        methods=_methods(plan, tasks, barred),
        reused=[_reused(plan, run) for run in runs if run.is_reused],
        plan=plan_view(plan),
        estimates=list(estimates.values()),
        looks=looks([(one.label, one.name) for one in plan.optimizers]),
    )


def _together(
    plan: Plan, tasks: Sequence[_Task], answers: Sequence[TaskAnswer]
) -> tuple[AcrossTasks | None, Sequence[str]]:
    """All tasks together, and sentences about them."""
    if len(tasks) < 2:
        return None, []
    if any(seeds for task in tasks for seeds in task.lost):
        return None, ["All tasks together are not ranked, because planned runs are missing."]
    found = across_tasks(plan, answers, [task.values for task in tasks])
    return found, found.sentences if found else []


def _reused(plan: Plan, run: CellRun) -> ReusedRun:
    task, optimizer = plan.tasks[run.cell.task], plan.optimizers[run.cell.optimizer]
    return ReusedRun(job=run.job, label=optimizer.label, task=task.label, seed=run.cell.seed, user=run.user)


def _methods(plan: Plan, tasks: Sequence[_Task], barred: Obstacle | None) -> str:
    """How it was done, and what was not done in the end."""
    short = [task.label for task in tasks if any(task.lost)]
    if barred is not None and barred.methods:
        return f"{methods(plan)} {barred.methods}"
    where = f" on {listed(short, most=None)}" if len(tasks) > 1 else ""
    ending = f" Planned runs are missing{where}; pairs that lack one were not tested." if short else ""
    return methods(plan) + ending


def _seen_before(comparison: Comparison, runs: Sequence[CellRun]) -> tuple[int, int]:
    """How many of the reported runs had ended before they were asked for, and how many there are."""
    reported = [run for run in runs if run.cell.phase == "report"]
    seen = [run for run in reported if run.finished_at is not None and run.finished_at < comparison.created_at]
    return len(seen), len(reported)


def _progress(comparison: Comparison, plan: Plan, runs: Sequence[CellRun], estimates: Estimates) -> ComparisonProgress:
    statuses = Counter(run.result.status for run in runs)
    diverged = sum(run.result.diverged for run in runs)
    over = comparison.status != ComparisonStatus.RUNNING
    tuning_now = any(not run.result.is_final for run in runs if run.cell.phase == "tuning")
    phase: Literal["tuning", "reporting", "finished"] = "finished" if over else "tuning" if tuning_now else "reporting"
    most = 0.0 if over else most_seconds(plan, estimates)
    done = 0.0 if over else sum(cell_seconds(plan, estimates, run.cell) or 0.0 for run in runs if run.result.is_final)
    return ComparisonProgress(
        phase=phase,
        jobs=len(runs),
        jobs_at_most=plan.jobs(),
        queued=statuses[JobStatus.QUEUED],
        running=statuses[JobStatus.RUNNING],
        succeeded=statuses[JobStatus.SUCCEEDED],
        diverged=diverged,
        failed=statuses[JobStatus.FAILED] - diverged,
        cancelled=statuses[JobStatus.CANCELLED],
        reused=sum(run.is_reused for run in runs),
        seconds_used=sum({run.job: run.total_seconds or 0.0 for run in runs if not run.is_reused}.values()),
        seconds_left=None if most is None else max(0.0, most - done),
    )
