"""All tests of a comparison together, at a family-wise error rate of 5 % over pairs and looks.

The stopping rule is fixed before the first run: one look at the end (Holm's correction over all pairs), planned looks
(group-sequential tests, the error divided over the pairs), or a look after every seed (an always-valid test, Holm's
correction over its p values).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from service import stats
from service.stats import Interval

ALPHA = 0.05
"""Family-wise rate of false verdicts."""

MIN_SHARED_SEEDS = 3
"""Seeds that both optimizers of a pair need: with two, the t interval is 12.7 standard errors wide to each side."""

RUNS_ARE_MISSING = "planned runs are missing"

Values = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True)
class Family:
    """The tests that are adjusted together: those of all pairs on all tasks of a comparison."""

    pairs: int
    stopping: Literal["fixed", "looks", "any"] = "fixed"
    looks: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    """In the order of their runs; empty: ascending."""
    sign: int = 1
    """1 if higher values are better, -1 if lower ones are."""


@dataclass(frozen=True)
class Test:
    """The test of group `a` against group `b` (their positions), of a - b."""

    a: int
    b: int
    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    significant: bool
    cannot_say: str | None
    differences: tuple[float, ...]
    is_withheld: bool = False
    """Whether the pair could be tested and is not, for the reason `cannot_say`."""

    def loser(self, sign: int) -> int | None:
        """The worse group, if the test is significant; `sign` as in `Family`."""
        if not self.significant or not self.difference:
            return None
        return self.b if sign * self.difference > 0 else self.a

    def withheld(self, why: str) -> Test:
        """The same difference without the test, for the reason `why`."""
        return replace(
            self, interval=None, p=None, p_adjusted=None, significant=False, cannot_say=why, is_withheld=True
        )


@dataclass(frozen=True)
class TaskScores:
    """Scores of a task's groups, and the number of planned looks for which each group has all its runs.

    `lost`: for each group the seeds of missing runs, diverged ones excepted. A pair is not tested on the remaining
    seeds: a run may have been cancelled because of its result, and runs that time out or exceed the memory are not a
    random sample.
    """

    values: Sequence[Values]
    looks_done: Sequence[int] = ()
    lost: Sequence[Collection[int]] = ()

    def lacks_runs(self, a: int, b: int, seeds: Sequence[int]) -> bool:
        """Whether a run of these seeds is missing in one of two groups."""
        return bool(self.lost) and not {*self.lost[a], *self.lost[b]}.isdisjoint(seeds)


def adjusted_tests(tasks: Sequence[TaskScores], family: Family) -> list[list[Test]]:
    """The tests of all pairs of groups of each task, adjusted together."""
    tests = [_tests(task, family) for task in tasks]
    return tests if family.stopping == "looks" else _with_holm(tests, family.pairs)


def bonferroni_tests(task: TaskScores, family: Family) -> list[Test]:
    """The tests of one task at the family's error rate; all that are significant are so in `adjusted_tests`, too.

    They use Bonferroni's correction, because Holm's correction over all tasks depends on the runs of the other tasks.
    """
    tests = _tests(task, family)
    if family.stopping == "looks":
        return tests
    return [_decided(test, None if test.p is None else min(1.0, family.pairs * test.p)) for test in tests]


def unbeaten(task: TaskScores, family: Family) -> set[int]:
    """The groups than which no other group of the task is significantly better."""
    return set(range(len(task.values))) - {test.loser(family.sign) for test in bonferroni_tests(task, family)}


def _tests(task: TaskScores, family: Family) -> list[Test]:
    pairs = combinations(range(len(task.values)), 2)
    if family.stopping == "looks":
        return [_at_looks(task, a, b, family) for a, b in pairs]
    return [_on_all_runs(task, a, b, family) for a, b in pairs]


def _with_holm(tasks: Sequence[Sequence[Test]], pairs: int) -> list[list[Test]]:
    """Holm's correction over the whole family; a pair without a test counts as p = 1."""
    tested = [test.p for tests in tasks for test in tests]
    untested = pairs - sum(p is not None for p in tested)
    adjusted = iter(stats.holm([*tested, *[1.0] * untested]))
    return [[_decided(test, next(adjusted)) for test in tests] for tests in tasks]


