"""Translates pydantic's errors into JSON pointers into the request body, with messages for its author."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from service.errors import FieldError
from service.specs.catalog.base import DECLARED
from service.specs.catalog.datasets import OWN
from service.specs.patterns import WORDS
from service.specs.text import unknown_name

_EXAMPLES = defaultdict(lambda: "pytorch_optimizer/soap", model="timm/resnet18")
"""Kind of entry -> a name of a library's."""
_OTHER_MEMBERS = {DECLARED, *(f"{kind}/NAME" for kind in OWN)}
"""Members of unions that stand for many names."""


def field_error(error: Mapping[str, Any], body: Any) -> FieldError:
    """A pydantic error as a pointer into the submitted body and a message."""
    source, *location = error["loc"] or ("body",)
    if source != "body":
        return FieldError(".".join(str(part) for part in location) or str(source), _detail(error))
    path = _path_in(body, location)
    context = error.get("ctx", {})
    if error["type"].startswith("union_tag"):
        tag = "base" if path and path[-1] == "params" else "name"
        if isinstance(_at(body, path), dict):
            path = [*path, tag]
        return FieldError(pointer(path), _unknown_choice(path, tag, context))
    if error["type"] == "unfit":
        path = [*path, context["field"]]
    if error["type"] == "missing" and location and isinstance(location[-1], int):
        return FieldError(pointer(path), f"value {location[-1] + 1} is missing")
    return FieldError(pointer(path), _detail(error))


def field_errors(error: ValidationError, body: Any) -> list[FieldError]:
    """All errors of a body that was validated by our own code instead of FastAPI."""
    return [field_error({**details, "loc": ("body", *details["loc"])}, body) for details in error.errors()]


def _path_in(body: Any, location: Sequence[Any]) -> list[Any]:
    """Pydantic's location without the tags of union members, which do not occur in the body."""
    path: list[Any] = []
    node = body
    for index, part in enumerate(location):
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        )
        if inside:
            node = node[part]
            path.append(part)
        elif index == len(location) - 1 and isinstance(node, dict) and not _is_member(node, part):
            path.append(part)  # a missing field
    return path


def _is_member(node: dict[str, Any], part: Any) -> bool:
    return part in (node.get("name"), node.get("base", "adam")) or part in _OTHER_MEMBERS


def _at(body: Any, path: Sequence[Any]) -> Any:
    for part in path:
        body = body[part]
    return body


def pointer(path: Sequence[Any]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _unknown_choice(path: Sequence[Any], tag: str, context: dict[str, Any]) -> str:
    kind = next((part for part in reversed(path) if isinstance(part, str) and part != "name"), "choice")
    noun = kind if tag == "name" else "base optimizer"
    if "tag" not in context:
        return f"give the {noun} as a name, or as an object with '{tag}' and 'params'"
    known = re.findall(r"'([^']*)'", str(context["expected_tags"]))
    other = f", or one of a library, such as {_EXAMPLES[kind]}" if DECLARED in known else ""
    return unknown_name(noun, str(context["tag"]), [name for name in known if name != DECLARED]) + other


_LENGTHS = {"too_long": "must have at most", "too_short": "must have at least"}
_OBJECTS = {"dict_type", "model_type", "model_attributes_type"}


def _detail(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "missing":
        return "this field is required"
    if error["type"] in _LENGTHS:
        number = error["ctx"].get("max_length", error["ctx"].get("min_length"))
        return f"{_LENGTHS[error['type']]} {number} value{'s' * (number != 1)}"
    if error["type"] in _OBJECTS:
        return "input should be an object"
    if error["type"] == "tuple_type":
        return "input should be a list"
    if error["type"] == "string_pattern_mismatch":
        return WORDS.get(error["ctx"]["pattern"], message)
    return message[:1].lower() + message[1:]
