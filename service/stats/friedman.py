"""Ranks of optimizers over tasks: Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc

from service.stats.checks import LARGEST, NOT_FINITE, Vector, rounding, there_are
from service.stats.ranks import midranks

MIN_TASKS, MIN_OPTIMIZERS = 8, 3
"""Minimum for the test: with fewer tasks the chi-square approximation is rough and the power low (Demsar 2006)."""


@dataclass(frozen=True)
class Friedman:
    """Friedman's chi-square statistic over `tasks` tasks, its p, and the average rank of each optimizer (1 is best).

    `cannot_say` gives the reason for each None. `ranks` needs one task.
    """

    tasks: int
    statistic: float | None
    p: float | None
    ranks: tuple[float, ...] | None
    cannot_say: str | None


def average_ranks(scores: ArrayLike) -> Vector:
    """Mean rank over tasks of each optimizer; 1 is best.

    Args:
        scores: shape (T, K) for T tasks and K optimizers, higher is better. Equal scores share their mean rank; NaN
            ranks last.

    Returns:
        Shape (K,); (K + 1) / 2 for all optimizers if there are no tasks.

    Raises:
        ValueError: if `scores` is not two-dimensional.
    """
    ranks = _ranks(_scores(scores))
    return np.asarray(ranks.mean(axis=0)) if len(ranks) else np.full(ranks.shape[1], (ranks.shape[1] + 1) / 2)


def friedman(scores: ArrayLike) -> Friedman:
    """Friedman's test of the hypothesis that K optimizers have equal ranks over T tasks.

    The statistic is corrected for ties. Sources: Friedman 1937; recommended for comparisons over data sets by Demsar
    2006, JMLR 7.

    Args:
        scores: mean scores, shape (T, K), higher is better. Equal scores share their mean rank.

    Raises:
        ValueError: if `scores` is not two-dimensional.
    """
    x = _scores(scores)
    tasks, k = x.shape
    if not x.size:
        return Friedman(tasks, None, None, None, "there are no scores")
    if not (np.abs(x) <= LARGEST).all():
        return Friedman(tasks, None, None, None, NOT_FINITE)
    ranks = _ranks(x)
    average = tuple(float(rank) for rank in ranks.mean(axis=0))
    if why := _why_no_test(tasks, k):
        return Friedman(tasks, None, None, average, why)
    spread = np.square(ranks - (k + 1) / 2).sum()
    if spread == 0:
        return Friedman(tasks, None, None, average, "all optimizers tie on every task")
    between = np.square(ranks.sum(axis=0) - tasks * (k + 1) / 2).sum()
    statistic = float((k - 1) * between / spread)
    return Friedman(tasks, statistic, float(chdtrc(k - 1, statistic)), average, None)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"expected tasks x optimizers, not shape {x.shape}")
    return x


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks within each task, shape (T, K)."""
    ranks = np.empty_like(scores)
    for row, out in zip(scores, ranks, strict=True):
        finite = row[np.abs(row) <= LARGEST]
        smaller_is_better = np.clip(np.where(np.isnan(row), np.inf, -row), -2 * LARGEST, 2 * LARGEST)
        out[:] = midranks(smaller_is_better, rounding(finite) if len(finite) else 0.0)
    return ranks


def _why_no_test(tasks: int, k: int) -> str | None:
    if k < 2:
        return "there is only one optimizer"
    if k < MIN_OPTIMIZERS:
        return "with two optimizers, use Wilcoxon's signed-rank test over 6 or more tasks instead"
    if tasks < MIN_TASKS:
        return f"a rank test needs {MIN_TASKS} tasks; {there_are(tasks)}"
    return None


@lru_cache(maxsize=256)
def nemenyi_critical_difference(k: int, tasks: int, alpha: float = 0.05) -> float | None:
    """Difference between two average ranks that is significant at family-wise level `alpha`.

    It is q sqrt(k (k + 1) / (6 tasks)), where q is the upper `alpha` quantile of the studentized range of k normal
    variables, divided by sqrt 2. Sources: Nemenyi 1963; Demsar 2006.

    Args:
        k: number of optimizers.
        tasks: number of tasks.
        alpha: family-wise level, in (0, 1) (default 0.05).

    Returns:
        None with fewer than two optimizers, without tasks, or if `alpha` is out of range.
    """
    if k < 2 or tasks < 1 or not 0 < alpha < 1:
        return None
    q = float(scipy.stats.studentized_range.isf(alpha, k, np.inf)) / 2**0.5
    return float(q * (k * (k + 1) / (6 * tasks)) ** 0.5)
