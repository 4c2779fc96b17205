"""Time to a target: censored medians and the paired sign test. None is a miss: not reached within the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.stats.checks import there_are
from service.stats.sign_tests import sign_test_p

MIN_DECIDED = 6
"""Minimum for the sign test. With 5 seeds without ties the smallest two-sided p is 2 / 2^5 = 0.0625."""


@dataclass(frozen=True)
class PairedToTarget:
    """Number of seeds, of `n`, on which `a` and `b` reached the target first, and the exact two-sided p of a sign test.

    A tie is a seed on which both took the same time or both missed. `cannot_say` gives the reason for a None.
    """

    n: int
    a_first: int
    b_first: int
    ties: int
    p: float | None
    cannot_say: str | None


def median_to_target(first_hits: Sequence[float | None]) -> float | None:
    """Median over seeds of the time to a target, with misses as censored values.

    Args:
        first_hits: steps or seconds to the target per seed; None for a miss.

    Returns:
        None if at least half of the runs missed the target, or if there are no runs.
    """
    if not first_hits:
        return None
    median = float(np.median([_time(hit) for hit in first_hits]))
    return median if np.isfinite(median) else None


def paired_to_target(a_hits: Sequence[float | None], b_hits: Sequence[float | None]) -> PairedToTarget:
    """Compare two groups by the time to a target on the same seeds.

    A miss is later than any hit. The sign test leaves ties out and needs 6 seeds without a tie.

    Args:
        a_hits: steps or seconds to the target per seed; None for a miss.
        b_hits: the same seeds in the same order.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(a_hits) != len(b_hits):
        raise ValueError(f"{len(a_hits)} runs cannot be paired with {len(b_hits)}")
    pairs = [(_time(a), _time(b)) for a, b in zip(a_hits, b_hits, strict=True)]
    a_first, b_first = sum(a < b for a, b in pairs), sum(b < a for a, b in pairs)
    ties = len(pairs) - a_first - b_first
    decided = a_first + b_first
    if decided < MIN_DECIDED:
        why = f"the sign test needs {MIN_DECIDED} seeds without a tie; {there_are(decided)}"
        return PairedToTarget(len(pairs), a_first, b_first, ties, None, why)
    return PairedToTarget(len(pairs), a_first, b_first, ties, sign_test_p(a_first, b_first), None)


def _time(hit: float | None) -> float:
    """The time, or inf for a miss; a time that is not finite is a miss."""
    return float(hit) if hit is not None and np.isfinite(hit) else np.inf
