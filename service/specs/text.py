"""Counts and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def many(n: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n} {noun}{'s' * (n != 1)}"


def listed(names: Sequence[str], most: int | None = 4, word: str = "and") -> str:
    """`a, b and c`; with more than `most` names, `a, b, c and 3 more`."""
    shown = list(names)
    if most is not None and len(shown) > most:
        shown = [*shown[: most - 1], f"{len(names) - most + 1} more"]
    return f" {word} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
