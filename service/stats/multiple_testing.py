"""All tests of a comparison together: which pairs differ, at a family-wise error rate of 5 % over pairs and looks.

Three ways, fixed before the first run: one look at the end (Holm over all pairs), planned looks (group-sequential, the
error divided over the pairs), or a look after every seed (an always-valid test, Holm over its p values).
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

FEWEST_PAIRS = 3
"""With two pairs the t interval is 12.7 standard errors wide to each side: a test in name only."""

RUNS_ARE_MISSING = "cannot say, because planned runs are missing"

Values = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True)
class Family:
    """Which tests belong together: all pairs of all tasks of a comparison."""

    pairs: int
    stopping: Literal["fixed", "looks", "any"] = "fixed"
    looks: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    """In the order they are run in; empty: in the order of their numbers."""
    sign: int = 1
    """1 where more is better, -1 where less is."""


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

    def loser(self, sign: int) -> int | None:
        """The group that is worse, where that is decided; `sign` is 1 where more is better, -1 where less is."""
        if not self.significant or not self.difference:
            return None
        return self.b if sign * self.difference > 0 else self.a


@dataclass(frozen=True)
class Standing:
    """Where a task's groups stand: those that no other one is significantly better than."""

    unbeaten: tuple[int, ...]
    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Sampled:
    """What a task's groups scored, and how many of the planned looks each of them has all its runs for.

    `lost`: of each group the seeds whose run is missing, other than by diverging. Pairs are not tested on what is left
    of them: who cancelled a run may have seen it, and a run that was too slow or too large is no random one.
    """

    groups: Sequence[Values]
    looks_done: Sequence[int] = ()
    lost: Sequence[Collection[int]] = ()

    def is_short(self, a: int, b: int, seeds: Sequence[int]) -> bool:
        """Whether a run of these seeds is missing in one of two groups."""
        return bool(self.lost) and not {*self.lost[a], *self.lost[b]}.isdisjoint(seeds)


def test_all(tasks: Sequence[Sampled], family: Family) -> list[list[Test]]:
    """The tests of all pairs of groups of each task, adjusted together."""
    found = [_tests(task, family) for task in tasks]
    return found if family.stopping == "looks" else _with_holm(found, family.pairs)


def standing(task: Sampled, family: Family) -> Standing:
    """Where one task stands by itself, at the family's error rate; it never says more than `test_all` does.

    Holm's correction over all tasks would depend on the others' runs, so it is Bonferroni's here.
    """
    tests = _tests(task, family)
    if family.stopping != "looks":
        tests = [_decided(test, None if test.p is None else min(1.0, family.pairs * test.p)) for test in tests]
    beaten = {test.loser(family.sign) for test in tests}
    return Standing(tuple(index for index in range(len(task.groups)) if index not in beaten), tuple(tests))


def _tests(task: Sampled, family: Family) -> list[Test]:
    pairs = combinations(range(len(task.groups)), 2)
    if family.stopping == "looks":
        return [_at_looks(task, a, b, family) for a, b in pairs]
    return [_at_once(task, a, b, family) for a, b in pairs]


def _with_holm(tasks: Sequence[Sequence[Test]], pairs: int) -> list[list[Test]]:
    """Holm over the whole family: a pair that has not been tested yet counts as one that shows nothing."""
    found = [test.p for tests in tasks for test in tests]
    untested = pairs - sum(p is not None for p in found)
    adjusted = iter(stats.holm([*found, *[1.0] * untested]))
    return [[_decided(test, next(adjusted)) for test in tests] for tests in tasks]


def _decided(test: Test, p_adjusted: float | None) -> Test:
    significant = p_adjusted is not None and p_adjusted < ALPHA and test.n >= FEWEST_PAIRS
    return replace(test, p_adjusted=p_adjusted, significant=significant)


def _at_once(task: Sampled, a: int, b: int, family: Family) -> Test:
    """A pair on all its runs: the paired t test, or the always-valid one where runs were looked at all the time."""
    x, y = task.groups[a], task.groups[b]
    both = [seed for seed in family.seeds or sorted(x.keys() & y.keys()) if seed in x and seed in y]
    differences = _differences(x, y, both)
    if task.is_short(a, b, family.seeds):
        return _untested(a, b, differences)
    found = (
        stats.anytime(differences, ALPHA, scale=_size(x, y))
        if family.stopping == "any"
        else stats.paired_difference([x[seed] for seed in both], [y[seed] for seed in both])
    )
    return Test(
        a=a,
        b=b,
        n=found.n,
        difference=found.difference,
        interval=found.interval,
        p=found.p,
        p_adjusted=None,
        significant=False,
        cannot_say=found.cannot_say,
        differences=differences,
    )


def _untested(a: int, b: int, differences: tuple[float, ...]) -> Test:
    """A pair with less than what was planned: how far apart it is, and nothing on whether that is chance."""
    return Test(
        a=a,
        b=b,
        n=len(differences),
        difference=fmean(differences) if differences else None,
        interval=None,
        p=None,
        p_adjusted=None,
        significant=False,
        cannot_say=RUNS_ARE_MISSING,
        differences=differences,
    )


def _size(x: Values, y: Values) -> float:
    """Of the numbers that differences are taken from, whose rounding is no difference."""
    return max(map(abs, [*x.values(), *y.values()]), default=0.0)


def _differences(x: Values, y: Values, seeds: Sequence[int]) -> tuple[float, ...]:
    return tuple(x[seed] - y[seed] for seed in seeds)


def _at_looks(task: Sampled, a: int, b: int, family: Family) -> Test:
    """A pair at the planned looks that are complete: what ran since is not looked at.

    A seed without a value at a complete look, because its run diverged and that has no score, will not get one, and
    moves that look and those after it. A group that got no more seeds after a look stays at that look, at the level
    that was planned for it.
    """
    x, y = task.groups[a], task.groups[b]
    complete = min(task.looks_done[a], task.looks_done[b])
    seen = family.seeds[: family.looks[complete - 1]] if complete else ()
    both = [seed for seed in seen if seed in x and seed in y]
    differences = _differences(x, y, both)
    if task.is_short(a, b, seen):
        return _untested(a, b, differences)
    looks = [sum(1 for seed in both if seed in family.seeds[:look]) for look in family.looks[:complete]]
    missing = len(seen) - len(both)
    looks += [look - missing for look in family.looks[complete:]]
    looks = sorted({look for look in looks if look >= 2})
    done = stats.group_sequential(differences, looks, ALPHA / family.pairs, scale=_size(x, y))
    return Test(
        a=a,
        b=b,
        n=done.n,
        difference=done.difference,
        interval=done.interval,
        p=done.p,
        p_adjusted=None if done.p is None else min(1.0, family.pairs * done.p),
        significant=done.crossed and done.n >= FEWEST_PAIRS,
        cannot_say=done.cannot_say,
        differences=differences[: done.n],
    )
