"""Performance profiles and the AlgoPerf score, from times to target over tasks.

Times have shape (K, T) for K optimizers and T tasks, in steps or seconds. They are inf for an optimizer that missed the
target; NaN and negative values count as inf. All functions raise ValueError if the array is not two-dimensional.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_RATIO = 4.0
"""AlgoPerf integrates up to four times the best time (Dahl et al. 2023, section 4)."""


def performance_ratios(times: ArrayLike) -> NDArray[np.float64]:
    """Each time divided by the best time of its task, shape (K, T): >= 1, or inf for a miss.

    The ratio to a best time of 0 is 1 for a time of 0 and inf otherwise.
    """
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 2:
        raise ValueError(f"expected optimizers x tasks, not shape {t.shape}")
    t = np.where(t >= 0, t, np.inf)
    best = t.min(axis=0, initial=np.inf)  # (T,)
    ratios = np.where(np.isfinite(t) & (t == best), 1.0, np.inf)
    with np.errstate(over="ignore"):  # a ratio that overflows is beyond every tau
        np.divide(t, best, out=ratios, where=np.isfinite(t) & (best > 0))
    return ratios


def performance_profile(times: ArrayLike, taus: Sequence[float]) -> NDArray[np.float64]:
    """Share of tasks on which each optimizer reached the target within tau times the best time.

    Source: Dolan & Moré 2002, Math. Program. 91.

    Args:
        times: shape (K, T).
        taus: ratios to the best time, each >= 1.

    Returns:
        Shape (K, len(taus)); 0 if there are no tasks.
    """
    ratios = performance_ratios(times)[:, :, None]
    reached = np.isfinite(ratios) & (ratios <= np.array(taus, dtype=np.float64))  # (K, T, taus)
    return np.asarray(reached.sum(axis=1) / max(1, reached.shape[1]))


def algoperf_scores(times: ArrayLike) -> NDArray[np.float64]:
    """AlgoPerf benchmark score B of each optimizer, in [0, 1], higher is better.

    B is the mean over tasks of max(0, 4 - r) / 3, where r is the ratio to the best time: the area under the performance
    profile from 1 to 4. A miss scores 0. B depends on the other optimizers: adding a fast one lowers their scores.
    Source: Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms".

    Args:
        times: shape (K, T).

    Returns:
        Shape (K,); 0 if there are no tasks.
    """
    ratios = np.minimum(performance_ratios(times), MAX_RATIO)
    return np.asarray((MAX_RATIO - ratios).sum(axis=1) / ((MAX_RATIO - 1) * max(1, ratios.shape[1])))
