"""Words of texts in several scripts."""

import pytest

from service.datasets.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat<br /><br />sat, 2 times_a day!", ["the", "cat", "sat", "2", "times_a", "day"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("مَرْحَبًا بالعالم", ["مَرْحَبًا", "بالعالم"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("cafe\u0301 CAF\u00c9", ["caf\u00e9", "caf\u00e9"]),
        ("\u2764\ufe0f \u0301 !", []),
        ("日本語 123", ["日本語", "123"]),
        ("it\u2019s", ["it", "s"]),
        ("\u09b0\u200d\u09cd\u09af\u09be\u09ac", ["\u09b0\u200d\u09cd\u09af\u09be\u09ac"]),
    ],
)
def test_splits_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words
