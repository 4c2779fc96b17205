"""Cursors as ids of events: round trips, invalid ids, and rewinding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.streams.cursor import MAX_NAME, MAX_SEQ, MAX_STEP, JobCursor, ManyCursor

job_cursors = st.builds(
    JobCursor,
    st.integers(0, MAX_SEQ),
    st.integers(-1, MAX_STEP),
    st.frozensets(st.integers(0, MAX_NAME), max_size=5),
)
many_cursors = st.builds(ManyCursor, st.integers(0, MAX_SEQ), st.integers(0, 10**9))


@given(job_cursors)
def test_job_cursor_round_trip(cursor):
    assert JobCursor.parse(str(cursor)) == cursor


@given(many_cursors)
def test_many_cursor_round_trip(cursor):
    assert ManyCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.2", "1.2.3.4", "\u0661.2.",
        "1.2.3-", "1.2.-3", "1.-2.", "-1.2.", "1.2.x", "a.b.c", " 1.2.", "1.2.\n", "1.+2.",
        f"{MAX_SEQ + 1}.0.", f"0.{MAX_STEP + 1}.", f"0.0.{MAX_NAME + 1}", "9" * 20 + ".0.",
    ],
)  # fmt: skip
def test_invalid_job_cursor_is_none(text):
    assert JobCursor.parse(text) is None


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.2.3", "-1.0", "1.-1", "x.y", f"{MAX_SEQ + 1}.0", "1.0\n"])
def test_invalid_many_cursor_is_none(text):
    assert ManyCursor.parse(text) is None


def test_text_of_cursors():
    assert str(JobCursor()) == "0.-1."
    assert str(JobCursor(3, 10, frozenset({7, 2}))) == "3.10.2-7"
    assert str(ManyCursor(812)) == "812.0"


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (JobCursor(1, 10, frozenset({1})), 11, JobCursor(1, 10, frozenset({1}))),  # no sent point is invalid
        (JobCursor(1, 10, frozenset({1})), 10, JobCursor(1, 10)),  # all points of the step are sent again
        (JobCursor(1, 10, frozenset({1})), 4, JobCursor(1, 4)),
        (JobCursor(1, 10, frozenset({1})), 0, JobCursor(1, 0)),
        (JobCursor(), 0, JobCursor()),
    ],
)
def test_rewinds_cursor(before, step, after):
    assert before.rewound(step) == after
