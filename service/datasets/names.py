"""Names of files, classes and columns: one form of each, and those that operating systems add."""

from __future__ import annotations

import re
import unicodedata

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner, which are letters' neighbors in Persian, Hindi and others."""
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
        *("@eadir", "#recycle", "#snapshot", "lost+found"),  # network storage, Linux
    }
)


def composed(name: str) -> str:
    """The name with composed letters (Unicode's form NFC): macOS and others decompose them."""
    return unicodedata.normalize("NFC", name)


def is_printable(name: str) -> bool:
    """Whether a name has letters, digits, marks, signs, spaces and joiners only: no control or direction characters."""
    return all(
        character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs" for character in name
    )


def confusable_key(name: str) -> str:
    """A key that is equal for names which a reader cannot easily tell apart."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(rf"[{JOINERS}]", "", " ".join(plain.split()))


def is_system_file(name: str) -> bool:
    """Whether a file or folder is hidden, or added by an operating system."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES
