"""From what is typed to the body of a submission."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

CHOICES = ("dataset", "model", "optimizer", "schedule")
"""Parts of a spec that have a name and parameters."""


def body(what: list[str], fields: dict[str, Any], params: Iterable[str], tags: Iterable[str]) -> dict[str, Any]:
    """The body for `FILE.json` (`-`: standard input) or for `DATASET MODEL OPTIMIZER`, changed by what else is given.

    `fields` are whole fields (`batch_size`; None: not given), `params` read `PATH=VALUE` and `tags` `KEY=VALUE`.
    Raises BadParameter.
    """
    if len(what) == 1:
        spec = document(what[0], "give a FILE.json, or DATASET MODEL OPTIMIZER")
    elif len(what) == 3:
        spec = dict(zip(("dataset", "model", "optimizer"), what, strict=True))
    else:
        raise typer.BadParameter("give DATASET MODEL OPTIMIZER, or one FILE.json")
    spec |= {name: value for name, value in fields.items() if value is not None}
    for assignment in params:
        path, value = _split(assignment, "PATH=VALUE")
        put(spec, path, _value(value))
    if added := dict(_split(tag, "KEY=VALUE") for tag in tags):
        spec["tags"] = {**spec.get("tags", {}), **added}
    return spec


def full_path(path: str) -> str:
    """`optimizer.gamma` stands for `optimizer.params.gamma`; every other path for itself."""
    first, *rest = path.split(".", 2)
    if first in CHOICES and rest and rest[0].partition("=")[0] not in ("name", "params"):
        return f"{first}.params.{path.removeprefix(first + '.')}"
    return path


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set what a path like `optimizer.gamma`, `budget.steps` or `seed` names, in place."""
    *outer, last = full_path(path).split(".")
    if outer and isinstance(name := spec.get(outer[0]), str):
        spec[outer[0]] = {"name": name}
    node = spec
    for part in outer:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise typer.BadParameter(f"'{path}' leads through '{part}', which is not an object")
    node[last] = value


def document(file: str, instead: str = "give a FILE.json, or `-` for standard input") -> dict[str, Any]:
    """The JSON object in a file; `-` is standard input. Raises BadParameter, which says what to give `instead`."""
    try:
        found = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; {instead}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} is not a JSON object")
    return found


def _split(text: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise typer.BadParameter(f"'{text}' does not read {form}")
    return name, value


def _value(text: str) -> Any:
    """JSON where it is some (numbers, lists, true), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
