"""Times at which groups reach the target of their task."""

from __future__ import annotations

from collections.abc import Sequence

from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import Run
from service.comparisons.answers import FirstToTarget, ToTarget
from service.stats import median_to_target, paired_to_target
from service.stats.multiple_testing import Test


def to_target(group: Group[Run]) -> ToTarget:
    """Number of runs of a group that reached the target, and median steps and seconds."""
    hits = [group.hit(seed) for seed in group.runs]
    return ToTarget(
        label=group.label,
        runs=len(hits),
        reached=sum(hit is not None for hit in hits),
        steps=median_to_target([hit.step if hit else None for hit in hits]),
        seconds=median_to_target([hit.wall_seconds if hit else None for hit in hits]),
    )


def first_to_target(groups: Sequence[Group[Run]], tests: Sequence[Test]) -> list[FirstToTarget]:
    """Which group of each pair reached the target first, in steps, because seconds depend on the load of the machine.

    If the test of a pair's metric is withheld, this test is withheld, too.
    """
    steps = [{seed: hit.step if (hit := group.hit(seed)) else None for seed in group.runs} for group in groups]
    return [_first_to_target(groups, steps, test) for test in tests]


def _first_to_target(groups: Sequence[Group[Run]], steps: Sequence[dict[int, int | None]], test: Test) -> FirstToTarget:
    a, b = steps[test.a], steps[test.b]
    common = sorted(a.keys() & b.keys())
    pair = paired_to_target([a[seed] for seed in common], [b[seed] for seed in common])
    answer = FirstToTarget(a=groups[test.a].label, b=groups[test.b].label, **vars(pair))
    return answer.model_copy(update={"p": None, "cannot_say": test.cannot_say}) if test.is_withheld else answer
