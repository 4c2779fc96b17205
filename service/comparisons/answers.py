"""What a comparison answers; shared with the SDK, so without numpy. Numbers are in the unit of the metric."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from service.comparisons.styles import LookView
from service.specs.bodies import Output
from service.specs.outcome import Target
from service.specs.states import ComparisonStatus

Interval = tuple[float, float]


class GroupView(Output):
    """The runs of one choice, one run a seed."""

    label: str
    value: Any = Field(description="What all runs of the group have in the grouped field.")
    optimizer: dict[str, Any]
    n: int = Field(
        description="Seeds that the statistics are over: their run finished, or diverged and has a declared score."
    )
    mean: float | None
    sd: float | None = Field(description="Standard deviation over seeds (ddof 1).")
    interval: Interval | None = Field(description="95 % t interval of the mean.")
    best: float | None = Field(description="The best single run: highest accuracy, lowest loss.")
    iqm: float | None = Field(description="Mean of the middle half of the runs, from 20 runs on.")
    iqm_interval: Interval | None = Field(description="95 % percentile bootstrap interval of it.")
    iqm_cannot_say: str | None
    steps_to_target: float | None = Field(description="Median over seeds; null where half or more missed the target.")
    seconds_to_target: float | None
    diverged: int = Field(
        description="Seeds whose run diverged: they miss every target, and are in the mean only with the score that a "
        "comparison's plan declares for them (`diverged_score`)."
    )
    jobs: list[UUID]
    diverged_jobs: list[UUID] = Field(description="Those of them that diverged.")
    cannot_say: str | None = Field(description="Why a statistic is null.")


class PairDetail(Output):
    """What else is known of a pair, beside the test that leads."""

    sd: float | None = Field(description="Standard deviation of the paired differences (ddof 1).")
    correlation: float | None = Field(description="Between the values of a and b over the seeds: what pairing bought.")
    skewed: bool | None = Field(description="Whether the differences are too skewed to trust a t test; null: too few.")
    p_permutation: float | None = Field(description="Sign-flip permutation test, where the differences are skewed.")
    p_wilcoxon: float | None = Field(description="Wilcoxon's signed-rank test, from 6 pairs on.")
    cliffs_delta: float | None = Field(description="P(a > b) - P(a < b) over all runs, from -1 to 1.")
    cannot_say: str | None = Field(description="Why one of these is null.")
    permutation_cannot_say: str | None
    wilcoxon_cannot_say: str | None


class PairView(Output):
    """Two groups on the seeds that finished in both: the mean difference a - b and its paired t test."""

    a: str
    b: str
    n: int = Field(description="Seeds that both groups have; after a look that decided the pair, those until then.")
    difference: float | None
    interval: Interval | None = Field(
        description="95 % interval of the difference: the t interval of this pair alone, or, where looks were planned, "
        "the repeated confidence interval, which holds for all pairs and looks at once (`methods` says which)."
    )
    p: float | None = Field(description="Of this pair alone; after looks, the repeated p value.")
    p_adjusted: float | None = Field(description="For all pairs that were tested together: Holm, or times the pairs.")
    significant: bool = Field(description="Whether the difference is decided at a family-wise error rate of 5 %.")
    seeds_needed: int | None = Field(
        description="About how many seeds would decide it (power 0.8 at the difference and spread seen), where open."
    )
    detail: PairDetail
    cannot_say: str | None = Field(description="Why a statistic is null.")


class VerdictView(Output):
    """Whether one group is better than every other, and what is known, in plain words."""

    decided: bool
    best: str | None
    text: str


class LeftOut(Output):
    """Matching jobs that are not in the groups, by why."""

    unfinished: int = Field(description="Queued or running.")
    failed: int = Field(description="Failed other than by diverging: that says nothing about the optimizer.")
    cancelled: int
    without_metric: int = Field(description="Finished, but the metric is not theirs: tuning jobs have no test metrics.")
    repeated: int = Field(description="Older runs of a seed that ran again.")


class CompareAnswer(Output):
    """Which group is better, by how much, and how sure one can be."""

    dataset: str
    model: str | None = Field(description="Null where models are compared.")
    metric: str
    group_by: str
    target: Target | None = Field(description="What steps and seconds to target mean; null: nothing, or not the same.")
    held_fixed: dict[str, Any] = Field(description="What all runs share; parameters of the optimizer by bare name.")
    groups: list[GroupView] = Field(description="Best mean first.")
    pairs: list[PairView]
    verdict: VerdictView
    left_out: LeftOut


# --- comparisons -----------------------------------------------------------------------------------------------------


class TrialView(Output):
    """A point of the search space and what it scored on validation data."""

    trial: int
    params: dict[str, Any] = Field(description="The tuned parameters.")
    rung: int = Field(description="The last rung it ran on; 0 without halving.")
    budget: dict[str, Any]
    score: float | None = Field(description="Mean of the validation metric over the tuning seeds; null: no value.")
    status: Literal["waiting", "finished", "diverged", "failed"]
    seconds: float | None = Field(description="Training time of all its runs on that rung.")
    jobs: list[UUID]


class GoodRange(Output):
    """How wide the range of good learning rates is, within `tolerance` of the best trial's score."""

    low: float | None
    high: float | None
    decades: float | None
    open_low: bool = Field(description="The range goes on below what was tried.")
    open_high: bool
    tolerance: float
    cannot_say: str | None


