"""Base of everything in a spec."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Kind = Literal["image", "text", "table"]
"""Kind of data that a data set holds and a model reads."""


class Frozen(BaseModel):
    """Base of everything in a spec: immutable, strictly typed, without unknown fields, NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def unfit(field: str, message: str) -> PydanticCustomError:
    """The validation error of fields that contradict each other; `field` is the one to change."""
    return PydanticCustomError("unfit", message, {"field": field})
