"""Build the body of a submission from command line arguments."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from service.specs import json_text

CHOICES = ("dataset", "model", "optimizer", "schedule")
"""Fields of a spec that hold a name and parameters."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
"""Numbers as options such as --lr take them."""


def build(source: list[str], fields: dict[str, Any], params: Iterable[str], tags: Iterable[str]) -> dict[str, Any]:
    """The body for the source `FILE.json` (`-`: standard input) or `DATASET MODEL OPTIMIZER`, with options applied.

    `fields` are values by path (None: not given); `params` are `PATH=VALUE` and `tags` `KEY:VALUE`. They override
    the file's. Raises BadParameter, also if two arguments set the same field or tag.
    """
    given: set[str] = set()
    if len(source) == 1:
        spec = document(source[0], "give FILE.json, or DATASET MODEL OPTIMIZER")
    elif len(source) == 3:
        spec = dict(zip(("dataset", "model", "optimizer"), source, strict=True))
        given |= spec.keys()
    else:
        raise typer.BadParameter("give DATASET MODEL OPTIMIZER, or FILE.json")
    values = [(path, value) for path, value in fields.items() if value is not None]
    values += [(path, _value(text)) for path, text in map(_assigned, params)]
    for path, value in values:
        _give(given, full_path(path))
        put(spec, path, value)
    for key, value in map(_key_and_value, tags):
        _give(given, f"tags.{key}")
        spec["tags"] = {**spec.get("tags", {}), key: value}
    return spec


def _give(given: set[str], path: str) -> None:
    """Add a path to those set by arguments. Raises BadParameter if another argument sets it."""
    is_name = path in {f"{choice}.name" for choice in CHOICES}
    field = path.removesuffix(".name") if is_name else path
    if field in given or (not is_name and any(other.startswith(f"{field}.") for other in given)):
        raise typer.BadParameter(f"two arguments set '{path}'")
    given.add(field)


def full_path(path: str) -> str:
    """Expand `optimizer.gamma` to `optimizer.params.gamma`; other paths are returned unchanged."""
    first, *rest = path.split(".", 2)
    if first in CHOICES and rest and rest[0].partition("=")[0] not in ("name", "params"):
        return f"{first}.params.{path.removeprefix(first + '.')}"
    return path


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a path such as `optimizer.gamma`, `budget.steps` or `seed`, in place."""
    *outer, last = full_path(path).split(".")
    if outer and isinstance(name := spec.get(outer[0]), str):
        spec[outer[0]] = {"name": name}
    node = spec
    for part in outer:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise typer.BadParameter(f"cannot set '{path}': '{part}' is not an object")
    node[last] = value


def document(file: str, hint: str = "give FILE.json, or `-` for standard input") -> dict[str, Any]:
    """The JSON object in a file; `-` is standard input. Raises BadParameter, with `hint` if the file cannot be read."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        parsed = json_text.loads(content)  # UTF-8, 16 or 32, with or without a byte order mark, whatever the locale is
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; {hint}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8; save it in that encoding") from None
    except json_text.RepeatedKey as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter(f"{file} is not a JSON object")
    return parsed


def tag_filter(tag: str) -> str:
    """A tag of the command line in the API's form, `KEY:VALUE`. Raises BadParameter."""
    return ":".join(_key_and_value(tag))


def _key_and_value(tag: str) -> tuple[str, str]:
    """The parts of `KEY:VALUE`; `KEY=VALUE`, the form of older versions, is accepted too."""
    match = re.fullmatch(r"([^:=]+)[:=](.*)", tag)
    if match is None:
        raise typer.BadParameter(f"'{tag}' does not have the form KEY:VALUE")
    return match[1], match[2]


def _assigned(text: str) -> tuple[str, str]:
    path, separator, value = text.partition("=")
    if not (path and separator):
        raise typer.BadParameter(f"'{text}' does not have the form PATH=VALUE")
    return path, value


def _value(text: str) -> Any:
    """The text parsed as JSON (number, list, true), as a number in another form (.001, 1., +2), or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return float(text) if _NUMBER.fullmatch(text) else text