class TuningView(Output):
    """How an optimizer's parameters were chosen on a task."""

    label: str
    metric: str = Field(description="Judged on validation data; the test set was never read.")
    trials: list[TrialView]
    chosen: int | None
    params: dict[str, Any] | None = Field(description="The tuned parameters of the chosen trial.")
    at_edge: list[str] = Field(description="Tuned parameters whose best value is the lowest or highest of those tried.")
    expected_best: list[float] = Field(description="Expected best score after 1, 2, ... trials in random order.")
    good_range: GoodRange | None
    seconds: float = Field(description="Training time of all trials.")


class CostView(Output):
    """What one run of a group takes; medians over its runs."""

    label: str
    train_seconds: float | None
    milliseconds_per_step: float | None
    ratio: float | None = Field(description="Time of a step relative to the cheapest optimizer of the task.")
    peak_bytes: float | None = Field(
        description="Peak memory of the run; on a CPU, above what the process started with."
    )
    optimizer_state_bytes: float | None
    parameters: int | None
    shared: bool = Field(description="Whether its jobs ran beside others on the same machine: compare times with care.")


class ToTarget(Output):
    """When a group reached the task's target; a run that missed it counts as later than it lasted."""

    label: str
    runs: int
    reached: int
    steps: float | None = Field(description="Median; null where half of the runs or more missed it.")
    seconds: float | None


class FirstToTarget(Output):
    """Which of two groups reached the target first, seed by seed; a miss is later than anything."""

    a: str
    b: str
    n: int = Field(description="Seeds that both groups have.")
    a_first: int
    b_first: int
    ties: int = Field(description="Seeds on which both took equally many steps, or both missed.")
    p: float | None = Field(description="Exact sign test, of this pair alone.")
    cannot_say: str | None


class MissingRun(Output):
    """A run that was wanted and is not in the statistics, and why."""

    label: str
    phase: str
    seed: int
    job: UUID
    why: str


class TaskAnswer(CompareAnswer):
    """One task of a comparison."""

    label: str
    tuning: list[TuningView]
    cost: list[CostView]
    to_target: list[ToTarget]
    first_to_target: list[FirstToTarget]
    missing: list[MissingRun]


class Rank(Output):
    """An optimizer over all tasks."""

    label: str
    mean_rank: float | None = Field(description="Mean over tasks of its rank by mean score; 1 is best.")
    iqm: float | None = Field(description="Interquartile mean of the runs' scores over all tasks.")
    iqm_interval: Interval | None
    iqm_cannot_say: str | None
    algoperf: float | None = Field(description="AlgoPerf's score, from the time to the targets; depends on the cohort.")


class Improvement(Output):
    """Probability that a run of a beats one of b, averaged over tasks."""

    a: str
    b: str
    probability: float | None
    interval: Interval | None
    cannot_say: str | None


class ProfileView(Output):
    """Share of tasks on which an optimizer was within `ratio` times the fastest time to the target."""

    label: str
    ratios: list[float]
    shares: list[float]


class AcrossTasks(Output):
    """What can be said over all tasks."""

    tasks: int
    ranks: list[Rank]
    improvements: list[Improvement]
    profiles: list[ProfileView]
    friedman_p: float | None
    critical_difference: float | None = Field(description="Of mean ranks (Nemenyi); from 8 tasks on.")
    sentences: list[str]
    cannot_say: list[str] = Field(description="What cannot be said, and why.")


class Assumption(Output):
    """Something the verdict rests on, and whether it held; `holds` null: cannot be checked here."""

    name: str
    holds: bool | None
    text: str


