"""Answers of made-up comparisons, byte for byte as they were; `tests/golden/answers` says how to write them anew."""

import pytest

from tests.golden.answers.files import FOLDER, MAKERS, stored_names


@pytest.mark.parametrize("name", MAKERS)
def test_the_answer_is_as_it_was(name):
    assert MAKERS[name]() == (FOLDER / name).read_bytes().decode()


def test_every_file_has_its_maker():
    assert stored_names() == MAKERS.keys()
