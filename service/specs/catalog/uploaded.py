"""Optimizers that users upload, by names such as `ada/mine@3f2a9c71`: owner, name and version.

Those of plug-ins have names of the same form: package, name and version. Declarations of versions never change and are
kept. Where they come from differs: `service.code.versions` reads those of uploaded files from the database, a training
process receives them with its job, and `service.code.plugins` reads those of plug-ins from installed packages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticCustomError

from service.specs.base import unfit
from service.specs.catalog.declaration import Declaration
from service.specs.catalog.libraries import is_of_library
from service.specs.catalog.optimizer_params import WRAPPER_PARAMS
from service.specs.patterns import UPLOADED_NAME
from service.specs.text import agreeing, listed

_KNOWN: dict[str, Declaration] = {}
"""Full name -> declaration of a version."""
MAX_KNOWN = 10_000

Find = Callable[[str], Declaration | None]
Explain = Callable[[str], str | None]
_find: list[Find] = []
_explain: list[Explain] = []

REQUESTED: ContextVar[Mapping[str, Declaration]] = ContextVar("REQUESTED", default=MappingProxyType({}))
"""Names in the body of the current request -> the versions that they mean.

They are looked up before the body is validated in the event loop, which must not wait for the database.
"""


def is_uploaded(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME or OWNER/NAME@VERSION, and is not that of a library's optimizer."""
    return re.fullmatch(UPLOADED_NAME, name) is not None and not is_of_library(name)


def names_in(optimizer: Mapping[str, Any]) -> list[str]:
    """The uploaded versions and the plug-ins that the optimizer `{name, params}` of a resolved spec uses."""
    name, base = optimizer["name"], optimizer["params"].get("base")
    names = [name] if "/" in name else [base]  # a declared optimizer may have a parameter `base` of its own
    return [name for name in names if isinstance(name, str) and is_uploaded(name)]


def provide(find: Find, explain: Explain | None = None) -> None:
    """Add a function that looks up names which are not known yet, and one that says why a name is unknown."""
    if find not in _find:
        _find.append(find)
    if explain is not None:
        _explain.append(explain)


def remember(declared: Declaration) -> None:
    """Keep the declaration of a version."""
    _KNOWN[declared.name] = declared
    if len(_KNOWN) > MAX_KNOWN:
        del _KNOWN[next(iter(_KNOWN))]


def forget() -> None:
    """Forget all declarations; they are looked up again."""
    _KNOWN.clear()


def declaration(name: str, field: str = "name") -> Declaration:
    """The declaration of a version; of the newest one for a name without a version.

    Args:
        name: such as `ada/mine` or `ada/mine@3f2a9c71`.
        field: the field of the request that has the name, for the error.

    Raises:
        PydanticCustomError: the name is unknown, or the plug-in is refused; the message says why.
    """
    declared = REQUESTED.get().get(name) or _KNOWN.get(name)
    if declared is None and not _is_in_event_loop():
        declared = next((found for find in _find if (found := find(name)) is not None), None)
        if declared is not None:
            remember(declared)
    if declared is None:
        raise unfit(field, next((why for explain in _explain if (why := explain(name)) is not None), _unknown(name)))
    if declared.refusal is not None:
        raise unfit(field, f"{name} cannot be used: {declared.refusal}")
    return declared


def why_unusable(name: str) -> str | None:
    """The error of `declaration`; None if it returns one."""
    try:
        declaration(name)
    except PydanticCustomError as error:
        return error.message()
    return None


def _unknown(name: str) -> str:
    lists = "GET /v1/code lists those that were uploaded, GET /v1/catalog those of plug-ins"
    return f"unknown optimizer '{name[:64]}'; {lists}"


def shared_names(declared: Declaration, wrapper: str) -> list[str]:
    """The parameters of an optimizer whose names are those of parameters of `wrapper`; none for a library's.

    On that wrapper, jobs could not set them. Of libraries, which cannot be changed, the documentation says so.
    """
    if not is_uploaded(declared.name):
        return []
    return [parameter.name for parameter in declared.parameters if parameter.name in WRAPPER_PARAMS[wrapper]]


def check_names(declared: Declaration, wrapper: str) -> None:
    """Raise PydanticCustomError for an optimizer that cannot be the base of `wrapper` because of `shared_names`."""
    if names := shared_names(declared, wrapper):
        what = f"{agreeing(len(names), 'parameter', 'parameters')} {listed(names)}"
        raise unfit(
            "base",
            f"{declared.name} cannot be the base of {wrapper}, which has {what} of its own: rename "
            f"{agreeing(len(names), 'it', 'them')} in the code",
        )


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
