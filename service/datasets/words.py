"""The words of a text, as models read them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from service.datasets.names import JOINERS

_LINE_BREAK = re.compile(r"<br\s*/?>")
_MARK_BLOCKS = (range(0x300, 0x1F000), range(0xE0100, 0xE01F0))
"""Where Unicode has combining marks."""


def split_words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, digits and underscores with their marks and joiners.

    HTML line breaks separate words. Letters are composed (Unicode's form NFC).
    """
    words: list[str] = _word().findall(unicodedata.normalize("NFC", _LINE_BREAK.sub(" ", text).lower()))
    return words


@cache
def _word() -> re.Pattern[str]:
    """`\\w` has no combining marks, without which words of Hindi, Thai or vocalized Arabic fall apart."""
    marks = "".join(
        chr(code) for block in _MARK_BLOCKS for code in block if unicodedata.category(chr(code)).startswith("M")
    )
    inside = rf"[\w{re.escape(marks)}]"
    return re.compile(rf"\w(?:{inside}|[{JOINERS}](?={inside}))*")
