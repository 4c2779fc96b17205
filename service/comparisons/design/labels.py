"""Names of groups: the family of an optimizer, and just the parameters that tell it apart from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

GroupBy = Literal["optimizer", "model", "schedule", "batch_size", "precision"]


def labels(values: Sequence[Any], group_by: GroupBy) -> list[str]:
    """A unique label for each of the different values: its family, then just the parameters that tell it apart.

    A parameter is shown where members of the same family differ in it; the learning rate wherever any two groups do.
    The labels depend on the set of values, not on their order.
    """
    if group_by in ("batch_size", "precision"):
        return [f"{group_by}={value}" for value in values]
    shown = [_telling(value, values) for value in values]
    for number in ("{:.4g}", "{!r}"):
        found = [
            " ".join([optimizer_family(value), *(f"{name}={_text(value['params'][name], number)}" for name in names)])
            for value, names in zip(values, shown, strict=True)
        ]
        if len(set(found)) == len(found):
            break
    return found


def optimizer_family(value: Mapping[str, Any]) -> str:
    """The name without parameters; of KO also its collision and its base, of a control that: `noise (adam)`."""
    params = value["params"]
    if "base" not in params:
        return str(value["name"])
    if "control" in params:
        return f"{params['control']} ({params['base']})"
    form = "bounded" if params.get("collision") == "soft" and params.get("bounded") else params.get("collision", "")
    return f"{value['name']} {form}".strip() + f" ({params['base']})"


def _telling(value: Mapping[str, Any], values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters of `value` that its label has to show."""
    relatives = [other["params"] for other in values if optimizer_family(other) == optimizer_family(value)]
    strangers = [other["params"] for other in values]
    return [
        name
        for name, own in value["params"].items()
        if any(other.get(name) != own for other in (strangers if name == "lr" else relatives))
    ]


def _text(value: Any, number: str) -> str:
    return number.format(value) if isinstance(value, float) else json.dumps(value).strip('"')


def flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A nested object as dotted path -> value; lists stay values."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{path}{name}.") if isinstance(inner, Mapping) else {f"{path}{name}": inner}
    return found