def _decided(test: Test, p_adjusted: float | None) -> Test:
    significant = p_adjusted is not None and p_adjusted < ALPHA and test.n >= MIN_SHARED_SEEDS
    return replace(test, p_adjusted=p_adjusted, significant=significant)


def _on_all_runs(task: TaskScores, a: int, b: int, family: Family) -> Test:
    """The test of a pair on all its runs: the paired t test, or the always-valid test after looks at any time."""
    x, y = task.values[a], task.values[b]
    both = [seed for seed in family.seeds or sorted(x.keys() & y.keys()) if seed in x and seed in y]
    differences = _differences(x, y, both)
    if task.lacks_runs(a, b, family.seeds):
        return _untested(a, b, differences, RUNS_ARE_MISSING)
    result = (
        stats.anytime(differences, ALPHA, scale=_size(x, y))
        if family.stopping == "any"
        else stats.paired_difference([x[seed] for seed in both], [y[seed] for seed in both])
    )
    return Test(
        a=a,
        b=b,
        n=result.n,
        difference=result.difference,
        interval=result.interval,
        p=result.p,
        p_adjusted=None,
        significant=False,
        cannot_say=result.cannot_say,
        differences=differences,
    )


def first_look_pending(family: Family) -> str:
    """Why no pair is tested yet, with planned looks."""
    return f"the first look, after {family.looks[0]} seeds, is not complete"


def _untested(a: int, b: int, differences: tuple[float, ...], why: str, *, is_withheld: bool = True) -> Test:
    """A difference without a test, for the reason `why`; withheld unless it is too early for a test."""
    return Test(
        a=a,
        b=b,
        n=len(differences),
        difference=fmean(differences) if differences else None,
        interval=None,
        p=None,
        p_adjusted=None,
        significant=False,
        cannot_say=why,
        differences=differences,
        is_withheld=is_withheld,
    )


def _size(x: Values, y: Values) -> float:
    """The largest absolute value: differences below its rounding count as zero."""
    return max(map(abs, [*x.values(), *y.values()]), default=0.0)


def _differences(x: Values, y: Values, seeds: Sequence[int]) -> tuple[float, ...]:
    return tuple(x[seed] - y[seed] for seed in seeds)


def _at_looks(task: TaskScores, a: int, b: int, family: Family) -> Test:
    """The test of a pair at its completed looks; later runs are ignored.

    A seed without a value at a complete look, because its run diverged without a score, moves that look and the later
    ones by one. A group without seeds after a look stays at that look, at its planned level.
    """
    x, y = task.values[a], task.values[b]
    completed = min(task.looks_done[a], task.looks_done[b])
    planned = family.seeds[: family.looks[completed - 1]] if completed else ()
    both = [seed for seed in planned if seed in x and seed in y]
    differences = _differences(x, y, both)
    if task.lacks_runs(a, b, planned):
        return _untested(a, b, differences, RUNS_ARE_MISSING)
    if not completed:
        return _untested(a, b, (), first_look_pending(family), is_withheld=False)
    looks = [sum(1 for seed in both if seed in family.seeds[:look]) for look in family.looks[:completed]]
    missing = len(planned) - len(both)
    looks += [look - missing for look in family.looks[completed:]]
    looks = sorted({look for look in looks if look >= 2})
    result = stats.group_sequential(differences, looks, ALPHA / family.pairs, scale=_size(x, y))
    return Test(
        a=a,
        b=b,
        n=result.n,
        difference=result.difference,
        interval=result.interval,
        p=result.p,
        p_adjusted=None if result.p is None else min(1.0, family.pairs * result.p),
        significant=result.crossed and result.n >= MIN_SHARED_SEEDS,
        cannot_say=result.cannot_say,
        differences=differences[: result.n],
    )
