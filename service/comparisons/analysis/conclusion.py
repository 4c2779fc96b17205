"""The answer to a planned comparison from its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from service.comparisons.analysis.assumptions import assumptions
from service.comparisons.analysis.caveats import caveats
from service.comparisons.analysis.comparability import settled
from service.comparisons.analysis.completeness import Obstacle, blocked_by, missing_runs
from service.comparisons.analysis.costs import costs
from service.comparisons.analysis.cross_task import cross_task
from service.comparisons.analysis.grouping import ENVIRONMENT_SETTING, Group, by_mean, held_fixed, task_scores
from service.comparisons.analysis.methods_text import conducted, plan_view
from service.comparisons.analysis.progress import progress
from service.comparisons.analysis.runs import CellRun
from service.comparisons.analysis.summaries import left_out
from service.comparisons.analysis.targets import first_to_target, to_target
from service.comparisons.analysis.task_answer import Question, task_answer
from service.comparisons.analysis.tuning import tuning_view
from service.comparisons.answers import (
    AcrossTasks,
    ComparisonAnswer,
    ComparisonSummary,
    MissingRun,
    ReusedRun,
    TaskAnswer,
)
from service.comparisons.design.durations import Estimates
from service.comparisons.design.labels import flat
from service.comparisons.design.plan import Plan
from service.comparisons.design.schedule import TaskResults, family
from service.comparisons.styles import plot_styles
from service.specs.metric_text import Measure
from service.specs.states import ComparisonStatus
from service.specs.summary import Target
from service.stats.multiple_testing import RUNS_ARE_MISSING, Test, adjusted_tests


@dataclass(frozen=True)
class _Task:
    """The runs of one task, their results and their groups."""

    results: TaskResults
    runs: Sequence[CellRun]

    @property
    def plan(self) -> Plan:
        return self.results.plan

    @property
    def label(self) -> str:
        return self.plan.tasks[self.results.task].label

    @cached_property
    def groups(self) -> list[Group[CellRun]]:
        """One group per optimizer, in the order of the plan."""
        return [self._group(position) for position in range(len(self.plan.optimizers))]

    @cached_property
    def ranked(self) -> list[Group[CellRun]]:
        """The groups, the best mean first."""
        return by_mean(self.groups, Measure(self.plan.metric).sign)

    @cached_property
    def missing_runs(self) -> Obstacle | None:
        """The obstacle that planned runs are missing."""
        return missing_runs(self.results, self.runs)

    def lacks_trial(self, position: int) -> bool:
        """Whether no trial of a ranked group has a result, so that it has no final runs."""
        chosen = {self.plan.optimizers[optimizer].label for optimizer in self.results.chosen}
        return self.results.is_tuned and self.ranked[position].label not in chosen

    @property
    def lacks_runs(self) -> bool:
        """Whether planned runs are missing, so that their pairs are not tested."""
        return self.missing_runs is not None or any(self.results.lost)

    def _group(self, position: int) -> Group[CellRun]:
        optimizer, trial = self.plan.optimizers[position], self.results.chosen.get(position)
        chosen = ("report", position, trial)
        value = {"name": optimizer.name, "params": optimizer.trials[trial or 0]}
        return Group(
            optimizer.label,
            value,
            value,
            {
                run.cell.seed: run
                for run in self.runs
                if run.counts and (run.cell.phase, run.cell.optimizer, run.cell.trial) == chosen
            },
            self.results.values[position],
            self.results.looks_done[position],
            self.results.lost[position],
        )


def conclude(
    summary: ComparisonSummary,
    plan: Plan,
    runs: Sequence[CellRun],
    estimates: Estimates,
) -> ComparisonAnswer:
    """The answer to a comparison, from the runs it has so far."""
    runs = settled(plan, runs)
    results = {run.cell: run.result for run in runs}
    tasks = [
        _Task(TaskResults(plan, results, number), [run for run in runs if run.cell.task == number])
        for number in range(len(plan.tasks))
    ]
    is_complete = all(task.results.is_complete for task in tasks)
    ended = sum(len(group.runs) for task in tasks for group in task.groups)
    obstacle = blocked_by(plan, summary.status, ended, is_complete=is_complete)
    tests = adjusted_tests([task_scores(task.ranked) for task in tasks], family(plan))
    answers = [_task_answer(task, of_task, obstacle) for task, of_task in zip(tasks, tests, strict=True)]
    across, together = _across(tasks, answers) if is_complete and obstacle is None else (None, [])
    is_over = summary.status is not ComparisonStatus.RUNNING
    return ComparisonAnswer(
        **dict(summary),
        verdict=[*_verdicts(answers), *together],
        progress=progress(plan, runs, estimates, is_over=is_over),
        tasks=answers,
        across=across,
        assumptions=list(assumptions(plan, answers, _seen_before(summary.created_at, runs), is_over=is_over)),
        methods=conducted(plan, obstacle, [task.label for task in tasks if task.lacks_runs]),
        reused=[_reused(plan, run) for run in runs if run.is_reused],
        plan=plan_view(plan),
        estimates=list(estimates.values()),
        looks=plot_styles([(optimizer.label, optimizer.name) for optimizer in plan.optimizers]),
    )


def _task_answer(task: _Task, tests: Sequence[Test], obstacle: Obstacle | None) -> TaskAnswer:
    """The answer on one task. `obstacle` applies to all tasks."""
    if obstacle is not None:
        tests = [test.withheld(obstacle.pair) for test in tests]
    else:
        tests = [
            test.withheld(RUNS_ARE_MISSING) if task.lacks_trial(test.a) or task.lacks_trial(test.b) else test
            for test in tests
        ]
    question = _question(task)
    tuned = [
        tuning_view(task.results, task.runs, position)
        for position, optimizer in enumerate(task.plan.optimizers)
        if optimizer.is_tuned
    ]
    answer = task_answer(
        question,
        task.ranked,
        tests,
        left_out(Counter(run.result.status for run in task.runs if run.cell.phase == "report" and not run.counts)),
        lambda *_: caveats(task.plan, task.results.task, task.groups, tuned),
        obstacle or task.missing_runs,
    )
    return TaskAnswer(
        **dict(answer),
        label=task.label,
        tuning=tuned,
        cost=costs({group.label: list(group.runs.values()) for group in task.groups}),
        to_target=[to_target(group) for group in task.ranked] if question.target else [],
        first_to_target=first_to_target(task.ranked, tests) if question.target else [],
        missing=[_missing(task.plan, run) for run in task.runs if run.result.failed],
    )


def _question(task: _Task) -> Question:
    planned = task.plan.tasks[task.results.task]
    return Question(
        dataset=planned.spec["dataset"]["name"],
        model=planned.spec["model"]["name"],
        metric=task.plan.metric,
        group_by="optimizer",
        target=None if planned.spec["target"] is None else Target.model_validate(planned.spec["target"]),
        held_fixed=held_fixed(_setting(task), {"dataset.name", "model.name", "diagnostics_every_steps"}),
        family=family(task.plan),
        is_scored=planned.diverged_score is not None,
        has_looks=task.plan.stopping != "fixed",
    )


def _setting(task: _Task) -> dict[str, object]:
    """The task's spec and the environment that its runs share, as dotted path -> value."""
    spec = task.plan.tasks[task.results.task].spec
    first = next((run for group in task.groups for run in group.runs.values()), None)
    environment = {} if first is None else {name: first.environment[name] for name in ENVIRONMENT_SETTING}
    setting = {name: value for name, value in spec.items() if name not in ("log_every_steps", "target")}
    return flat({**setting, "environment": environment})


