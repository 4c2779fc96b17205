"""JSON whose objects repeat no key: other readers keep the last value and drop the others silently."""

from __future__ import annotations

import json
from typing import Any


class RepeatedKey(ValueError):
    """An object has a key twice; `pointer` is the JSON pointer (RFC 6901) of the field."""

    def __init__(self, pointer: str) -> None:
        super().__init__(f"{pointer} is given twice")
        self.pointer = pointer


class _Repeated(dict[str, Any]):
    """An object with the key `key` twice."""

    key: str


def loads(text: str | bytes) -> Any:
    """The parsed text. Raises ValueError and RecursionError as `json.loads`, and RepeatedKey."""
    has_repeated = False

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_repeated
        content = dict(pairs)
        if len(content) == len(pairs):
            return content
        has_repeated = True
        seen: set[str] = set()
        repeated = _Repeated(pairs)
        repeated.key = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        return repeated

    value = json.loads(text, object_pairs_hook=read)
    if has_repeated:
        raise RepeatedKey(_pointer(value))
    return value


def _pointer(value: Any) -> str:
    """The place of the first repeated key that is still reachable; others were in a value that was dropped."""
    open_: list[tuple[Any, str]] = [(value, "")]
    while open_:
        node, path = open_.pop()
        if isinstance(node, _Repeated):
            return f"{path}/{_escaped(node.key)}"
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        open_ += [(inner, f"{path}/{_escaped(str(name))}") for name, inner in items]
    raise AssertionError("an object that was dropped makes the one around it repeated")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
