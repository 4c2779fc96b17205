"""Frames of any length are sent in pieces of a fixed size."""

from hypothesis import given
from hypothesis import strategies as st

from service.streams.response import PIECE_BYTES, pieces


@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=6), st.integers(0, 255))
def test_pieces_have_equal_size_and_add_up_to_the_frames(lengths, byte):
    frames = [bytes([(byte + number) % 256]) * length for number, length in enumerate(lengths)]
    sent = list(pieces(frames))
    assert b"".join(sent) == b"".join(frames)
    assert all(len(piece) == PIECE_BYTES for piece in sent[:-1])
    assert all(0 < len(piece) <= PIECE_BYTES for piece in sent)


def test_short_frames_are_sent_together():
    assert list(pieces([b"a", b"", b"bc"])) == [b"abc"]


def test_frames_are_consumed_lazily():
    frames = iter([bytes(PIECE_BYTES), b"next"])
    next(pieces(frames))
    assert next(frames) == b"next"
