"""Search spaces of tuned parameters, and the quasi-random points in them.

A point's coordinate depends on the parameter's name alone: optimizers that share a parameter try the same values of it,
whatever else they have to tune.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from service.catalog import Frozen

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
    """`trials` points of a Halton sequence, shifted by `seed` (Cranley and Patterson 1976).

    `names` are the parameters of all spaces of a comparison, in an order that gives each its own dimension.
    """
    found: list[dict[str, Any]] = [{} for _ in range(trials)]
    for name, values in space.items():
        base = _PRIMES[names.index(name)]
        shift = random.Random(f"{seed}:{name}").random()
        for index, point in enumerate(found):
            point[name] = values.at((radical_inverse(index + 1, base) + shift) % 1.0)
    return found


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