def _missing(plan: Plan, run: CellRun) -> MissingRun:
    label = plan.optimizers[run.cell.optimizer].label
    last_line = (run.message or "").strip().splitlines()[-1:]
    why = ": ".join([*([run.result.reason.words] if run.result.reason else []), *last_line]) or str(run.result.status)
    return MissingRun(label=label, phase=run.cell.phase, seed=run.cell.seed, job=run.job, why=why)


def _verdicts(answers: Sequence[TaskAnswer]) -> list[str]:
    if len(answers) == 1:
        return [answers[0].verdict.text]
    return [f"{answer.label}: {answer.verdict.text}" for answer in answers]


def _across(tasks: Sequence[_Task], answers: Sequence[TaskAnswer]) -> tuple[AcrossTasks | None, list[str]]:
    """The analysis of all tasks together, and sentences about them."""
    if len(tasks) < 2:
        return None, []
    if any(task.lacks_runs for task in tasks):
        return None, ["No overall ranking is given, because planned runs are missing."]
    across = cross_task([task.groups for task in tasks], answers)
    return across, across.sentences if across else []


def _reused(plan: Plan, run: CellRun) -> ReusedRun:
    task, optimizer = plan.tasks[run.cell.task], plan.optimizers[run.cell.optimizer]
    return ReusedRun(job=run.job, label=optimizer.label, task=task.label, seed=run.cell.seed, user=run.user)


def _seen_before(planned_at: datetime, runs: Sequence[CellRun]) -> tuple[int, int]:
    """The number of final runs that had ended before the plan was fixed, and the number of all final runs."""
    reported = [run for run in runs if run.cell.phase == "report"]
    ended = [run for run in reported if run.finished_at is not None and run.finished_at < planned_at]
    return len(ended), len(reported)
