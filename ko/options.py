"""What a parameter group may say of its collisions, and what it may not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ko.sharding import is_flattened

COLLISIONS = ("soft", "hard", "none")
STRENGTHS = ("gamma", "rate")
OPTIONS = ("collision", *STRENGTHS, "bounded", "group_size", "row_dim", "blocks", "skip_idle", "foreach")
CLOCK = ("collision_seed", "collision_step")
"""What decides random numbers; one for the whole optimizer, but kept in every group, where state dicts look."""

Strength = float | Tensor | Callable[[int], float]
"""A number, a 0-d tensor, or a function of the number of steps done (`ko.Fade`)."""


def check(options: Mapping[str, Any], where: str = "") -> None:
    """Refuse options out of their range, by name; those that are not given are not looked at.

    Raises:
        ValueError: with the option's name, `where`, what is expected and what was found.
    """
    if "collision" in options and options["collision"] not in COLLISIONS:
        raise ValueError(f"collision{where}: {options['collision']!r} is not one of {', '.join(COLLISIONS)}")
    for name in STRENGTHS:
        value = options.get(name, 0)
        if isinstance(value, Tensor):
            if value.ndim or value.is_complex():
                raise ValueError(f"{name}{where}: expected one real number, not a tensor of {tuple(value.shape)}")
            value = float(value) if value.device.type == "cpu" else 0  # a GPU is not made to wait
        if not callable(value):
            _check_strength(name, value, where)
    for name in ("bounded", "skip_idle", "foreach"):
        if not isinstance(options.get(name, False), bool | (type(None) if name == "foreach" else bool)):
            raise ValueError(f"{name}{where}: expected True or False, not {options[name]!r}")
    for name, least in (("group_size", 2), ("row_dim", 0), ("blocks", 1)):
        value = options.get(name, least)
        if name == "group_size" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}{where}: expected an integer >= {least}, not {value!r}")


def check_tensors(group: Mapping[str, Any], where: str) -> None:
    """Refuse parameters in which the neurons cannot be found.

    Raises:
        ValueError: a flattened parameter, or `row_dim` or `blocks` that do not fit its shape.
    """
    if group["collision"] == "none":
        return
    row_dim, blocks = group["row_dim"], group["blocks"]
    for p in group["params"]:
        if is_flattened(p):
            raise ValueError(
                f"params{where}: FullyShardedDataParallel has flattened a parameter, so KO cannot find its neurons; "
                'use fully_shard (FSDP2), or collision="none" for this group'
            )
        if p.ndim < 2:
            continue
        if row_dim >= p.ndim:
            raise ValueError(f"row_dim{where}: {row_dim} is no dimension of a parameter of shape {tuple(p.shape)}")
        if p.shape[0] % blocks:
            raise ValueError(f"blocks{where}: shape {tuple(p.shape)} cannot be {blocks} matrices of equal height")


def strength(group: Mapping[str, Any], name: str, number: int | None = None) -> float | Tensor:
    """The group's gamma or rate in this step.

    Raises:
        ValueError: a function that answers with a number out of range.
    """
    value = group[name]
    if isinstance(value, Tensor):
        return value
    if callable(value):
        value = value(group["collision_step"])
    _check_strength(name, value, "" if number is None else f" of parameter group {number}")
    return float(value)


def force_of(group: Mapping[str, Any], number: int) -> Tensor | None:
    """What the group's collisions do in this step as a 0-d tensor, gamma or rate; None if that is nothing.

    Raises:
        ValueError: a function that answers with a number out of range.
    """
    if group["collision"] == "none":
        return None
    value = strength(group, "rate" if group["collision"] == "hard" else "gamma", number)
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64, device="cpu") if value else None


def _check_strength(name: str, value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name}{where}: expected a finite number >= 0, not {value!r}")
