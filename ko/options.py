"""Options of KO in a parameter group: their names, their checks, and the strength of a collision in this step."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ko.distributed import is_flattened

COLLISIONS = ("soft", "hard", "none")
STRENGTHS = ("gamma", "rate")
OPTIONS = ("collision", *STRENGTHS, "bounded", "group_size", "row_dim", "blocks", "skip_idle", "foreach")
RNG_STATE = ("collision_seed", "collision_step")
"""State of the random numbers. It is the same in every group, and is kept there because state dicts save groups."""

FLATTENED = "FullyShardedDataParallel has flattened a parameter, so KO cannot find its rows; use fully_shard (FSDP2)"

Strength = float | Tensor | Callable[[int], float]
"""A number, a 0-d tensor, or a function of the number of completed steps, such as `ko.Fade`."""


def check_options(options: Mapping[str, Any], where: str = "") -> None:
    """Check the ranges of the options that are present.

    Args:
        options: option -> value.
        where: appended to the option's name in the message, for example " of parameter group 1".

    Raises:
        ValueError: if an option is out of range; the message names it, the expected range and the value.
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


def with_python_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the numeric options of KO as int and float, which `torch.load(weights_only=True)` can load."""
    copy = dict(options)
    for name in ("group_size", "row_dim", "blocks"):
        if copy.get(name) is not None:
            copy[name] = int(copy[name])
    for name in STRENGTHS:
        if isinstance(copy.get(name), Real):
            copy[name] = float(copy[name])
    return copy


def check_names(names: Iterable[str], known: Collection[str], where: str = "") -> None:
    """Check for misspelt options of KO, which torch and optimizers with `**kwargs` would accept silently.

    Args:
        names: names of options.
        known: names that are right.
        where: as in `check_options`.

    Raises:
        ValueError: if an unknown name resembles an option of KO, which the message suggests. In a group it is a
            warning: other libraries keep their own names there.
    """
    for name in names:
        close = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.75)
        if close and name not in known and name not in OPTIONS:
            message = f"{name}{where}: unknown option; did you mean {close[0]!r}?"
            if not where:
                raise ValueError(message)
            warnings.warn(message, stacklevel=4)


def check_same(name: str, value: Any, own: Any, where: str) -> None:
    """Check that a group sets `base` or `seed` to the value that the optimizer has for all groups, if at all.

    Raises:
        ValueError: if the values differ.
    """
    if value is not own and value != own:
        raise ValueError(f"{name}{where}: an optimizer has one {name} for all groups; pass it to KO itself")


def check_schedules(options: Mapping[str, Any], where: str = "") -> None:
    """Call strengths that are functions with step 0, to check that they take a number of steps and return a strength.

    Raises:
        ValueError: if the call fails or returns a value out of range; the message names the option.
    """
    for name in STRENGTHS:
        value = options.get(name)
        if callable(value) and not isinstance(value, Tensor):
            try:
                result = value(0)
            except Exception as error:
                raise ValueError(
                    f"{name}{where}: expected a function of the number of completed steps; it raised: {error}"
                ) from error
            _check_strength(name, result, where)


def check_shapes(group: Mapping[str, Any], where: str) -> None:
    """Check that the rows of every parameter of a group can be found.

    Raises:
        ValueError: if a parameter is flattened (FSDP1), or if `row_dim` or `blocks` do not fit its shape.
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
            raise ValueError(f"row_dim{where}: {row_dim} is not a dimension of a parameter of shape {tuple(p.shape)}")
        if p.shape[0] % blocks:
            raise ValueError(f"blocks{where}: shape {tuple(p.shape)} cannot be split into {blocks} equal matrices")


def draws_numbers(group: Mapping[str, Any]) -> bool:
    """Whether the collisions of a group are random: hard collisions, and random groups of soft ones."""
    return group["collision"] == "hard" or (group["collision"] == "soft" and group["group_size"] is not None)


def current_strength(group: Mapping[str, Any], name: str, number: int | None = None) -> float | Tensor:
    """gamma or rate of a group in this step.

    Args:
        group: the parameter group.
        name: "gamma" or "rate".
        number: position of the group, for the message.

    Raises:
        ValueError: if the value of a schedule is out of range.
    """
    value = group[name]
    if isinstance(value, Tensor):
        return value
    if callable(value):
        value = value(group["collision_step"])
    _check_strength(name, value, "" if number is None else f" of parameter group {number}")
    return float(value)


def collision_strength(group: Mapping[str, Any], number: int) -> Tensor | None:
    """gamma or rate of a group in this step, whichever its collision uses, as a 0-d tensor; None if nothing collides.

    Raises:
        ValueError: if the value of a schedule is out of range.
    """
    if group["collision"] == "none":
        return None
    value = current_strength(group, "rate" if group["collision"] == "hard" else "gamma", number)
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64, device="cpu") if value else None


def _check_strength(name: str, value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name}{where}: expected a finite number >= 0, not {value!r}")


def _check_tensor(name: str, value: Tensor, where: str) -> None:
    if value.ndim or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name}{where}: expected one real number, not a {value.dtype} of shape {tuple(value.shape)}")
    if value.device.type == "cpu":  # reading a value from a GPU would synchronize it
        _check_strength(name, float(value), where)


def _check_integer(name: str, value: Any, least: int, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}{where}: expected an integer >= {least}, not {value!r}")
