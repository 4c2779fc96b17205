"""Results of tuning: the expected best of k trials, and the range of good learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.stats.checks import LARGEST, Vector, there_are

MIN_RATES = 3


@dataclass(frozen=True)
class GoodRange:
    """Range of good learning rates, from `low` to `high`; `decades` = log10(high / low).

    `open_low`, `open_high`: whether that end is the last rate that was tried, so that the range may extend beyond it.
    `cannot_say` gives the reason for each None.
    """

    low: float | None
    high: float | None
    decades: float | None
    open_low: bool
    open_high: bool
    cannot_say: str | None


def expected_best(values: Sequence[float | None], higher_is_better: bool) -> list[float]:
    """Expected best of k trials that are drawn from `values` without replacement, for k = 1..n.

    Sources: Dodge et al. 2019, "Show Your Work", in the unbiased form of Tang et al. 2020.

    Args:
        values: one value per trial. A diverged trial (None or not finite) counts as the worst finite value.
        higher_is_better: direction of the metric.

    Returns:
        One value per k; empty if every trial diverged.
    """
    x = _scores(values, higher_is_better)
    if not np.isfinite(x).any():
        return []
    x = np.sort(np.where(np.isfinite(x), x, x[np.isfinite(x)].min()))
    n = len(x)
    drawn = np.arange(n)[:, None]  # k - 1
    # P(all k drawn are among the i smallest) = prod over j < k of (i - j) / (n - j)
    among = np.cumprod(np.maximum(np.arange(1, n + 1) - drawn, 0) / (n - drawn), axis=0)  # (n, n): k, i
    probability = np.diff(among, axis=1, prepend=0.0)  # P(the best of k is the i-th smallest)
    return [float(best) if higher_is_better else -float(best) for best in probability @ x]


def good_range(
    lrs: Sequence[float], values: Sequence[float | None], tolerance: float, higher_is_better: bool
) -> GoodRange:
    """The range of learning rates around the best one whose score is within `tolerance` of the best score.

    The score is interpolated linearly in log lr. Trials at the same rate are averaged. The range ends before a diverged
    trial.

    Args:
        lrs: learning rate of each trial, > 0.
        values: value of each trial; None or not finite if it diverged.
        tolerance: largest difference from the best score, >= 0, in units of the metric.
        higher_is_better: direction of the metric.

    Returns:
        None with fewer than three distinct rates, if a rate or the tolerance is out of range, or if every trial
        diverged.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(lrs) != len(values):
        raise ValueError(f"{len(lrs)} learning rates do not match {len(values)} values")
    rates = np.array(lrs, dtype=np.float64)
    if not ((rates > 0) & np.isfinite(rates)).all():
        return _unknown("a learning rate is not a positive number")
    if not 0 <= tolerance < np.inf:
        return _unknown("the tolerance is not a number >= 0")
    if len(np.unique(rates)) < MIN_RATES:
        return _unknown(
            f"a range of good learning rates needs at least {MIN_RATES} rates; {there_are(len(np.unique(rates)))}"
        )
    distinct, at = np.unique(rates, return_inverse=True)
    scores = _scores(values, higher_is_better)
    means = np.array([scores[at == i].mean() for i in range(len(distinct))])
    if not np.isfinite(means).any():
        return _unknown("every learning rate diverged")
    best, logs = int(means.argmax()), np.log10(distinct)
    floor = means[best] - tolerance
    high, open_high = _end_of_range(logs[best:], means[best:], floor)
    low, open_low = _end_of_range(logs[best::-1], means[best::-1], floor)
    return GoodRange(float(10**low), float(10**high), high - low, open_low, open_high, None)


def _unknown(why: str) -> GoodRange:
    return GoodRange(None, None, None, False, False, why)


def _scores(values: Sequence[float | None], higher_is_better: bool) -> Vector:
    """Scores of which higher is better; -inf for a diverged trial."""
    x = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.abs(x) <= LARGEST, x if higher_is_better else -x, -np.inf)


def _end_of_range(logs: Vector, scores: Vector, floor: float) -> tuple[float, bool]:
    """Log rate at which the score falls below `floor`, from the best trial (the first) on; whether it is the last."""
    below = np.flatnonzero(scores < floor)
    if not len(below):
        return float(logs[-1]), True
    last = below[0] - 1
    if not np.isfinite(scores[last + 1]):
        return float(logs[last]), False
    share = (scores[last] - floor) / (scores[last] - scores[last + 1])
    return float(logs[last] + share * (logs[last + 1] - logs[last])), False
