"""The columns of a table: those that an upload reads, and errors about their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from service.datasets.uploads.npz import MAX_COLUMNS
from service.datasets.uploads.records import unfit
from service.errors import FieldError, Invalid

TEXT = "text"
"""The column of a text data set, besides its label."""
MAX_PROBLEMS = 20
"""Columns with a problem that an error lists."""


@dataclass(frozen=True)
class Columns:
    """The label column, those to leave out, and those to keep although they look like identifiers of rows."""

    label: str
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()


def refuse(problems: Sequence[str]) -> None:
    """Raise Invalid for problems with the contents of a file, if there are any."""
    if problems:
        listed = [*problems[:MAX_PROBLEMS], "more columns have problems"] if len(problems) > MAX_PROBLEMS else problems
        raise Invalid("; ".join(listed), tuple(FieldError("", problem) for problem in listed))


def refuse_choices(names: Sequence[str], label: str, choices: Mapping[str, set[str]]) -> None:
    """Raise Invalid for options that name a column which the file lacks, the label, or a column twice."""
    for option, chosen in choices.items():
        for name in sorted(chosen):
            if name not in names:
                raise Invalid.field(option, f"the file has no column '{name}'")
            if name == label:
                raise Invalid.field(option, f"'{name}' is the label column")
    both = sorted(set.intersection(*choices.values()))
    if both:
        raise Invalid.field("keep", f"column '{both[0]}' is also to be left out; choose one")


def refuse_names(names: Sequence[str], label: str, dropped: Set[str]) -> None:
    """Raise Invalid for unnamed, repeated or missing columns, besides those that are left out."""
    problems = [
        f"column {number} has no name; name it, or remove it if it is an index or if lines end with a comma"
        for number, name in enumerate(names, 1)
        if not name.strip() and name not in dropped
    ]
    names = [name for name in names if name not in dropped]
    repeated = [name for name, times in Counter(names).items() if times > 1 and name.strip()]
    problems += [f"two columns are named '{name[:100]}'; column names must be unique" for name in repeated]
    if label in names or len(names) == 1:
        refuse(problems)
    if label not in names:
        shown = ", ".join(f"'{name[:50]}'" for name in names[:10]) + (", ..." if len(names) > 10 else "")
        hint = f"; {_separator_hint(names[0])}" if len(names) == 1 else ""
        missing = FieldError("label", f"the file has no label column '{label}'; choose one of {shown}{hint}")
        errors = (*(FieldError("", problem) for problem in problems[:MAX_PROBLEMS]), missing)
        raise Invalid("; ".join(error.detail for error in errors), errors)
    if len(names) < 2:
        raise unfit(f"the file has no column besides '{label}'; it needs columns of numbers or a column '{TEXT}'")
    if len(names) - 1 > MAX_COLUMNS:
        raise unfit(f"the file has {len(names):,} columns; at most {MAX_COLUMNS:,} are allowed")


def _separator_hint(header: str) -> str:
    """What to do about a header line that is a single name."""
    for separator, name in (("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")):
        if separator in header:
            return f"the values are separated by {name}; separate them by commas"
    return "are the values separated by commas?"
