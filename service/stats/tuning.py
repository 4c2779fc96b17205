"""What tuning bought: the best of so many trials, and how wide the range of good learning rates is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.stats.values import LARGEST, Vector, here

FEWEST_RATES = 3


@dataclass(frozen=True)
class GoodRange:
    """The learning rates from `low` to `high` are good: that is `decades` = log10(high / low).

    `open_low`, `open_high`: that end is the last rate tried, so the range may go on. `cannot_say` explains each None.
    """

    low: float | None
    high: float | None
    decades: float | None
    open_low: bool
    open_high: bool
    cannot_say: str | None


def expected_best(values: Sequence[float | None], higher_is_better: bool) -> list[float]:
    """The expected best of k trials drawn from `values` without replacement, for k = 1..n.

    Dodge et al. 2019, "Show Your Work", in the form without bias (Tang et al. 2020). A trial that diverged (None, or
    not finite) counts as the worst of those that did not. Empty where every trial diverged.
    """
    x = _scores(values, higher_is_better)
    if not np.isfinite(x).any():
        return []
    x = np.sort(np.where(np.isfinite(x), x, x[np.isfinite(x)].min()))
    n = len(x)
    drawn = np.arange(n)[:, None]  # k - 1
    # P(all k drawn are among the i smallest) = prod over j < k of (i - j) / (n - j)
    among = np.cumprod(np.maximum(np.arange(1, n + 1) - drawn, 0) / (n - drawn), axis=0)  # (n, n): k, i
    chance = np.diff(among, axis=1, prepend=0.0)  # P(the best of k is the i-th)
    return [float(best) if higher_is_better else -float(best) for best in chance @ x]


def good_range(
    lrs: Sequence[float], values: Sequence[float | None], tolerance: float, higher_is_better: bool
) -> GoodRange:
    """The learning rates around the best one whose score is within `tolerance` of the best score.

    Between trials the score is linear in log lr; trials at the same rate are averaged. A trial that diverged (None, or
    not finite) is far below: the range ends at its neighbour. None for fewer than three distinct rates, a rate that is
    not positive, a tolerance that is negative, or where every trial diverged. Raises ValueError for different lengths.
    """
    if len(lrs) != len(values):
        raise ValueError(f"{len(lrs)} learning rates do not fit {len(values)} values")
    rates = np.array(lrs, dtype=np.float64)
    if not ((rates > 0) & np.isfinite(rates)).all():
        return _unknown("a learning rate is not a positive number")
    if not 0 <= tolerance < np.inf:
        return _unknown("the tolerance is not a number from 0 on")
    if len(np.unique(rates)) < FEWEST_RATES:
        return _unknown(f"a range needs {FEWEST_RATES} learning rates, and {here(len(np.unique(rates)))}")
    distinct, at = np.unique(rates, return_inverse=True)
    scores = _scores(values, higher_is_better)
    means = np.array([scores[at == i].mean() for i in range(len(distinct))])
    if not np.isfinite(means).any():
        return _unknown("every learning rate diverged")
    best, logs = int(means.argmax()), np.log10(distinct)
    floor = means[best] - tolerance
    high, open_high = _walk(logs[best:], means[best:], floor)
    low, open_low = _walk(logs[best::-1], means[best::-1], floor)
    return GoodRange(float(10**low), float(10**high), high - low, open_low, open_high, None)


def _unknown(why: str) -> GoodRange:
    return GoodRange(None, None, None, False, False, f"cannot say, because {why}")


def _scores(values: Sequence[float | None], higher_is_better: bool) -> Vector:
    """Higher is better, -inf for a trial that diverged."""
    x = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.abs(x) <= LARGEST, x if higher_is_better else -x, -np.inf)


def _walk(logs: Vector, scores: Vector, floor: float) -> tuple[float, bool]:
    """Outwards from the best trial, the first: the log rate where the score falls below `floor`, and is it the edge."""
    below = np.flatnonzero(scores < floor)
    if not len(below):
        return float(logs[-1]), True
    last = below[0] - 1
    if not np.isfinite(scores[last + 1]):
        return float(logs[last]), False
    share = (scores[last] - floor) / (scores[last] - scores[last + 1])
    return float(logs[last] + share * (logs[last + 1] - logs[last])), False
