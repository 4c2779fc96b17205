"""Labels of groups: the family of an optimizer, and the parameters that distinguish it from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service.specs.optimizer_family import optimizer_family

GroupBy = Literal["optimizer", "model", "schedule", "batch_size", "precision"]


def labels(values: Sequence[Any], group_by: GroupBy) -> list[str]:
    """A unique label for each distinct value: its family, then the parameters that distinguish it.

    A parameter is shown if members of the family differ in it; the learning rate if any two values differ in it. Labels
    depend on the set of values, not on their order.
    """
    if group_by in ("batch_size", "precision"):
        return [f"{group_by}={value}" for value in values]
    shown = [_distinguishing(value, values) for value in values]
    for number in ("{:.4g}", "{!r}"):
        texts = [
            " ".join([optimizer_family(value), *(f"{name}={_text(value['params'][name], number)}" for name in names)])
            for value, names in zip(values, shown, strict=True)
        ]
        if len(set(texts)) == len(texts):
            break
    return texts


def _distinguishing(value: Mapping[str, Any], values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that the label of `value` shows."""
    everyone = [other["params"] for other in values]
    family = [other["params"] for other in values if optimizer_family(other) == optimizer_family(value)]
    return [
        name
        for name, param in value["params"].items()
        if any(params.get(name) != param for params in (everyone if name == "lr" else family))
    ]


def _text(value: Any, number: str) -> str:
    return number.format(value) if isinstance(value, float) else json.dumps(value).strip('"')


def flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A nested object as dotted path -> value; lists stay values."""
    paths: dict[str, Any] = {}
    for name, inner in value.items():
        paths |= flat(inner, f"{path}{name}.") if isinstance(inner, Mapping) else {f"{path}{name}": inner}
    return paths
