"""Search spaces of tuned hyperparameters."""

from __future__ import annotations

import json
import math
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

MAX_PARAMETERS = 10
"""Maximum number of hyperparameters that an optimizer tunes."""


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


def _is_same(a: Any, b: Any) -> bool:
    """Whether two choices are the same value: 0.001 and 1e-3 are, true and 1 are not."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
