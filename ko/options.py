"""What a parameter group may say of its collisions, and what it may not."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ko.sharding import is_flattened

COLLISIONS = ("soft", "hard", "none")
STRENGTHS = ("gamma", "rate")
OPTIONS = ("collision", *STRENGTHS, "bounded", "group_size", "row_dim", "blocks", "skip_idle", "foreach")
CLOCK = ("collision_seed", "collision_step")
"""What decides random numbers; one for the whole optimizer, but kept in every group, where state dicts look."""

FLATTENED = "FullyShardedDataParallel has flattened a parameter, so KO cannot find its neurons; use fully_shard (FSDP2)"

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
            _check_tensor(name, value, where)
        elif not callable(value):
            _check_strength(name, value, where)
    for name in ("bounded", "skip_idle"):
        if not isinstance(options.get(name, False), bool):
            raise ValueError(f"{name}{where}: expected True or False, not {options[name]!r}")
    if not isinstance(options.get("foreach"), bool | None):
        raise ValueError(f"foreach{where}: expected True, False or None, not {options['foreach']!r}")
    if options.get("group_size") is not None:
        _check_integer("group_size", options["group_size"], 2, where)
    for name, least in (("row_dim", 0), ("blocks", 1), ("collision_seed", 0), ("collision_step", 0)):
        _check_integer(name, options.get(name, least), least, where)


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same with our options as Python's own numbers, which a state dict can hold and load."""
    found = dict(options)
    for name in ("group_size", "row_dim", "blocks"):
        if found.get(name) is not None:
            found[name] = int(found[name])
    for name in STRENGTHS:
        if isinstance(found.get(name), Real):
            found[name] = float(found[name])
    return found


def check_names(names: Iterable[str], known: Collection[str], where: str = "") -> None:
    """Refuse names that nobody knows and that look like one of ours: torch takes any, and an optimizer with `**kwargs`.

    Raises:
        ValueError: with the name that was probably meant.
    """
    for name in names:
        if name in ("seed", "base") and where:
            raise ValueError(f"{name}{where}: an optimizer has one for all its groups; give it to KO itself")
        meant = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.75)
        if meant and name not in known and name not in OPTIONS:
            raise ValueError(f"{name}{where}: no such option; did you mean {meant[0]!r}?")


def check_functions(options: Mapping[str, Any], where: str = "") -> None:
    """Refuse strengths that are functions of something else than a number of steps, by trying them.

    Raises:
        ValueError: with the option's name and what the function said.
    """
    for name in STRENGTHS:
        value = options.get(name)
        if callable(value) and not isinstance(value, Tensor):
            try:
                answer = value(0)
            except Exception as error:
                raise ValueError(f"{name}{where}: expected a function of the number of steps, but {error}") from error
            _check_strength(name, answer, where)


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
            raise ValueError(f'params{where}: {FLATTENED}, or collision="none" for this group')
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
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name}{where}: expected a finite number >= 0, not {value!r}")


def _check_tensor(name: str, value: Tensor, where: str) -> None:
    if value.ndim or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name}{where}: expected one real number, not a {value.dtype} of shape {tuple(value.shape)}")
    if value.device.type == "cpu":  # a GPU is not made to wait
        _check_strength(name, float(value), where)


def _check_integer(name: str, value: Any, least: int, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}{where}: expected an integer >= {least}, not {value!r}")
