"""Group-sequential paired t test: interim analyses (looks) at planned numbers of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.checks import Interval, is_finite, there_are, vector, why_no_test
from service.stats.sample import t_interval, t_p
from service.stats.spending import nominal_levels, overall_p


@dataclass(frozen=True)
class Sequential:
    """Result at look number `look` (from 0; None before the first), from the first `n` differences.

    `interval` is a repeated confidence interval: with probability 1 - alpha the intervals of all looks contain the true
    difference, so this one is valid whenever the test stops. `p` is a repeated p value: the smallest overall alpha at
    which this or an earlier look would have stopped. `crossed`: whether the boundary was crossed, that is, significant
    at alpha. `cannot_say` gives the reason for each None.
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
    """Two-sided paired t test at each complete look.

    The test stops at the first look that crosses its boundary and uses no later differences. Between looks, the result
    is that of the last look. By seed n of N planned, alpha (n / N)^2 may be spent; see `nominal_levels`. For m tests,
    use alpha / m. Repeated intervals: Jennison & Turnbull 1989, JRSS B 51.

    Args:
        differences_in_seed_order: shape (n,).
        looks: planned numbers of seeds, increasing, from 2 to 200.
        alpha: overall two-sided level, in (0, 1) (default 0.05).
        scale: size of the numbers that were subtracted (default 0: that of the differences); their rounding error does
            not count as variation.

    Raises:
        ValueError: if `looks` or `alpha` is out of range.
    """
    x = vector(differences_in_seed_order)
    if not looks:
        return Sequential(0, None, None, None, None, False, "no look is planned")
    levels = nominal_levels(tuple(looks), alpha)
    p = None
    result = Sequential(0, None, None, None, None, False, _too_early(len(x), looks[0]))
    for look, (n, level) in enumerate(zip(looks, levels, strict=True)):
        if n > len(x) or result.crossed:
            break
        used = x[:n]
        if why := why_no_test(used, scale):
            result = Sequential(n, look, float(used.mean()) if is_finite(used) else None, None, None, False, why)
            continue
        mean, sd = float(used.mean()), float(used.std(ddof=1))
        nominal = t_p(mean, sd, n)
        crossed = nominal <= level
        p = min(1.0 if p is None else p, overall_p(tuple(looks), look, nominal))
        p = min(p, alpha) if crossed else max(p, float(np.nextafter(alpha, 1)))  # the table is interpolated
        result = Sequential(n, look, mean, t_interval(mean, sd, n, level), p, crossed, None)
    return result


def _too_early(n: int, first: int) -> str:
    return f"the first look needs {first} shared seeds; {there_are(n)}"
