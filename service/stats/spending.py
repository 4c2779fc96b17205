"""Alpha spending for group-sequential t tests: nominal levels of the looks, exact also for few seeds.

By a share t of the planned seeds (the information fraction), alpha t^2 may be spent: the power family alpha t^rho of
Kim & DeMets (1987, Biometrika 74) with rho = 2, in the alpha-spending approach of Lan & DeMets (1983, Biometrika 70).
The usual recursion for normal statistics (Armitage, McPherson & Rowe 1969) would have an error rate of 5.2 % with looks
at 5, 10 and 20 seeds, and of 5.7 % with a look at each of 5 to 10, because t statistics of few seeds are less
correlated between looks than normal statistics. This is the same recursion for t statistics (Jennison & Turnbull 1991,
Biometrika 78), in a one-dimensional form:

    r_n = t_n / sqrt(t_n^2 + n - 1)    cosine of the angle between the first n differences and (1, ..., 1)
    q_n(r) = P(no look so far crossed its boundary | r_n = r)

Under the null hypothesis the length of a normal vector is independent of its direction (Basu 1955). Therefore
q_{n+1}(r') is the mean of q_n(r_n) over the distribution of the last difference, and the boundary at a look is the one
that leaves the probability to be spent outside.

Shapes: A alphas, K looks, M Chebyshev terms and as many points, N quadrature nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import beta, betainc, betaincinv

from service.stats.checks import Vector

Array = NDArray[np.float64]

TERMS, NODES = 32, 64
"""Levels are accurate to 0.3 % for alpha >= 1e-4 (0.05 % if the first look has 3 seeds), to 3 % for alpha >= 1e-7."""

MAX_SEEDS_LOOKS = 200
"""Up to this many seeds the series approximates q; at some hundreds of seeds q is too steep for it."""

BISECTIONS = 50

SMALLEST_ALPHA = 1e-8
"""Smallest repeated p value; smaller ones are not resolved."""

_ANGLES = np.pi * (2 * np.arange(TERMS) + 1) / (4 * TERMS)
_POINTS = np.cos(_ANGLES)  # (M,) the positive zeros of the Chebyshev polynomial of degree 2 M
_FIT = np.linalg.inv(np.cos(2 * np.outer(_ANGLES, np.arange(TERMS)))).T  # (M, M) values there -> even series
_X, _WEIGHTS = np.polynomial.legendre.leggauss(NODES)  # (N,) on -1..1


@dataclass(frozen=True)
class _Continuing:
    """Distribution of the paths that no look has stopped, after `n` seeds: |r| is below `bound`, shape (A, 1).

    `series`, shape (A, M), is q as an even Chebyshev series in x, where r = bound sin(x pi / 2). At the bound q behaves
    like a square root of the distance in r, and is smooth in x.
    """

    n: int
    bound: Array
    series: Array

    def q(self, x: Array) -> Array:
        """q at `x`, shape (A, ...), by Clenshaw's recurrence."""
        terms = self.series.T.reshape(TERMS, len(x), *[1] * (x.ndim - 1))
        twice = 2 * (2 * np.square(x) - 1)
        b1, b2 = np.zeros_like(x), np.zeros_like(x)
        for term in terms[:0:-1]:
            b1, b2 = term + twice * b1 - b2, b1
        return np.asarray(terms[0] + twice / 2 * b1 - b2)


@lru_cache(maxsize=256)
def nominal_levels(looks: tuple[int, ...], alpha: float = 0.05) -> tuple[float, ...]:
    """Nominal two-sided levels of a paired t test at each look: stop if p is at or below the level.

    For many seeds these are the levels for normal statistics.

    Args:
        looks: numbers of seeds, increasing, from 2 to 200; the last is the number of planned seeds.
        alpha: overall two-sided level, in (0, 1) (default 0.05).

    Raises:
        ValueError: if `looks` or `alpha` is out of range.
    """
    check_looks(looks)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    return tuple(float(level) for level in levels_that_spend(looks, alpha * _shares(looks))[0])


def overall_p(looks: tuple[int, ...], look: int, p: float) -> float:
    """Smallest overall alpha at which a nominal `p` at a look reaches the boundary.

    It is interpolated in a table that is computed once per plan, accurate to 0.3 % from 1e-4 on. It is at least 1e-8,
    and 1 if even alpha = 1 does not spend enough by this look.

    Args:
        looks: as in `nominal_levels`.
        look: number of the look, from 0.
        p: nominal two-sided p at this look.
    """
    alphas, levels = _table(looks)
    at_look = levels[:, look]
    if p > at_look[-1]:
        return 1.0
    if p <= at_look[0]:
        return SMALLEST_ALPHA
    return min(1.0, float(p * np.exp(np.interp(np.log(p), np.log(at_look), np.log(alphas / at_look)))))


