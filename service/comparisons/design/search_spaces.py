"""Search spaces of tuned hyperparameters, and quasi-random points in them.

A coordinate of a point depends only on the parameter's name, so that optimizers that share a parameter try the same
values of it, regardless of their other parameters.
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

MAX_FLOAT, MAX_INTEGER = 1e100, 2**53
"""Maximum absolute values of the ends of ranges, so that arithmetic does not overflow."""

_End = Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)]
_Whole = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Ends = Annotated[tuple[_End, _End], Field(strict=False)]
Wholes = Annotated[tuple[_Whole, _Whole], Field(strict=False)]

FORMS = ("log_uniform", "uniform", "integer", "choice")

SIGNIFICANT_DIGITS = 4
"""Digits of a tried value: precise enough for tuning, and short enough to read and copy."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
MAX_PARAMETERS = len(_PRIMES)


class Range(Frozen):
    """The values of one hyperparameter, in exactly one of these forms."""

    log_uniform: Ends | None = Field(None, description="Lowest and highest value, uniform on a logarithmic scale.")
    uniform: Ends | None = Field(None, description="Lowest and highest value.")
    integer: Wholes | None = Field(None, description="Lowest and highest integer.")
    choice: list[Any] | None = Field(None, min_length=1, max_length=64, description="Values to choose from.")

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if not isinstance(value, dict | Range):
            raise ValueError('write {"log_uniform": [0.001, 0.1]}')
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [form for form in FORMS if getattr(self, form) is not None]
        if len(forms) != 1:
            raise ValueError(
                'give exactly one of log_uniform, uniform, integer and choice, such as {"log_uniform": [0.0001, 0.1]}'
            )
        if self.choice is None:
            low, high = getattr(self, forms[0])
            if not low < high:
                raise ValueError(f"the first value must be less than the second: {low:g} is not less than {high:g}")
            if self.log_uniform is not None and low <= 0:
                raise ValueError(f"a logarithmic range must be above 0, but starts at {low:g}")
        for index, value in enumerate(self.choice or ()):
            if any(_is_same(value, other) for other in (self.choice or ())[:index]):
                raise unfit("choice", f"{json.dumps(value)} is listed more than once")
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
        """Values that check whether the whole range is valid: both ends, or every choice."""
        return self.choice if self.choice is not None else list(self.log_uniform or self.uniform or self.integer or ())


Space = dict[str, Range]
"""Parameter name -> its values."""


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


def _is_same(a: Any, b: Any) -> bool:
    """Whether two choices are the same value: 0.001 and 1e-3 are, true and 1 are not."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


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


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
