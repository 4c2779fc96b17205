"""Patterns of strings in requests, and their error messages."""

import re

import pytest

from service.app import create_app
from service.specs.patterns import LABEL, PRINTABLE, STORABLE, TAG, TAG_KEY, VISIBLE, WORDS


def patterns_in(node):
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from patterns_in(child)


def test_every_pattern_has_an_error_message():
    patterns = set(patterns_in(create_app().openapi()))
    assert {LABEL, TAG, PRINTABLE, STORABLE} <= patterns  # the search visits all schemas
    assert patterns <= set(WORDS)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (LABEL, ["a", "lab:x", "a b", "\u00e4", "x" * 64], ["", "<b>", "a\n", "x" * 65, "a,b"]),
        (TAG_KEY, ["a", "a/b@c+d=e-f.g_h"], ["a:b", "", "a\x00"]),
        (TAG, ["a:b", "a:b:c"], ["a", ":b", "a:"]),
        (PRINTABLE, ["", "\u65e5\u672c <b>"], ["a\nb", "\x00", "\ufffe"]),
        (STORABLE, ["", "a\nb"], ["\x00"]),
        (VISIBLE, ["a-1~"], ["", "a b", "\u00e4"]),
    ],
)
def test_patterns_match(pattern, matching, others):
    assert all(re.search(pattern.replace("$", r"\Z"), text) for text in matching)
    assert not any(re.search(pattern.replace("$", r"\Z"), text) for text in others)
