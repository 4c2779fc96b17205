"""Time to target over tasks: performance profiles, and the AlgoPerf score.

Times have shape (optimizers, tasks), K x T, in steps or seconds, and are inf where an optimizer missed the target. What
is no time, NaN or negative, is a miss, too. Raises ValueError for an array that is not two-dimensional.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_RATIO = 4.0
"""AlgoPerf looks no further than four times the best time (Dahl et al. 2023, section 4)."""


def performance_ratios(times: ArrayLike) -> NDArray[np.float64]:
    """Each of `times`, (K, T), over the best of its task: from 1 on, inf for a miss, shape (K, T).

    All miss a task that nobody finished. A time of 0 is equalled by another 0 alone.
    """
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 2:
        raise ValueError(f"expected optimizers x tasks, not shape {t.shape}")
    t = np.where(t >= 0, t, np.inf)
    best = t.min(axis=0, initial=np.inf)  # (T,)
    ratios = np.where(np.isfinite(t) & (t == best), 1.0, np.inf)
    with np.errstate(over="ignore"):  # a ratio beyond double precision is beyond any tau
        np.divide(t, best, out=ratios, where=np.isfinite(t) & (best > 0))
    return ratios


def performance_profile(times: ArrayLike, taus: Sequence[float]) -> NDArray[np.float64]:
    """The share of tasks that each optimizer finished within `taus` times the best time, shape (K, len(taus)).

    Dolan & Moré 2002, Math. Program. 91, from `times`, shape (K, T). 0 without tasks.
    """
    ratios = performance_ratios(times)[:, :, None]
    finished = np.isfinite(ratios) & (ratios <= np.array(taus, dtype=np.float64))  # (K, T, taus)
    return np.asarray(finished.sum(axis=1) / max(1, finished.shape[1]))


def algoperf_scores(times: ArrayLike) -> NDArray[np.float64]:
    """AlgoPerf's benchmark score B of each optimizer, shape (K,), from `times`, shape (K, T): 0 to 1, higher is better.

    The mean over tasks of max(0, 4 - r) / 3, r being the time over the best of the task: the area under the
    performance profile from 1 to 4 (Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms"). A miss
    scores 0, for all where nobody finished; so does no task. B depends on the cohort: adding a fast optimizer lowers
    the others.
    """
    ratios = np.minimum(performance_ratios(times), LARGEST_RATIO)
    return np.asarray((LARGEST_RATIO - ratios).sum(axis=1) / ((LARGEST_RATIO - 1) * max(1, ratios.shape[1])))
