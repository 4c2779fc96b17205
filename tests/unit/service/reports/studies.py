"""Answers of comparisons, and the curves of their runs, made up with a fixed seed: what reports are tested on."""

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
    AcrossTasks,
    Assumption,
    ComparisonAnswer,
    ComparisonProgress,
    CostView,
    GoodRange,
    GroupView,
    Improvement,
    LeftOut,
    MissingRun,
    PairDetail,
    PairView,
    PlanView,
    ProfileView,
    Rank,
    ReusedRun,
    TaskAnswer,
    ToTarget,
    TrialView,
    TuningView,
    VerdictView,
)
from service.comparisons.design.plan import Plan
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.comparisons.styles import plot_styles
from service.metrics.read import Curve
from service.specs.outcome import Target
from service.specs.states import ComparisonStatus

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


@dataclass
class Made:
    """An answer and the curves of its jobs."""

    answer: ComparisonAnswer
    curves: dict[UUID, dict[str, Curve]] = field(default_factory=dict)


@dataclass
class Wish:
    """What a made-up comparison is like."""

    tasks: Sequence[dict[str, Any]] = tuple(TASKS)
    optimizers: Sequence[dict[str, Any]] = tuple(OPTIMIZERS)
    seeds: int = 5
    trials: int = 8
    metric: str = "test_accuracy"
    diverged: dict[tuple[int, int], int] = field(default_factory=dict)
    """(task, optimizer) -> how many of its runs diverged."""
    name: str = "KO against Adam, SGD and RMSprop on digits"
    with_curves: bool = True
    critical_difference: float | None = None


def study(**wishes: Any) -> Made:
    """A comparison that is over."""
    return _Maker(Wish(**wishes)).make()


def waiting() -> ComparisonAnswer:
    """A comparison whose trials are running: no final run yet."""
    made = study().answer
    tasks = [
        task.model_copy(
            update={
                "groups": [
                    group.model_copy(
                        update={"n": 0, "mean": None, "sd": None, "interval": None, "best": None, "jobs": []}
                        | {"steps_to_target": None, "seconds_to_target": None, "cannot_say": "no run has finished"}
                    )
                    for group in task.groups
                ],
                "pairs": [_no_pair(pair) for pair in task.pairs],
                "tuning": [
                    view.model_copy(
                        update={
                            "trials": [_waits(trial) for trial in view.trials],
                            "chosen": None,
                            "params": None,
                            "at_edge": [],
                            "expected_best": [],
                            "good_range": None,
                            "seconds": 0.0,
                        }
                    )
                    for view in task.tuning
                ],
                "cost": [
                    CostView(
                        label=cost.label,
                        train_seconds=None,
                        milliseconds_per_step=None,
                        ratio=None,
                        peak_bytes=None,
                        optimizer_state_bytes=None,
                        parameters=None,
                        shared=False,
                    )
                    for cost in task.cost
                ],
                "to_target": [
                    one.model_copy(update={"runs": 0, "reached": 0, "steps": None, "seconds": None})
                    for one in task.to_target
                ],
                "verdict": VerdictView(
                    decided=False,
                    best=None,
                    text="No verdict yet: the parameters are still being chosen, and one look was planned, at the end.",
                ),
            }
        )
        for task in made.tasks
    ]
    return made.model_copy(
        update={
            "status": ComparisonStatus.RUNNING,
            "finished_at": None,
            "tasks": tasks,
            "across": None,
            "verdict": [f"{task.label}: {task.verdict.text}" for task in tasks],
            "progress": made.progress.model_copy(
                update={"phase": "tuning", "running": 2, "queued": 40, "succeeded": 6, "seconds_left": 500.0}
            ),
        }
    )


def _no_pair(pair: PairView) -> PairView:
    empty = PairDetail.model_validate(dict.fromkeys(PairDetail.model_fields))
    return PairView(
        a=pair.a,
        b=pair.b,
        n=0,
        difference=None,
        interval=None,
        p=None,
        p_adjusted=None,
        significant=False,
        seeds_needed=None,
        detail=empty,
        cannot_say="a test needs 3 seeds that both have",
    )


def _waits(trial: TrialView) -> TrialView:
    return trial.model_copy(update={"score": None, "status": "waiting", "seconds": None})


