"""Statistics of groups and pairs in answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import Run
from service.comparisons.answers import GroupView, LeftOut, PairDetail, PairView
from service.specs.states import JobStatus
from service.stats import Sample, interquartile_mean, median_to_target, paired_detail, seeds_needed
from service.stats.multiple_testing import ALPHA, Family, Test

SEEDS_FOLLOWED_LOOKS = (
    "the number of seeds may depend on interim results; only the intervals of the differences account for this"
)


def group_view(group: Group[Run], sign: int, *, has_target: bool, has_looks: bool) -> GroupView:
    """Statistics of a group's runs.

    Args:
        group: the runs.
        sign: 1 if higher values of the metric are better, -1 if lower ones are.
        has_target: whether all runs recorded hits of the same target.
        has_looks: whether seeds were added depending on results; the t interval of a mean does not allow for that.
    """
    values = list(group.values.values())
    sample, middle = group.sample, interquartile_mean(values)
    if has_looks and sample.interval is not None:
        sample = Sample(sample.n, sample.mean, sample.sd, None, SEEDS_FOLLOWED_LOOKS)
    hits = [group.hit(seed) for seed in group.runs] if has_target else []
    return GroupView(
        label=group.label,
        value=group.value,
        optimizer=group.optimizer,
        n=sample.n,
        mean=sample.mean,
        sd=sample.sd,
        interval=sample.interval,
        best=max(values, key=lambda value: sign * value) if values else None,
        iqm=middle.value,
        iqm_interval=middle.interval,
        iqm_cannot_say=middle.cannot_say,
        steps_to_target=median_to_target([hit.step if hit else None for hit in hits]),
        seconds_to_target=median_to_target([hit.wall_seconds if hit else None for hit in hits]),
        diverged=len(group.diverged),
        jobs=[run.job for run in group.runs.values()],
        diverged_jobs=[run.job for run in group.diverged],
        cannot_say=sample.cannot_say,
    )


def pair_view(test: Test, groups: Sequence[Group[Run]], family: Family) -> PairView:
    """A test and further statistics of its pair; other tests are omitted if this one is withheld."""
    a, b = groups[test.a], groups[test.b]
    return PairView(
        a=a.label,
        b=b.label,
        n=test.n,
        difference=test.difference,
        interval=test.interval,
        p=test.p,
        p_adjusted=test.p_adjusted,
        significant=test.significant,
        seeds_needed=_seeds_needed(test, family),
        detail=_pair_detail(test, a, b, family),
        cannot_say=test.cannot_say,
    )


def _seeds_needed(test: Test, family: Family) -> int | None:
    """Number of seeds that would decide an open pair by a t test; None with looks after each seed, which need more."""
    if test.is_withheld or test.significant or family.stopping == "any":
        return None
    needed = seeds_needed(test.differences, ALPHA / family.pairs)
    return needed if needed is not None and needed > test.n else None


def _pair_detail(test: Test, a: Group[Run], b: Group[Run], family: Family) -> PairDetail:
    x, y = a.values, b.values
    common = [seed for seed in family.seeds or sorted(x.keys() | y.keys()) if seed in x and seed in y][: test.n]
    detail = PairDetail.model_validate(paired_detail([x[seed] for seed in common], [y[seed] for seed in common]))
    if not test.is_withheld:
        return detail
    return detail.model_copy(
        update=dict.fromkeys(("skewed", "p_permutation", "p_wilcoxon"))
        | dict.fromkeys(("cannot_say", "permutation_cannot_say", "wilcoxon_cannot_say"), test.cannot_say)
    )


def left_out(uncounted: Counter[JobStatus], repeated: int = 0) -> LeftOut:
    """Runs that are in no group, by reason: those that do not count, and `repeated` ones of a seed that ran again."""
    return LeftOut(
        unfinished=uncounted[JobStatus.QUEUED] + uncounted[JobStatus.RUNNING],
        failed=uncounted[JobStatus.FAILED],
        cancelled=uncounted[JobStatus.CANCELLED],
        without_metric=uncounted[JobStatus.SUCCEEDED],
        repeated=repeated,
    )
