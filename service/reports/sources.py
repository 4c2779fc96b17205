"""The appendix of a report: the source of the uploaded code that its runs use.

Sources are hostile text: what a browser, a terminal or TeX would not show as it is stored is shown as an escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from service.code import versions
from service.comparisons.answers import ComparisonAnswer

MAX_CHARACTERS = 2**16
"""Characters of a source that a report shows; the files of PyTorch's optimizers have at most 40,000."""
MAX_CHARACTERS_IN_ALL = 2**18
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that count as printable, but show nothing; some of them can be names in Python."""
TAB_WIDTH = 8
"""As Python counts the columns of an indentation."""


@dataclass(frozen=True)
class UploadedFile:
    """A version of uploaded code, as it is stored."""

    version: str
    """Its full name, such as `ada/mine@3f2a9c71`."""
    sha256: str
    file: str
    created_at: datetime
    source: str


@dataclass(frozen=True)
class Excerpt:
    """What a report shows of a source."""

    of: UploadedFile
    name: str
    """Of the file."""
    lines: Sequence[str]
    """Name and lines have no characters that are invisible, or that change the text around them."""
    remark: str
    """What is left out, and where the whole is; empty if nothing is."""


def used_by(session: Session, answer: ComparisonAnswer) -> list[UploadedFile]:
    """The uploaded code in the plan of a comparison, in its order."""
    names = dict.fromkeys(
        name
        for optimizer in answer.plan.optimizers
        for name in versions.names_in_trials(optimizer["name"], optimizer["trials"])
    )
    rows = versions.named(session, list(names))
    return [UploadedFile(row.version, row.sha256, row.file, row.created_at, row.source) for row in rows]


def excerpts(files: Iterable[UploadedFile]) -> list[Excerpt]:
    """The beginning of each source, within the limits of a report."""
    left, found = MAX_CHARACTERS_IN_ALL, []
    for file in files:
        excerpt = _excerpt(file, min(left, MAX_CHARACTERS))
        left -= sum(len(line) + 1 for line in excerpt.lines)
        found.append(excerpt)
    return found


def _excerpt(file: UploadedFile, limit: int) -> Excerpt:
    lines = re.split("\r\n|[\r\n]", file.source)
    shown, used = [], 0
    for line in map(_visible, lines):
        if used + len(line) + 1 > limit:
            break
        shown.append(line)
        used += len(line) + 1
    is_whole = len(shown) == len(lines)
    if is_whole and not shown[-1]:  # behind the last line break
        shown.pop()
    where = f"GET /v1/code/{file.version} has the whole file"
    remark = "" if is_whole else f"{len(shown):,} of {len(lines):,} lines are shown; {where}."
    return Excerpt(file, _visible(file.file), shown, remark)


def _visible(line: str) -> str:
    """The line with escapes such as `\\u202e` for all that is not printed as a character of its own."""
    return "".join(
        character.encode("unicode_escape").decode()
        if not character.isprintable() or _INVISIBLE.match(character)
        else character
        for character in line.expandtabs(TAB_WIDTH)
    )
