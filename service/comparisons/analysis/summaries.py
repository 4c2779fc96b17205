"""Statistics of groups and pairs, as they are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.comparisons.answers import GroupView, PairDetail, PairView
from service.specs.training import TargetHit
from service.stats import describe, interquartile_mean, median_to_target, paired_detail, seeds_needed
from service.stats.multiple_testing import ALPHA, Family, Test, Values


def group_view(
    label: str,
    value: Any,
    optimizer: dict[str, Any],
    values: Values,
    hits: Sequence[TargetHit | None],
    diverged: int,
    sign: int,
) -> GroupView:
    """Statistics of a group's runs, whose ids are still to be added. A hit of None is a miss."""
    found = list(values.values())
    sample, middle = describe(found), interquartile_mean(found)
    return GroupView(
        label=label,
        value=value,
        optimizer=optimizer,
        n=sample.n,
        mean=sample.mean,
        sd=sample.sd,
        interval=sample.interval,
        best=max(found, key=lambda value: sign * value) if found else None,
        iqm=middle.value,
        iqm_interval=middle.interval,
        iqm_cannot_say=middle.cannot_say,
        steps_to_target=median_to_target([hit.step if hit else None for hit in hits]),
        seconds_to_target=median_to_target([hit.wall_seconds if hit else None for hit in hits]),
        diverged=diverged,
        jobs=[],
        diverged_jobs=[],
        cannot_say=sample.cannot_say,
    )


def _seeds_needed(test: Test, family: Family) -> int | None:
    """About how many seeds would decide an open pair; None for a test that asks for more than a t test of them does."""
    if test.significant or family.stopping == "any":
        return None
    needed = seeds_needed(test.differences, ALPHA / family.pairs)
    return needed if needed is not None and needed > test.n else None


def pair_view(
    test: Test, labels: Sequence[str], values: Sequence[Values], family: Family, *, is_read: bool = True
) -> PairView:
    """A test and what else is known of its pair. `is_read`: whether tests may be read, and more seeds be asked for."""
    x, y = values[test.a], values[test.b]
    both = [seed for seed in family.seeds or sorted(x.keys() | y.keys()) if seed in x and seed in y][: test.n]
    detail = paired_detail([x[seed] for seed in both], [y[seed] for seed in both])
    needed = _seeds_needed(test, family) if is_read else None  # half of the time that a pair takes
    return PairView(
        a=labels[test.a],
        b=labels[test.b],
        n=test.n,
        difference=test.difference,
        interval=test.interval,
        p=test.p,
        p_adjusted=test.p_adjusted,
        significant=test.significant,
        seeds_needed=needed,
        detail=PairDetail(
            sd=detail.sd,
            correlation=detail.correlation,
            skewed=detail.skewed,
            p_permutation=detail.p_permutation,
            p_wilcoxon=detail.p_wilcoxon,
            cliffs_delta=detail.cliffs_delta,
            cannot_say=detail.cannot_say,
            permutation_cannot_say=detail.permutation_cannot_say,
            wilcoxon_cannot_say=detail.wilcoxon_cannot_say,
        ),
        cannot_say=test.cannot_say,
    )
