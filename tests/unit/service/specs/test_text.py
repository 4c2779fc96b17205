"""Counts and lists in sentences."""

import pytest

from service.specs import text


@pytest.mark.parametrize(("n", "expected"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1000, "1,000 runs")])
def test_counts(n: int, expected: str) -> None:
    assert text.counted(n, "run") == expected
    assert text.agreeing(n, "is", "are") == ("is" if n == 1 else "are")


@pytest.mark.parametrize(
    ("names", "all_names", "short"),
    [
        ("", "", ""),
        ("a", "a", "a"),
        ("ab", "a and b", "a and b"),
        ("abcd", "a, b, c and d", "a, b, c and d"),
        ("abcde", "a, b, c, d and e", "a, b, c and 2 more"),
    ],
)
def test_lists_names(names: str, all_names: str, short: str) -> None:
    assert text.listed(list(names)) == all_names
    assert text.briefly_listed(tuple(names)) == short


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Adam", " (did you mean 'adam'?)"), ("adma", " (did you mean 'adam'?)"), ("soap", ""), ("x" * 90, "")],
)
def test_unknown_name_has_a_suggestion_if_one_is_close(name, hint):
    assert text.unknown_name("optimizer", name, ["adam", "ko"]) == (
        f"unknown optimizer '{name[:64]}'{hint}; choose one of adam, ko"
    )
