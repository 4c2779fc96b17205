"""Sentences from docstrings."""

from __future__ import annotations

import re


def first_sentence(text: str) -> str:
    """The first sentence of a text, without its period."""
    return re.split(r"\.(?:\s+(?=[A-Z])|\s*$)", " ".join(text.split()), maxsplit=1)[0].rstrip(".:")


def parameter_texts(text: str) -> dict[str, str]:
    """Parameter -> the first sentence about it in a docstring."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {2,}(\w+)\s*(?:\([^\n]*\))?\s*:\s*((?:[^\n]+\n?)(?:^ {6,}[^\n]+\n?)*)", text, re.M):
        name, words = match[1], " ".join(match[2].split())
        found.setdefault(name, first_sentence(re.split(r"\s*\(default", words, maxsplit=1)[0])[:160])
    return found
