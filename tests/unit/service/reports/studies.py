"""Synthetic answers to comparisons, and the curves of their runs, from a fixed seed, as input of the reports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from numpy.random import Generator, default_rng
from scipy import stats

from service.comparisons.answers import (
    ComparisonAnswer,
    ComparisonProgress,
    GoodRange,
    GroupView,
    LeftOut,
    MissingRun,
    PlanView,
    ReusedRun,
    TaskAnswer,
    ToTarget,
    TrialView,
    TuningView,
)
from service.comparisons.design.plan import Plan
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.comparisons.styles import plot_styles
from service.metrics.read import Curve
from service.specs.states import ComparisonStatus
from service.specs.summary import Target
from tests.unit.service.reports.study_views import assumptions, cost_view, cross_task_view, pair_view, verdict_view

LR = {"log_uniform": [0.0003, 0.03]}
TASKS: list[dict[str, Any]] = [
    {
        "dataset": "digits",
        "model": "mlp",
        "budget": {"epochs": 30},
        "target": {"metric": "val_accuracy", "value": 0.95},
    },
    {
        "dataset": "digits",
        "model": {"name": "mlp", "params": {"init_scale": 0.1}},
        "budget": {"epochs": 30},
        "target": {"metric": "val_accuracy", "value": 0.95},
        "label": "digits mlp condensed",
    },
]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "adam", "space": {"lr": LR}},
    {
        "name": "ko",
        "params": {"base": "adam", "collision": "soft"},
        "space": {"lr": LR, "gamma": {"log_uniform": [0.01, 1.0]}},
    },
    {"name": "sgd", "params": {"momentum": 0.9}, "space": {"lr": {"log_uniform": [0.003, 0.3]}}},
    {"name": "rmsprop", "params": {"lr": 0.001}},
]

Hit = tuple[float, float]
"""Step and seconds at which a run reached its target."""


@dataclass
class StudyData:
    """An answer and the curves of its jobs."""

    answer: ComparisonAnswer
    curves: dict[UUID, dict[str, Curve]] = field(default_factory=dict)


@dataclass
class StudyOptions:
    """Options of a synthetic comparison."""

    tasks: Sequence[dict[str, Any]] = tuple(TASKS)
    optimizers: Sequence[dict[str, Any]] = tuple(OPTIMIZERS)
    seeds: int = 5
    trials: int = 8
    metric: str = "test_accuracy"
    diverged: dict[tuple[int, int], int] = field(default_factory=dict)
    """(task, optimizer) -> number of diverged runs."""
    name: str = "KO against Adam, SGD and RMSprop on digits"
    with_curves: bool = True
    critical_difference: float | None = None


def study(**options: Any) -> StudyData:
    """A finished comparison."""
    return _Maker(StudyOptions(**options)).make()


class _Maker:
    """Draws the runs of a comparison and builds its answer."""

    def __init__(self, options: StudyOptions) -> None:
        self.options = options
        self.random: Generator = default_rng(7)
        is_tuned = any("space" in optimizer for optimizer in options.optimizers)
        self.plan: Plan = resolve(
            ComparisonRequest.model_validate(
                {
                    "name": options.name,
                    "tasks": list(options.tasks),
                    "optimizers": list(options.optimizers),
                    "seeds": options.seeds,
                    "tuning": {"trials": options.trials} if is_tuned else None,
                    "metric": options.metric,
                    "tags": {"study": "made-up"},
                }
            ),
            {"auto": "cpu"},
        )
        self.labels = [optimizer.label for optimizer in self.plan.optimizers]
        self.is_loss = options.metric.endswith("loss")
        self.curves: dict[UUID, dict[str, Curve]] = {}
        self.scores: list[list[dict[int, float]]] = []  # task -> optimizer -> seed -> endpoint
        self.hits: dict[str, list[Hit | None]] = {}  # of the current task: label -> per run

    def make(self) -> StudyData:
        tasks = [self.task(number) for number in range(len(self.plan.tasks))]
        document = self.plan.model_dump(mode="json")
        jobs = self.plan.jobs()
        diverged = sum(self.options.diverged.values())
        across = None
        if len(tasks) > 1:
            across = cross_task_view(
                self.labels,
                self.scores,
                tasks,
                is_loss=self.is_loss,
                critical_difference=self.options.critical_difference,
            )
        verdict = [f"{task.label}: {task.verdict.text}" if len(tasks) > 1 else task.verdict.text for task in tasks]
        created_at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
        answer = ComparisonAnswer(
            id=UUID("01930000-0000-7000-8000-0000c0ffee00"),
            name=self.options.name,
            user="ada",
            status=ComparisonStatus.SUCCEEDED,
            message=None,
            created_at=created_at,
            finished_at=created_at + timedelta(minutes=7),
            tags=self.plan.tags,
            verdict=verdict + (across.sentences if across else []),
            progress=ComparisonProgress(
                phase="finished",
                jobs=jobs,
                jobs_at_most=jobs,
                queued=0,
                running=0,
                succeeded=jobs - diverged,
                diverged=diverged,
                failed=0,
                cancelled=0,
                reused=3,
                seconds_used=402.7,
                seconds_left=0.0,
            ),
            tasks=tasks,
            across=across,
            assumptions=assumptions(any_diverged=bool(self.options.diverged)),
            methods="Each tuned optimizer was run with 8 points of a shifted Halton sequence (with identical values "
            "for parameters that optimizers share), with 1 seed each. The configuration with the best mean validation "
            "accuracy at the last step was chosen and rerun on fresh seeds; tuning runs never read the test set. The "
            "optimizers were compared by two-sided paired t tests; Holm's correction over all 12 pairs controlled the "
            "family-wise error rate at 5 %. A diverged run counted as 10.0 %.",
            reused=[
                ReusedRun(job=self.job(), label=self.labels[0], task=tasks[0].label, seed=seed, user=user)
                for seed, user in enumerate(("ada", "ada", "grace"))
            ],
            plan=PlanView.model_validate(
                {
                    **{name: value for name, value in document.items() if name in PlanView.model_fields},
                    "nominal_p": [],
                    "pairs": self.plan.pairs,
                }
            ),
            estimates=[],
            looks=plot_styles([(optimizer.label, optimizer.name) for optimizer in self.plan.optimizers]),
        )
        return StudyData(answer, self.curves)

    def job(self) -> UUID:
        return UUID(bytes=self.random.bytes(16), version=4)

    def task(self, number: int) -> TaskAnswer:
        task = self.plan.tasks[number]
        target = Target.model_validate(task.spec["target"]) if task.spec["target"] else None
        self.hits = {}
        groups = [self.group(number, position) for position in range(len(self.labels))]
        sign = -1 if self.is_loss else 1
        groups.sort(key=lambda group: (group.mean is None, -sign * (group.mean or 0)))
        order = [self.labels.index(group.label) for group in groups]
        pairs = [
            pair_view(self.labels, self.scores[number], a, b, self.plan.pairs)
            for a, b in itertools.combinations(order, 2)
        ]
        tuning = [
            self.tuning(number, position)
            for position, optimizer in enumerate(self.plan.optimizers)
            if optimizer.is_tuned
        ]
        return TaskAnswer(
            dataset=task.spec["dataset"]["name"],
            model=task.spec["model"]["name"],
            metric=self.options.metric,
            group_by="optimizer",
            target=target,
            held_fixed={"batch_size": 64, "budget.epochs": 30, "precision": "fp32", "schedule.name": "constant"},
            groups=groups,
            pairs=pairs,
            verdict=verdict_view(groups, pairs),
            left_out=LeftOut(unfinished=0, failed=0, cancelled=0, without_metric=0, repeated=0),
            label=task.label,
            tuning=tuning,
            cost=[cost_view(self.labels, position) for position in range(len(self.labels))],
            to_target=[
                ToTarget(
                    label=group.label,
                    runs=group.n,
                    reached=sum(hit is not None for hit in self.hits[group.label]),
                    steps=group.steps_to_target,
                    seconds=group.seconds_to_target,
                )
                for group in groups
            ]
            if target
            else [],
            first_to_target=[],
            missing=[],
        )

    def group(self, number: int, position: int) -> GroupView:
        optimizer = self.plan.optimizers[position]
        diverged = self.options.diverged.get((number, position), 0)
        score = self.plan.tasks[number].diverged_score
        base = 0.958 + 0.004 * ((position * 5 + 3 * number) % 7) / 3 - 0.006 * number
        jobs, scores, hits = [], {}, []
        for seed in range(self.options.seeds):
            value = base + 0.0025 * math.sin(seed * 2.1) + self.random.normal(0, 0.0016)
            value = 0.9 * (1 - value) ** 0.5 if self.is_loss else value
            job = self.job()
            jobs.append(job)
            diverges = seed >= self.options.seeds - diverged
            if not diverges:
                scores[seed] = value
            elif score is not None:
                scores[seed] = score
            curves = self.run(value, position, number, diverges=diverges)
            hits.append(None if diverges else _first_hit(curves["val_accuracy"], 0.95))
            if self.options.with_curves:
                self.curves[job] = curves
        self.hits[optimizer.label] = hits
        while len(self.scores) <= number:
            self.scores.append([])
        self.scores[number].append(scores)
        values = np.array(list(scores.values()))
        n = len(values)
        mean, sd = (float(values.mean()) if n else None), (float(values.std(ddof=1)) if n > 1 else None)
        half = None if sd is None else float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
        return GroupView(
            label=optimizer.label,
            value=None,
            optimizer={"name": optimizer.name, "params": optimizer.trials[min(3, len(optimizer.trials) - 1)]},
            n=n,
            mean=mean,
            sd=sd,
            interval=None if mean is None or half is None else (mean - half, mean + half),
            best=None if not n else float(values.min() if self.is_loss else values.max()),
            iqm=None,
            iqm_interval=None,
            iqm_cannot_say=None,
            steps_to_target=_median([hit and hit[0] for hit in hits]),
            seconds_to_target=_median([hit and hit[1] for hit in hits]),
            diverged=diverged,
            jobs=jobs,
            diverged_jobs=jobs[len(jobs) - diverged :],
            cannot_say=None if n > 1 else "a standard deviation needs 2 runs" if n else "no run has finished",
        )

    def run(self, value: float, position: int, number: int, *, diverges: bool) -> dict[str, Curve]:
        """The curves of a run of 30 epochs of 23 steps."""
        pace = 3.0 + 0.7 * position - number % 2
        seconds = 0.004 * (1 + 0.25 * (position % 4)) * (1 + 0.05 * self.random.random())
        end = 14 if diverges else 30
        val_steps = np.arange(1, end + 1) * 23
        progress = 1 - np.exp(-val_steps / 690 * pace * 2.2)
        accuracy = value if not self.is_loss else 0.97
        val = (0.1 + (accuracy - 0.1) * progress + self.random.normal(0, 0.002, end)).clip(0, 1)
        loss = 2.3 * (1 - progress) + 0.12 + self.random.normal(0, 0.004, end)
        train_steps = np.arange(1, end * 23 // 10 + 1) * 10
        train = 2.3 * np.exp(-train_steps / 690 * pace * 2.5) * self.random.lognormal(0, 0.25, len(train_steps)) + 0.002
        correlation = 0.09 + (0.5 if number else 0.05) * np.exp(-val_steps / 300) + self.random.normal(0, 0.002, end)
        if diverges:
            loss[-1] = np.nan
        curves = {
            "val_accuracy": _curve(val_steps, val, seconds),
            "val_loss": _curve(val_steps, loss, seconds),
            "train_loss": _curve(train_steps, train, seconds),
            "weight_correlation": _curve(val_steps, correlation, seconds),
        }
        if not diverges:
            curves[self.options.metric] = _curve(np.array([690]), np.array([value]), seconds)
        return curves

    def tuning(self, number: int, position: int) -> TuningView:
        optimizer = self.plan.optimizers[position]
        assert optimizer.space is not None
        trials = []
        for index, params in enumerate(optimizer.trials):
            searched = {name: params[name] for name in optimizer.space}
            lr = params["lr"]
            peak = 0.003 * (10 if optimizer.name == "sgd" else 1)
            score = 0.965 - 0.03 * math.log10(lr / peak) ** 2 - 0.01 * abs(math.log10(searched.get("gamma", 0.1) / 0.1))
            score += self.random.normal(0, 0.003) - 0.005 * number
            diverges = optimizer.name == "sgd" and lr == max(trial["lr"] for trial in optimizer.trials)
            trials.append(
                TrialView(
                    trial=index,
                    params=searched,
                    rung=0,
                    budget={"epochs": 30},
                    score=None if diverges else 1 - score if self.is_loss else score,
                    status="diverged" if diverges else "finished",
                    seconds=2.1,
                    jobs=[self.job()],
                )
            )
        sign = -1 if self.is_loss else 1
        chosen = max(trials, key=lambda trial: -9.0 if trial.score is None else sign * trial.score)
        scores = sorted(sign * trial.score for trial in trials if trial.score is not None)
        n = len(scores)
        expected = [
            sign * sum(s * ((i / n) ** k - ((i - 1) / n) ** k) for i, s in enumerate(scores, 1))
            for k in range(1, n + 1)
        ]
        is_lr_only = set(optimizer.space) == {"lr"}
        return TuningView(
            label=optimizer.label,
            metric="val_loss" if self.is_loss else "val_accuracy",
            trials=trials,
            chosen=chosen.trial,
            params=chosen.params,
            at_edge=["lr"] if position == 2 else [],
            expected_best=expected,
            good_range=GoodRange(
                low=chosen.params["lr"] / 1.8 if is_lr_only else None,
                high=chosen.params["lr"] * 2.2 if is_lr_only else None,
                decades=0.6 if is_lr_only else None,
                open_low=False,
                open_high=position == 2,
                tolerance=0.01,
                cannot_say=None if is_lr_only else "fewer than 2 trials differ in the learning rate alone",
            ),
            seconds=17.3 + position,
        )


def _first_hit(curve: Curve, value: float) -> Hit | None:
    at = np.flatnonzero(curve.values >= value)
    return (float(curve.steps[at[0]]), float(curve.wall_seconds[at[0]])) if len(at) else None


def _median(values: Sequence[float | None]) -> float | None:
    """The median, with missing values as infinite; None if it is infinite."""
    median = float(np.median([math.inf if value is None else value for value in values])) if values else math.inf
    return median if math.isfinite(median) else None


def missing_run(label: str, why: str) -> MissingRun:
    """A missing report run with this reason."""
    return MissingRun(label=label, phase="report", seed=3, job=UUID(int=7), why=why)


def _curve(steps: Any, values: Any, seconds: float) -> Curve:
    return Curve(np.asarray(steps, np.int64), np.asarray(values, np.float64), np.asarray(steps, np.float64) * seconds)
