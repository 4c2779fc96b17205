"""Counts and lists in sentences."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_NAMES = 4
"""Names in a shortened list."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The error for a name that is not known, with the one that may be meant."""
    options = list(known)
    close = closest(name, options)
    hint = f" (did you mean '{close}'?)" if close else ""
    return f"unknown {kind} '{name[:64]}'{hint}; choose one of {', '.join(options)}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`, regardless of case; None if none is similar."""
    by_lower = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), by_lower, 1)
    return by_lower[close[0]] if close else None


def counted(n: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,000 runs`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def agreeing(n: int, singular: str, plural: str) -> str:
    """The form of a verb or pronoun for `n` things: `singular` for one, else `plural`."""
    return singular if n == 1 else plural


def listed(names: Sequence[str], word: str = "and") -> str:
    """All names: `a, b and c`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def briefly_listed(names: Sequence[str]) -> str:
    """As `listed`, but with more than four names `a, b, c and 3 more`."""
    if len(names) <= MAX_NAMES:
        return listed(names)
    shown = names[: MAX_NAMES - 1]
    return listed([*shown, f"{len(names) - len(shown)} more"])
