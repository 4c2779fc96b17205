"""Answers to synthetic comparisons equal the stored files; `python -m tests.golden.answers --write` rewrites these."""

import pytest

from tests.golden.answers.files import FOLDER, MAKERS, stored_names


@pytest.mark.parametrize("name", MAKERS)
def test_answer_equals_stored_file(name):
    assert MAKERS[name]() == (FOLDER / name).read_bytes().decode()


def test_stored_files_and_makers_are_the_same():
    assert stored_names() == MAKERS.keys()
