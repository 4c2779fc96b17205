"""Which p of a t test stops at which look, so that all looks together err at alpha: exact, also for few seeds.

By a share t of the planned seeds, alpha t^2 may be spent (Lan & DeMets 1983, Biometrika 70; Kim & DeMets 1987). The
usual normal scores (Armitage, McPherson & Rowe 1969) would err at 5.2 % with looks at 5, 10 and 20 seeds, and at 5.7 %
with a look at each of 5 to 10, because t statistics of few seeds hang together less than normal scores. This is the
same recursion for t statistics (Jennison & Turnbull 1991, Biometrika 78), in a form of one dimension:

    r_n = t_n / sqrt(t_n^2 + n - 1)    cosine of the angle between the first n differences and (1, ..., 1)
    q_n(r) = P(no look so far crossed its boundary | r_n = r)

Without a difference the length of a normal vector is independent of its direction (Basu 1955). So q_{n+1}(r') is the
mean of q_n(r_n) over what the last seed can have been, and the boundary at a look leaves the right mass outside.

Shapes: A alphas, K looks, M Chebyshev terms and as many points, N quadrature nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import beta, betainc, betaincinv

from service.stats.values import Vector

Array = NDArray[np.float64]

TERMS, NODES = 32, 64
"""Levels are within 0.3 % for alpha from 1e-4 on (0.05 % where the first look has 3 seeds), within 3 % from 1e-7 on."""

MOST_SEEDS = 200
"""Up to here the series follows q; at some hundreds of seeds it has become too steep for it, and no level is right."""

HALVINGS = 50

SMALLEST_ALPHA = 1e-8
"""Repeated p values are not resolved below."""

_ANGLES = np.pi * (2 * np.arange(TERMS) + 1) / (4 * TERMS)
_POINTS = np.cos(_ANGLES)  # (M,) the positive zeros of the Chebyshev polynomial of degree 2 M
_FIT = np.linalg.inv(np.cos(2 * np.outer(_ANGLES, np.arange(TERMS)))).T  # (M, M) values there -> even series
_X, _WEIGHTS = np.polynomial.legendre.leggauss(NODES)  # (N,) on -1..1


@dataclass(frozen=True)
class _Open:
    """The paths that no look has stopped, after `n` seeds: their |r| is below `bound`, shape (A, 1).

    `series`, shape (A, M), is q as an even Chebyshev series in x, where r = bound sin(x pi / 2): the root that q has
    at the bound is smooth in x.
    """

    n: int
    bound: Array
    series: Array

    def q(self, x: Array) -> Array:
        """Clenshaw's sum at `x`, shape (A, ...)."""
        terms = self.series.T.reshape(TERMS, len(x), *[1] * (x.ndim - 1))
        twice = 2 * (2 * np.square(x) - 1)
        one, two = np.zeros_like(x), np.zeros_like(x)
        for term in terms[:0:-1]:
            one, two = term + twice * one - two, one
        return np.asarray(terms[0] + twice / 2 * one - two)


@lru_cache(maxsize=256)
def nominal_levels(looks: tuple[int, ...], alpha: float = 0.05) -> tuple[float, ...]:
    """Two-sided nominal p of a paired t test at or below which to stop at each look, at overall two-sided `alpha`.

    `looks`: numbers of seeds, rising from 2 to 200 at most; the last is all that are planned. Raises ValueError for
    other looks and for an alpha outside (0, 1). For many seeds these are the levels of normal scores.
    """
    check_looks(looks)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
    return tuple(float(level) for level in levels_that_spend(looks, alpha * _shares(looks))[0])


def overall_p(looks: tuple[int, ...], look: int, p: float) -> float:
    """The smallest overall alpha at which a nominal `p` at look number `look` (from 0) reaches the boundary.

    Interpolated in a table that is made once for each plan, to within 0.3 % from 1e-4 on. Not below 1e-8, and 1 where
    even alpha = 1 would not spend as much by this look.
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
    """Alphas, shape (A,), and the nominal levels of each look, shape (A, K), rising with alpha."""
    alphas = np.concatenate((np.geomspace(SMALLEST_ALPHA, 0.1, 36), np.linspace(0.1, 1, 29)[1:]))
    return alphas, np.maximum.accumulate(levels_that_spend(looks, alphas[:, None] * _shares(looks)), axis=0)


def check_looks(looks: tuple[int, ...]) -> None:
    """Raises ValueError unless `looks` are rising numbers of seeds, from 2 to 200 at most."""
    if not looks or looks[0] < 2 or looks[-1] > MOST_SEEDS or list(looks) != sorted(set(looks)):
        raise ValueError(f"looks are rising numbers of seeds from 2 to {MOST_SEEDS} at most, unlike {looks}")


def _shares(looks: tuple[int, ...]) -> Array:
    return np.square(np.array([looks]) / looks[-1])  # (1, K)


def levels_that_spend(looks: tuple[int, ...], spent: Array) -> Array:
    """Nominal levels, shape (A, K), with which the paths stopped by each look have probability `spent`, (A, K)."""
    share = np.diff(spent, axis=1, prepend=0.0)
    levels = share.copy()  # the first look is an ordinary t test
    n = looks[0]
    bound = np.sqrt(1 - betaincinv((n - 1) / 2, 0.5, share[:, :1]))
    paths = _Open(n, bound, np.eye(1, TERMS).repeat(len(share), axis=0))  # q = 1
    for k, until in enumerate(looks[1:], 1):
        while paths.n < until:
            paths = _add_seed(paths)
        edge = _edge(paths, share[:, k, None])
        bound = paths.bound * np.sin(edge * np.pi / 2)
        levels[:, k] = betainc((until - 1) / 2, 0.5, 1 - np.square(bound))[:, 0]
        if until < looks[-1]:
            inside = np.arcsin(bound * np.sin(_POINTS * np.pi / 2) / paths.bound) / (np.pi / 2)
            paths = _Open(until, bound, paths.q(inside) @ _FIT)
    return levels


def _add_seed(paths: _Open) -> _Open:
    """q after one more seed: r' = bound' sin(x pi / 2) at the points x, and s the new difference's share of the length.

    Given r', the paths within `bound` are those with s between two roots; in between, s = middle + half sin(psi).
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
    return _Open(n + 1, wider, q @ _FIT)


def _edge(paths: _Open, share: Array) -> Array:
    """The x, shape (A, 1), beyond which paths of probability `share`, shape (A, 1), are: by bisection."""
    low, high = np.zeros_like(share), np.ones_like(share)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        x = middle + (1 - middle) * (_X + 1) / 2  # (A, N)
        r = paths.bound * np.sin(x * np.pi / 2)
        slope = paths.bound * np.cos(x * np.pi / 2) * np.pi / 2 * (1 - middle) / 2
        density = (1 - r**2) ** ((paths.n - 3) / 2) / beta(0.5, (paths.n - 1) / 2)
        beyond = 2 * (paths.q(x) * density * slope * _WEIGHTS).sum(axis=1, keepdims=True)
        low, high = np.where(beyond > share, middle, low), np.where(beyond > share, high, middle)
    return high
