"""Adding seeds until it is clear, without fooling oneself: a paired t test at looks that were planned beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.samples import t_interval, t_p
from service.stats.spending import nominal_levels, overall_p
from service.stats.values import Interval, is_finite, vector, why_no_test


@dataclass(frozen=True)
class Sequential:
    """What is known at look number `look` (from 0; None before the first), from the first `n` differences.

    `interval` is the repeated confidence interval: at overall confidence 1 - alpha the intervals of all looks hold the
    truth together, so this one does whenever one stops. `p` is the repeated p value: the smallest overall alpha at
    which some look up to this one would have stopped. `crossed`: significant at alpha. `cannot_say` explains each None.
    """

    n: int
    look: int | None
    difference: float | None
    interval: Interval | None
    p: float | None
    crossed: bool
    cannot_say: str | None


def group_sequential(
    differences_in_seed_order: ArrayLike, looks: Sequence[int], alpha: float = 0.05, *, scale: float = 0.0
) -> Sequential:
    """Two-sided paired t test of the differences, shape (n,), at each of `looks` (numbers of seeds) that is complete.

    It stops at the first look that crosses its boundary: later differences are not used. Between looks the last one
    counts. By seed n of N planned, alpha (n / N)^2 may have been spent; see `nominal_levels`. For m tests take alpha
    / m. `scale`: size of the numbers that were subtracted (default 0: the differences' own), whose rounding is no
    spread. Repeated intervals: Jennison & Turnbull 1989, JRSS B 51. Raises ValueError for looks that do not rise from
    at least 2, and for an alpha outside (0, 1).
    """
    x = vector(differences_in_seed_order)
    if not looks:
        return Sequential(0, None, None, None, None, False, "cannot say, because no look is planned")
    levels = nominal_levels(tuple(looks), alpha)
    p = None
    answer = Sequential(0, None, None, None, None, False, _too_early(len(x), looks[0]))
    for look, (n, level) in enumerate(zip(looks, levels, strict=True)):
        if n > len(x) or answer.crossed:
            break
        seen = x[:n]
        if why := why_no_test(seen, scale):
            answer = Sequential(n, look, float(seen.mean()) if is_finite(seen) else None, None, None, False, why)
            continue
        mean, sd = float(seen.mean()), float(seen.std(ddof=1))
        nominal = t_p(mean, sd, n)
        crossed = nominal <= level
        p = min(1.0 if p is None else p, overall_p(tuple(looks), look, nominal))
        p = min(p, alpha) if crossed else max(p, float(np.nextafter(alpha, 1)))  # the table is not exact to the bit
        answer = Sequential(n, look, mean, t_interval(mean, sd, n, level), p, crossed, None)
    return answer


def _too_early(n: int, first: int) -> str:
    return f"cannot say, because the first look is at {first} seeds, and here {n} are paired"