class ComparisonProgress(Output):
    """How far a comparison is."""

    phase: Literal["tuning", "reporting", "finished"]
    jobs: int = Field(description="Runs asked for so far.")
    jobs_at_most: int = Field(description="Runs if every look is needed.")
    queued: int
    running: int
    succeeded: int
    diverged: int
    failed: int
    cancelled: int
    reused: int = Field(description="Runs that were there already.")
    seconds_used: float = Field(description="Device time of its own runs.")
    seconds_left: float | None = Field(
        description="Estimated device time to the end, at most; null: no run like it yet."
    )


class PlanView(Output):
    """What a comparison will run and how it will be judged, fixed before its first job."""

    name: str
    metric: str
    tasks: list[dict[str, Any]]
    optimizers: list[dict[str, Any]]
    seeds: list[int]
    looks: list[int]
    nominal_p: list[float] = Field(description="A pair is decided at a look where its p is below this; empty: Holm.")
    pairs: int = Field(description="Pairs over all tasks: the family that the error rate of 5 % holds for.")
    tuning: dict[str, Any] | None
    rungs: list[dict[str, Any]]
    vary: list[str]


class Estimate(Output):
    """Seconds of a run of each optimizer on a task, from earlier runs."""

    task: str
    optimizer: str
    seconds: float | None = Field(description="Of one run with the whole budget; null: no run like it yet.")
    runs: int = Field(description="How many earlier runs that rests on.")


class ComparisonDryRun(Output):
    """The plan of a comparison, without running anything."""

    plan: PlanView
    methods: str = Field(description="As a paper may tell it once it has run.")
    jobs_at_least: int = Field(description="Runs if the first look decides.")
    jobs_at_most: int
    reused: int = Field(description="Of the runs wanted first, those that are there already.")
    seconds_at_most: float | None = Field(description="Estimated device time of all runs; null: no run like it yet.")
    estimates: list[Estimate]


class ReusedRun(Output):
    """A run that was there before the comparison wanted it, and whose it is."""

    job: UUID
    label: str
    task: str
    seed: int
    user: str


class ComparisonAnswer(Output):
    """Which optimizer is better on each task and over all of them, by how much, and how sure one can be."""

    id: UUID
    name: str
    user: str
    status: ComparisonStatus
    message: str | None
    created_at: datetime
    finished_at: datetime | None
    tags: dict[str, str]
    verdict: list[str] = Field(description="What is known, in sentences.")
    progress: ComparisonProgress
    tasks: list[TaskAnswer]
    across: AcrossTasks | None = Field(description="Null with one task, before the end, and where runs are missing.")
    assumptions: list[Assumption]
    methods: str = Field(description="How it was done, as a paragraph for a paper.")
    reused: list[ReusedRun]
    plan: PlanView
    estimates: list[Estimate] = Field(description="While it runs.")
    looks: dict[str, LookView] = Field(description="How pages draw each optimizer, by label.")


class ComparisonSummary(Output):
    """A comparison in a list."""

    id: UUID
    name: str
    user: str
    status: ComparisonStatus
    created_at: datetime
    finished_at: datetime | None


# --- leaderboard -----------------------------------------------------------------------------------------------------


class Standing(Output):
    """An optimizer with its parameters, within one setting."""

    rank: int
    label: str
    optimizer: dict[str, Any]
    n: int = Field(description="Seeds with a finished run.")
    mean: float | None
    sd: float | None
    interval: Interval | None = Field(description="95 % t interval of the mean.")
    best: float | None
    diverged: int
    behind_first: float | None = Field(description="Mean paired difference to the first, on the seeds of both.")
    interval_behind: Interval | None = Field(description="95 % t interval of it, of this pair alone.")
    p_behind: float | None = Field(description="Of its paired t test, adjusted for all pairs of the board's rows.")
    cannot_say: str | None = Field(description="Why a statistic is null.")


class Board(Output):
    """Everything that ran in one setting: data, model, budget, batch size and so on, on one kind of device."""

    setting: dict[str, Any] = Field(description="Dotted path -> value of all that is not the optimizer.")
    runs: int
    standings: list[Standing] = Field(description="Best mean first.")


class Leaderboard(Output):
    """Optimizers by mean, in each setting that they were run in: across settings, means cannot be compared."""

    dataset: str
    model: str
    metric: str
    boards: list[Board] = Field(
        description="The one with most runs first; of the 200 choices of optimizer and setting with most runs."
    )
