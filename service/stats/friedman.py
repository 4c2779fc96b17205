"""Ranks of several optimizers over several tasks: Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr

from service.stats.ranks import midranks
from service.stats.values import LARGEST, NOT_FINITE, Vector, here, rounding

FEWEST_TASKS, FEWEST_OPTIMIZERS = 8, 3
"""With fewer tasks the chi-square distribution is too rough an approximation."""

FARTHEST = 9.0
"""A normal score beyond which less than 1e-18 is left."""


@dataclass(frozen=True)
class Friedman:
    """Friedman's chi-square over `tasks` tasks, its p, and the average rank of each optimizer: 1 is the best.

    `cannot_say` explains each None; the ranks are given from one task on.
    """

    tasks: int
    statistic: float | None
    p: float | None
    ranks: tuple[float, ...] | None
    cannot_say: str | None


def average_ranks(scores: ArrayLike) -> Vector:
    """Mean rank over tasks of each optimizer, shape (K,), from `scores`, shape (T, K), higher is better: 1 is the best.

    Equal scores share their mean rank; what is not a number ranks last. (K + 1) / 2 for all without tasks. Raises
    ValueError for an array that is not two-dimensional.
    """
    ranks = _ranks(_scores(scores))
    return np.asarray(ranks.mean(axis=0)) if len(ranks) else np.full(ranks.shape[1], (ranks.shape[1] + 1) / 2)


def friedman(scores: ArrayLike) -> Friedman:
    """Whether K optimizers rank alike over T tasks, from `scores`, shape (T, K), a mean score each, higher is better.

    Equal scores share their mean rank, and the statistic is corrected for ties. Friedman 1937; recommended for
    comparisons over data sets by Demsar 2006, JMLR 7. Raises ValueError for an array that is not two-dimensional.
    """
    x = _scores(scores)
    tasks, k = x.shape
    if not x.size:
        return Friedman(tasks, None, None, None, "cannot say, because there are no scores")
    if not (np.abs(x) <= LARGEST).all():
        return Friedman(tasks, None, None, None, NOT_FINITE)
    ranks = _ranks(x)
    average = tuple(float(rank) for rank in ranks.mean(axis=0))
    if why := _why_no_test(tasks, k):
        return Friedman(tasks, None, None, average, why)
    spread = np.square(ranks - (k + 1) / 2).sum()
    if spread == 0:
        return Friedman(tasks, None, None, average, "cannot say, because all optimizers tie on every task")
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
        seen = row[np.abs(row) <= LARGEST]
        smaller_is_better = np.clip(np.where(np.isnan(row), np.inf, -row), -2 * LARGEST, 2 * LARGEST)
        out[:] = midranks(smaller_is_better, rounding(seen) if len(seen) else 0.0)
    return ranks


def _why_no_test(tasks: int, k: int) -> str | None:
    if k < 2:
        return "cannot say, because there is only one optimizer"
    if k < FEWEST_OPTIMIZERS:
        return "cannot say, because two optimizers call for Wilcoxon's signed ranks over the tasks instead"
    if tasks < FEWEST_TASKS:
        return f"cannot say, because ranks need {FEWEST_TASKS} tasks, and {here(tasks)}"
    return None


@lru_cache(maxsize=256)
def nemenyi_critical_difference(k: int, tasks: int, alpha: float = 0.05) -> float | None:
    """By how much the average ranks of two of `k` optimizers over `tasks` tasks have to differ, at family-wise `alpha`.

    q sqrt(k (k + 1) / (6 tasks)), where q is the studentized range of k normal scores over sqrt 2 (Nemenyi 1963;
    Demsar 2006). None for fewer than two optimizers or one task, and for an alpha outside (0, 1).
    """
    if k < 2 or tasks < 1 or not 0 < alpha < 1:
        return None
    x, weights = np.polynomial.legendre.leggauss(128)
    smallest = FARTHEST * x
    density = FARTHEST * weights * np.exp(-np.square(smallest) / 2) / (2 * np.pi) ** 0.5
    low, high = 0.0, 4 * FARTHEST
    for _ in range(60):
        middle = (low + high) / 2
        # P(the largest of k normal scores is no more than `middle` above the smallest)
        within = k * density @ np.power(ndtr(smallest + middle) - ndtr(smallest), k - 1)
        low, high = (middle, high) if 1 - within > alpha else (low, middle)
    return float(high / 2**0.5 * (k * (k + 1) / (6 * tasks)) ** 0.5)
