"""Quasi-random points of search spaces.

A coordinate of a point depends only on the parameter's name, so that optimizers that share a parameter try the same
values of it, regardless of their other parameters.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from service.specs.search_space import MAX_PARAMETERS, Range

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
assert len(_PRIMES) == MAX_PARAMETERS


def points(space: Mapping[str, Range], names: Sequence[str], trials: int, seed: int) -> list[dict[str, Any]]:
    """`trials` different points of a Halton sequence, shifted by `seed` (Cranley and Patterson 1976).

    `names` are the parameters of all spaces of a comparison; their order assigns a dimension to each. Repeated points,
    which occur with few choices or a range narrower than the rounding, are skipped, so that every optimizer gets the
    same number of different trials. Fewer than `trials` are returned if the first `16 * trials` points contain fewer.
    """
    dimensions = [
        (name, values, _PRIMES[names.index(name)], random.Random(f"{seed}:{name}").random())
        for name, values in space.items()
    ]
    max_distinct = min(16 * trials, _size(space))
    distinct: dict[str, dict[str, Any]] = {}
    for index in range(1, 16 * trials + 1):
        point = {
            name: values.at((radical_inverse(index, base) + shift) % 1.0) for name, values, base, shift in dimensions
        }
        distinct.setdefault(json.dumps(point, sort_keys=True), point)
        if len(distinct) == min(trials, max_distinct):
            break
    return list(distinct.values())


def _size(space: Mapping[str, Range]) -> float:
    """Number of different points; infinite if a range is continuous."""
    sizes = [
        len(values.choice)
        if values.choice
        else values.integer[1] - values.integer[0] + 1
        if values.integer
        else math.inf
        for values in space.values()
    ]
    return math.prod(sizes)


def grid(space: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Every combination of choices; all ranges have to be choices."""
    choices = [values.choice or [] for values in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in product(*choices)]


def dimensions(spaces: Iterable[Mapping[str, Range]]) -> list[str]:
    """All tuned parameters; the learning rate comes first, since the first dimension is the most even."""
    return sorted({name for space in spaces for name in space}, key=lambda name: (name != "lr", name))


def radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point (Halton 1960): in (0, 1) for index >= 1."""
    share, digit = 0.0, 1.0 / base
    while index:
        index, remainder = divmod(index, base)
        share += remainder * digit
        digit /= base
    return share
