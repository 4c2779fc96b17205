"""Bodies of requests as JSON, from the values that programs compute with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from kotrain.errors import InvalidValue


def encode(body: Mapping[str, Any]) -> bytes:
    """The body as JSON: numbers and arrays of numpy and torch, decimals, paths, times and models become plain values.

    NaN and Infinity are written as such; the server's error then names the field. Raises InvalidValue with the field
    for anything else.
    """
    return json.dumps(_plain(body, "")).encode()


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {_key(name, place): _plain(item, f"{place}/{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}/{number}") for number, item in enumerate(value)]
    if isinstance(value, Decimal) and not value.is_snan():
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, PurePath | UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if callable(to_list := getattr(value, "tolist", None)) and type(plain := to_list()) is not type(value):
        return _plain(plain, place)  # of numpy and torch; of a scalar, the number
    raise InvalidValue(
        place or "/", f"a value of type {type(value).__name__} cannot be sent as JSON; use a number, a text or a list"
    )


def _key(name: Any, place: str) -> str:
    if not isinstance(name, str):
        raise InvalidValue(place or "/", f"the name of a field must be a text, not {name!r}")
    return name