class _Maker:
    """Makes a comparison up."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.random: Generator = default_rng(7)
        tuned = any("space" in one for one in wish.optimizers)
        self.plan: Plan = resolve(
            ComparisonRequest.model_validate(
                {
                    "name": wish.name,
                    "tasks": list(wish.tasks),
                    "optimizers": list(wish.optimizers),
                    "seeds": wish.seeds,
                    "tuning": {"trials": wish.trials} if tuned else None,
                    "metric": wish.metric,
                    "tags": {"study": "made-up"},
                }
            ),
            {"auto": "cpu"},
        )
        self.labels = [one.label for one in self.plan.optimizers]
        self.is_loss = wish.metric.endswith("loss")
        self.curves: dict[UUID, dict[str, Curve]] = {}
        self.values: list[list[dict[int, float]]] = []  # task -> optimizer -> seed -> endpoint
        self.hits: dict[str, list[tuple[float, float] | None]] = {}  # of a task's runs: steps and seconds

    def make(self) -> Made:
        tasks = [self.task(number) for number in range(len(self.plan.tasks))]
        document = self.plan.model_dump(mode="json")
        jobs = self.plan.jobs()
        diverged = sum(self.wish.diverged.values())
        across = self.across(tasks) if len(tasks) > 1 else None
        verdict = [f"{task.label}: {task.verdict.text}" if len(tasks) > 1 else task.verdict.text for task in tasks]
        made = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
        answer = ComparisonAnswer(
            id=UUID("01930000-0000-7000-8000-0000c0ffee00"),
            name=self.wish.name,
            user="ada",
            status=ComparisonStatus.SUCCEEDED,
            message=None,
            created_at=made,
            finished_at=made + timedelta(minutes=7),
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
            assumptions=list(self.assumptions()),
            methods="Each tuned optimizer was run at 8 points of a shifted Halton sequence (with identical values for "
            "parameters that optimizers share), with 1 seed each. The configuration with the best mean validation "
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
            looks=plot_styles([(one.label, one.name) for one in self.plan.optimizers]),
        )
        return Made(answer, self.curves)

    def job(self) -> UUID:
        return UUID(bytes=self.random.bytes(16), version=4)

    # --- a task

    def task(self, number: int) -> TaskAnswer:
        task = self.plan.tasks[number]
        target = Target.model_validate(task.spec["target"]) if task.spec["target"] else None
        self.hits = {}
        groups = [self.group(number, position) for position in range(len(self.labels))]
        sign = -1 if self.is_loss else 1
        groups.sort(key=lambda group: (group.mean is None, -sign * (group.mean or 0)))
        order = [self.labels.index(group.label) for group in groups]
        pairs = [self.pair(number, a, b) for a, b in itertools.combinations(order, 2)]
        tuning = [self.tuning(number, position) for position, one in enumerate(self.plan.optimizers) if one.is_tuned]
        return TaskAnswer(
            dataset=task.spec["dataset"]["name"],
            model=task.spec["model"]["name"],
            metric=self.wish.metric,
            group_by="optimizer",
            target=target,
            held_fixed={"batch_size": 64, "budget.epochs": 30, "precision": "fp32", "schedule.name": "constant"},
            groups=groups,
            pairs=pairs,
            verdict=self.verdict(groups, pairs),
            left_out=LeftOut(unfinished=0, failed=0, cancelled=0, without_metric=0, repeated=0),
            label=task.label,
            tuning=tuning,
            cost=[self.cost(position) for position in range(len(self.labels))],
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
        lost = self.wish.diverged.get((number, position), 0)
        score = self.plan.tasks[number].diverged_score
        base = 0.958 + 0.004 * ((position * 5 + 3 * number) % 7) / 3 - 0.006 * number
        jobs, values, hits = [], {}, []
        for seed in range(self.wish.seeds):
            value = base + 0.0025 * math.sin(seed * 2.1) + self.random.normal(0, 0.0016)
            value = 0.9 * (1 - value) ** 0.5 if self.is_loss else value
            job = self.job()
            jobs.append(job)
            diverges = seed >= self.wish.seeds - lost
            if not diverges:
                values[seed] = value
            elif score is not None:
                values[seed] = score
            curves = self.run(value, position, number, diverges=diverges)
            hits.append(None if diverges else _first_hit(curves["val_accuracy"], 0.95))
            if self.wish.with_curves:
                self.curves[job] = curves
        self.hits[optimizer.label] = hits
        while len(self.values) <= number:
            self.values.append([])
        self.values[number].append(values)
        found = np.array(list(values.values()))
        n = len(found)
        mean, sd = (float(found.mean()) if n else None), (float(found.std(ddof=1)) if n > 1 else None)
        half = None if sd is None else float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
        return GroupView(
            label=optimizer.label,
            value=None,
            optimizer={"name": optimizer.name, "params": optimizer.trials[min(3, len(optimizer.trials) - 1)]},
            n=n,
            mean=mean,
            sd=sd,
            interval=None if mean is None or half is None else (mean - half, mean + half),
            best=None if not n else float(found.min() if self.is_loss else found.max()),
            iqm=None,
            iqm_interval=None,
            iqm_cannot_say=None,
            steps_to_target=_median([hit and hit[0] for hit in hits]),
            seconds_to_target=_median([hit and hit[1] for hit in hits]),
            diverged=lost,
            jobs=jobs,
            diverged_jobs=jobs[len(jobs) - lost :],
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
        found = {
            "val_accuracy": _curve(val_steps, val, seconds),
            "val_loss": _curve(val_steps, loss, seconds),
            "train_loss": _curve(train_steps, train, seconds),
            "weight_correlation": _curve(val_steps, correlation, seconds),
        }
        if not diverges:
            found[self.wish.metric] = _curve(np.array([690]), np.array([value]), seconds)
        return found

    def pair(self, number: int, a: int, b: int) -> PairView:
        x, y = self.values[number][a], self.values[number][b]
        both = sorted(x.keys() & y.keys())
        first, second = np.array([x[seed] for seed in both]), np.array([y[seed] for seed in both])
        n, differences = len(both), first - second
        tested = n > 2 and float(differences.std()) > 0
        p = float(stats.ttest_rel(first, second).pvalue) if tested else None
        sd = float(differences.std(ddof=1)) if n > 1 else None
        mean = float(differences.mean()) if n else None
        half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) if tested and sd is not None else None
        adjusted = None if p is None else min(1.0, p * self.plan.pairs)
        return PairView(
            a=self.labels[a],
            b=self.labels[b],
            n=n,
            difference=mean,
            interval=None if mean is None or half is None else (mean - half, mean + half),
            p=p,
            p_adjusted=adjusted,
            significant=adjusted is not None and adjusted < 0.05,
            seeds_needed=14 + a + b if adjusted is not None and adjusted >= 0.05 else None,
            detail=PairDetail(
                sd=sd,
                correlation=float(np.corrcoef(first, second)[0, 1])
                if tested and first.std() and second.std()
                else None,
                skewed=False if tested else None,
                p_permutation=None,
                p_wilcoxon=None if n < 6 else 0.04,
                cliffs_delta=float(np.sign(first[:, None] - second[None, :]).mean()) if n else None,
                cannot_say=None,
                permutation_cannot_say=None,
                wilcoxon_cannot_say=None,
            ),
            cannot_say=None
            if tested
            else f"a test needs 3 seeds that both have, and there {'is' if n == 1 else 'are'} {n}",
        )

    def verdict(self, groups: list[GroupView], pairs: list[PairView]) -> VerdictView:
        best = groups[0]
        own = [pair for pair in pairs if best.label in (pair.a, pair.b)]
        open_ones = [pair.b if pair.a == best.label else pair.a for pair in own if not pair.significant]
        if best.mean is None:
            return VerdictView(decided=False, best=None, text="There is no finished run.")
        if not open_ones:
            text = f"{best.label} (mean test accuracy {100 * best.mean:.1f} %, {best.n} seeds) is best."
        else:
            text = f"{best.label} and {open_ones[0]} cannot be distinguished with {best.n} seeds."
        text += (
            " Parameters were chosen on validation data, with 8 trials for each optimizer; those of rmsprop were "
            "fixed in the request."
        )
        return VerdictView(
            decided=not open_ones,
            best=None if open_ones else best.label,
            text=f"{text} The result refers to this one split of the data.",
        )

    def tuning(self, number: int, position: int) -> TuningView:
        one = self.plan.optimizers[position]
        assert one.space is not None
        trials = []
        for index, params in enumerate(one.trials):
            tuned = {name: params[name] for name in one.space}
            lr = params["lr"]
            peak = 0.003 * (10 if one.name == "sgd" else 1)
            score = 0.965 - 0.03 * math.log10(lr / peak) ** 2 - 0.01 * abs(math.log10(tuned.get("gamma", 0.1) / 0.1))
            score += self.random.normal(0, 0.003) - 0.005 * number
            diverges = one.name == "sgd" and lr == max(trial["lr"] for trial in one.trials)
            trials.append(
                TrialView(
                    trial=index,
                    params=tuned,
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
        alone = set(one.space) == {"lr"}
        return TuningView(
            label=one.label,
            metric="val_loss" if self.is_loss else "val_accuracy",
            trials=trials,
            chosen=chosen.trial,
            params=chosen.params,
            at_edge=["lr"] if position == 2 else [],
            expected_best=expected,
            good_range=GoodRange(
                low=chosen.params["lr"] / 1.8 if alone else None,
                high=chosen.params["lr"] * 2.2 if alone else None,
                decades=0.6 if alone else None,
                open_low=False,
                open_high=position == 2,
                tolerance=0.01,
                cannot_say=None if alone else "fewer than 2 trials differ in the learning rate alone",
            ),
            seconds=17.3 + position,
        )

    def cost(self, position: int) -> CostView:
        times = [2.5 * (1 + 0.3 * (index % 5)) for index in range(len(self.labels))]
        return CostView(
            label=self.labels[position],
            train_seconds=times[position] * 0.69,
            milliseconds_per_step=times[position],
            ratio=times[position] / min(times),
            peak_bytes=41.3e6 + 2.1e6 * position,
            optimizer_state_bytes=670_000.0 * (position % 3),
            parameters=85_002,
            shared=position % 2 == 1,
        )

    # --- all of it

    def across(self, tasks: list[TaskAnswer]) -> AcrossTasks:
        k = len(self.labels)
        sign = -1 if self.is_loss else 1
        found = []
        for position, label in enumerate(self.labels):
            runs = np.array([value for of_task in self.values for value in of_task[position].values()])
            ranks = [[group.label for group in task.groups].index(label) + 1 for task in tasks]
            iqm = float(stats.trim_mean(runs, 0.25)) if len(runs) else None
            found.append(
                Rank(
                    label=label,
                    mean_rank=float(np.mean(ranks)),
                    iqm=iqm,
                    iqm_interval=None if iqm is None else (iqm - 0.002, iqm + 0.0015),
                    iqm_cannot_say=None,
                    algoperf=max(0.0, 0.97 - 0.1 * position),
                )
            )
        found.sort(key=lambda one: one.mean_rank or 0)
        improvements = []
        for a, b in itertools.combinations(range(k), 2):
            p = float(
                np.mean(
                    [
                        (
                            sign * (np.array([*of[a].values()])[:, None] - np.array([*of[b].values()])[None, :]) > 0
                        ).mean()
                        for of in self.values
                    ]
                )
            )
            improvements.append(
                Improvement(
                    a=self.labels[a],
                    b=self.labels[b],
                    probability=p,
                    interval=(max(0.0, p - 0.2), min(1.0, p + 0.17)),
                    cannot_say=None,
                )
            )
        ratios = [round(1 + step / 20, 2) for step in range(61)]
        few = self.wish.critical_difference is None
        return AcrossTasks(
            tasks=len(tasks),
            ranks=found,
            improvements=improvements,
            profiles=[
                ProfileView(
                    label=label,
                    ratios=ratios,
                    shares=[min(1.0, max(0.0, (ratio - 1) * 0.8 + 1 - position / k)) for ratio in ratios],
                )
                for position, label in enumerate(self.labels)
            ],
            friedman_p=None if few else 0.012,
            critical_difference=self.wish.critical_difference,
            sentences=[
                f"Over {len(tasks)} tasks, {found[0].label} has the best mean rank ({found[0].mean_rank:.1f} among {k} "
                "optimizers)."
            ],
            cannot_say=["Friedman's test: it needs 8 tasks or more"] if few else [],
        )

    def assumptions(self) -> list[Assumption]:
        return [
            Assumption(name="pairing", holds=True, text="Runs of one seed start from the same weights."),
            Assumption(name="symmetry of differences", holds=None, text="0 of 12 pairs are more skewed."),
            Assumption(name="no divergence", holds=not self.wish.diverged, text="Each counts with its score."),
            Assumption(name="undisturbed timing", holds=False, text="Jobs ran beside others, so times are rough."),
        ]


def _first_hit(curve: Curve, value: float) -> tuple[float, float] | None:
    at = np.flatnonzero(curve.values >= value)
    return (float(curve.steps[at[0]]), float(curve.wall_seconds[at[0]])) if len(at) else None


def _median(values: Sequence[float | None]) -> float | None:
    """The median, where less than half are missing."""
    median = float(np.median([math.inf if value is None else value for value in values])) if values else math.inf
    return median if math.isfinite(median) else None


def missing_run(label: str, why: str) -> MissingRun:
    return MissingRun(label=label, phase="report", seed=3, job=UUID(int=7), why=why)


def _curve(steps: Any, values: Any, seconds: float) -> Curve:
    return Curve(np.asarray(steps, np.int64), np.asarray(values, np.float64), np.asarray(steps, np.float64) * seconds)
