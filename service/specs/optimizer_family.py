"""The family of an optimizer: its name in tables and verdicts, without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def optimizer_family(optimizer: Mapping[str, Any]) -> str:
    """The family of an optimizer `{name, params}` of a resolved spec.

    It is the optimizer's name; for KO with the form of the collision and the base, `ko soft (adam)`; for a control the
    control and the base, `noise (adam)`.
    """
    params = optimizer["params"]
    if "base" not in params:
        return str(optimizer["name"])
    if "control" in params:
        return f"{params['control']} ({params['base']})"
    form = "bounded" if params.get("collision") == "soft" and params.get("bounded") else params.get("collision", "")
    return f"{optimizer['name']} {form}".strip() + f" ({params['base']})"
