"""Time to a target: censored medians, and who was there first. None means "later than the run lasted"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.stats.signs import sign_test_p
from service.stats.values import here

FEWEST_DECIDED = 6
"""With five seeds that one side won, the smallest two-sided p of the sign test is 2 / 2^5 = 0.0625."""


@dataclass(frozen=True)
class PairedToTarget:
    """On how many of `n` seeds `a` and `b` reached the target first; the exact two-sided p of a sign test.

    A tie is a seed on which both took equally long, or both missed. `cannot_say` explains the None.
    """

    n: int
    a_first: int
    b_first: int
    ties: int
    p: float | None
    cannot_say: str | None


def median_to_target(first_hits: Sequence[float | None]) -> float | None:
    """Median over seeds of the steps (or seconds) to a target; None counts as "later than the run lasted" (censored).

    None where half of the runs or more missed the target: then the median is unknown. Also for no runs.
    """
    if not first_hits:
        return None
    median = float(np.median([_time(hit) for hit in first_hits]))
    return median if np.isfinite(median) else None


def paired_to_target(a_hits: Sequence[float | None], b_hits: Sequence[float | None]) -> PairedToTarget:
    """Who reached the target first, where a_hits[i] and b_hits[i] belong to the same seed: steps or seconds.

    A miss is later than any hit. The sign test leaves ties out and needs six seeds without. Raises ValueError for
    different lengths.
    """
    if len(a_hits) != len(b_hits):
        raise ValueError(f"{len(a_hits)} runs cannot be paired with {len(b_hits)}")
    pairs = [(_time(a), _time(b)) for a, b in zip(a_hits, b_hits, strict=True)]
    a_first, b_first = sum(a < b for a, b in pairs), sum(b < a for a, b in pairs)
    ties = len(pairs) - a_first - b_first
    if a_first + b_first < FEWEST_DECIDED:
        there = here(a_first + b_first)
        why = f"cannot say, because a sign test needs {FEWEST_DECIDED} seeds with a first, and {there}"
        return PairedToTarget(len(pairs), a_first, b_first, ties, None, why)
    return PairedToTarget(len(pairs), a_first, b_first, ties, sign_test_p(a_first, b_first), None)


def _time(hit: float | None) -> float:
    """A time that is no number is no hit."""
    return float(hit) if hit is not None and np.isfinite(hit) else np.inf