@lru_cache(maxsize=64)
def _table(looks: tuple[int, ...]) -> tuple[Vector, Array]:
    """Alphas, shape (A,), and the nominal levels of each look, shape (A, K), increasing with alpha."""
    alphas = np.concatenate((np.geomspace(SMALLEST_ALPHA, 0.1, 36), np.linspace(0.1, 1, 29)[1:]))
    return alphas, np.maximum.accumulate(levels_that_spend(looks, alphas[:, None] * _shares(looks)), axis=0)


def check_looks(looks: tuple[int, ...]) -> None:
    """Raise ValueError unless `looks` are increasing numbers of seeds from 2 to 200."""
    if not looks or looks[0] < 2 or looks[-1] > MAX_SEEDS_LOOKS or list(looks) != sorted(set(looks)):
        raise ValueError(f"looks must be increasing numbers of seeds from 2 to {MAX_SEEDS_LOOKS}, not {looks}")


def _shares(looks: tuple[int, ...]) -> Array:
    """Shares of alpha that may be spent by each look."""
    return np.square(np.array([looks]) / looks[-1])  # (1, K)


def levels_that_spend(looks: tuple[int, ...], spent: Array) -> Array:
    """Nominal levels, shape (A, K), at which the paths stopped by each look have probability `spent`, shape (A, K)."""
    share = np.diff(spent, axis=1, prepend=0.0)
    levels = share.copy()  # at the first look the level of an ordinary t test
    n = looks[0]
    bound = np.sqrt(1 - betaincinv((n - 1) / 2, 0.5, share[:, :1]))
    paths = _Continuing(n, bound, np.eye(1, TERMS).repeat(len(share), axis=0))  # q = 1
    for k, until in enumerate(looks[1:], 1):
        while paths.n < until:
            paths = _add_seed(paths)
        edge = _edge(paths, share[:, k, None])
        bound = paths.bound * np.sin(edge * np.pi / 2)
        levels[:, k] = betainc((until - 1) / 2, 0.5, 1 - np.square(bound))[:, 0]
        if until < looks[-1]:
            inside = np.arcsin(bound * np.sin(_POINTS * np.pi / 2) / paths.bound) / (np.pi / 2)
            paths = _Continuing(until, bound, paths.q(inside) @ _FIT)
    return levels


def _add_seed(paths: _Continuing) -> _Continuing:
    """q after one more seed, where r' = bound' sin(x pi / 2) at the points x.

    s is the new difference divided by the length of all differences. Given r', the paths within `bound` are those with
    s between two roots; between these, s = middle + half sin(psi).
    """
    n, bound = paths.n, paths.bound
    wider = np.sqrt((1 + n * bound**2) / (n + 1))  # (A, 1)
    r_new = wider * np.sin(_POINTS * np.pi / 2)  # (A, M)
    middle = r_new / ((n + 1) ** 0.5 * wider**2)
    half = bound * np.cos(_POINTS * np.pi / 2) * (n / (n + 1)) ** 0.5 / wider
    psi = _X * np.pi / 2
    s = middle[:, :, None] + half[:, :, None] * np.sin(psi)  # (A, M, N)
    r = ((n + 1) ** 0.5 * r_new[:, :, None] - s) / np.sqrt(n * (1 - s**2))
    x = np.arcsin(np.clip(r / bound[:, :, None], -1, 1)) / (np.pi / 2)
    across = 1 - np.square(r_new[:, :, None])
    width = np.sqrt(n / (n + 1) * across)
    density = ((1 - s**2) * (1 - r**2) / across) ** ((n - 3) / 2) / (beta(0.5, (n - 1) / 2) * width)
    q = (paths.q(x) * density * half[:, :, None] * np.cos(psi) * _WEIGHTS).sum(axis=2) * np.pi / 2
    return _Continuing(n + 1, wider, q @ _FIT)


def _edge(paths: _Continuing, share: Array) -> Array:
    """The x, shape (A, 1), beyond which the paths have probability `share`, shape (A, 1), by bisection."""
    low, high = np.zeros_like(share), np.ones_like(share)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        x = middle + (1 - middle) * (_X + 1) / 2  # (A, N)
        r = paths.bound * np.sin(x * np.pi / 2)
        slope = paths.bound * np.cos(x * np.pi / 2) * np.pi / 2 * (1 - middle) / 2
        density = (1 - r**2) ** ((paths.n - 3) / 2) / beta(0.5, (paths.n - 1) / 2)
        beyond = 2 * (paths.q(x) * density * slope * _WEIGHTS).sum(axis=1, keepdims=True)
        low, high = np.where(beyond > share, middle, low), np.where(beyond > share, high, middle)
    return high
