"""Search spaces of tuned parameters, and the quasi-random points in them.

A point's coordinate depends on the parameter's name alone: optimizers that share a parameter try the same values of it,
whatever else they have to tune.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from service.specs.base import Frozen, unfit

MOST_FLOAT, MOST_INTEGER = 1e100, 2**53
"""Largest ends of ranges, far from where arithmetic with them overflows."""

_End = Annotated[float, Field(ge=-MOST_FLOAT, le=MOST_FLOAT)]
_Whole = Annotated[int, Field(ge=-MOST_INTEGER, le=MOST_INTEGER)]
Ends = Annotated[tuple[_End, _End], Field(strict=False)]
Wholes = Annotated[tuple[_Whole, _Whole], Field(strict=False)]

FORMS = ("log_uniform", "uniform", "integer", "choice")

SIGNIFICANT_DIGITS = 4
"""Of a tried value: enough to be as good as any other, short enough to read and to be tried again by somebody else."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
MOST_PARAMETERS = len(_PRIMES)


class Range(Frozen):
    """The values of one parameter: exactly one of the forms."""

    log_uniform: Ends | None = Field(None, description="Lowest and highest value, evenly in the logarithm.")
    uniform: Ends | None = Field(None, description="Lowest and highest value.")
    integer: Wholes | None = Field(None, description="Lowest and highest.")
    choice: list[Any] | None = Field(None, min_length=1, max_length=64, description="One of these.")

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if not isinstance(value, dict | Range):
            raise ValueError('write {"log_uniform": [0.001, 0.1]}')
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(
                'give exactly one of log_uniform, uniform, integer and choice, such as {"log_uniform": [0.0001, 0.1]}'
            )
        if self.choice is None:
            low, high = getattr(self, given[0])
            if not low < high:
                raise ValueError(f"the lowest value comes first, and they differ: {low:g} is not below {high:g}")
            if self.log_uniform is not None and low <= 0:
                raise ValueError(f"a logarithmic range has to be above 0, and {low:g} is not")
        for index, value in enumerate(self.choice or ()):
            if any(_is_same(value, other) for other in (self.choice or ())[:index]):
                raise unfit("choice", f"{json.dumps(value)} is there more than once: list each value once")
        return self

    def at(self, share: float) -> Any:
        """The value at a share of the way through the range, in [0, 1)."""
        if self.choice is not None:
            return self.choice[int(share * len(self.choice))]
        if self.integer is not None:
            low, high = self.integer
            return low + int(share * (high - low + 1))
        if self.uniform is not None:
            return _rounded(self.uniform[0] + share * (self.uniform[1] - self.uniform[0]))
        assert self.log_uniform is not None
        low_log, high_log = (math.log(end) for end in self.log_uniform)
        return _rounded(math.exp(low_log + share * (high_log - low_log)))

    @property
    def extremes(self) -> list[Any]:
        """Values that show whether all are allowed: both ends, or every choice."""
        return self.choice if self.choice is not None else list(self.log_uniform or self.uniform or self.integer or ())


Space = dict[str, Range]
"""Parameter name -> its values."""


def points(space: Mapping[str, Range], names: Sequence[str], trials: int, seed: int) -> list[dict[str, Any]]:
    """`trials` different points of a Halton sequence, shifted by `seed` (Cranley and Patterson 1976).

    `names` are the parameters of all spaces of a comparison, in an order that gives each its own dimension. Points that
    were there already, as happens with few choices or a range that is narrower than the digits kept, are passed over:
    the same trial twice would be one trial less than the others get. There are fewer than `trials` where the first
    `16 * trials` points are no more than these.
    """
    dimensions = [
        (name, values, _PRIMES[names.index(name)], random.Random(f"{seed}:{name}").random())
        for name, values in space.items()
    ]
    most = min(16 * trials, _size(space))
    found: dict[str, dict[str, Any]] = {}
    for index in range(1, 16 * trials + 1):
        point = {
            name: values.at((radical_inverse(index, base) + shift) % 1.0) for name, values, base, shift in dimensions
        }
        found.setdefault(json.dumps(point, sort_keys=True), point)
        if len(found) == min(trials, most):
            break
    return list(found.values())


def _size(space: Mapping[str, Range]) -> float:
    """How many different points there can be; without end where a range is continuous."""
    sizes = [
        len(one.choice) if one.choice else one.integer[1] - one.integer[0] + 1 if one.integer else math.inf
        for one in space.values()
    ]
    return math.prod(sizes)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two choices are one value: 0.001 and 1e-3 are, true and 1 are not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def grid(space: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Every combination of choices; all ranges have to be choices."""
    values = [one.choice or [] for one in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in product(*values)]


def dimensions(spaces: Iterable[Mapping[str, Range]]) -> list[str]:
    """All tuned parameters: the learning rate, which every optimizer has, in the most even dimension."""
    return sorted({name for space in spaces for name in space}, key=lambda name: (name != "lr", name))


def radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point (Halton 1960): in (0, 1) for index >= 1."""
    share, digit = 0.0, 1.0 / base
    while index:
        index, remainder = divmod(index, base)
        share += remainder * digit
        digit /= base
    return share


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
