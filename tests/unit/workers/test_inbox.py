"""The inbox of a supervisor: frames that arrive together, in pieces, or after an invalid one."""

import os
import threading
from multiprocessing import Pipe

import msgspec
import pytest

from workers import inbox
from workers.inbox import Inbox
from workers.messages import InvalidMessage, Note, Points, Ready, send


@pytest.fixture
def ends():
    ours, theirs = Pipe()
    yield Inbox(ours), theirs
    ours.close()
    theirs.close()


def test_messages_before_an_invalid_one_are_returned_and_the_error_stays(ends):
    box, theirs = ends
    send(theirs, Ready())
    send(theirs, Note("before"))
    many = {f"x{number}": [[1], [0.5], [0.1]] for number in range(inbox.MAX_METRICS + 1)}
    data = msgspec.msgpack.encode({"kind": "Points", "step": 1, "points": many})
    sender = threading.Thread(target=theirs.send_bytes, args=(data,))  # larger than the pipe
    sender.start()
    received = []

    def receive_all():
        while True:
            received.extend(box.receive())

    with pytest.raises(InvalidMessage, match="more than 10,000 metrics"):
        receive_all()
    sender.join()
    assert received == [Ready(), Note("before")]
    with pytest.raises(InvalidMessage, match="more than 10,000 metrics"):
        box.receive()


def test_message_in_pieces_is_returned_once_it_is_complete(ends):
    box, theirs = ends
    data = msgspec.msgpack.encode({"kind": "Note", "text": "x"})
    frame = len(data).to_bytes(4, "big") + data
    for byte in frame[:-1]:
        os.write(theirs.fileno(), bytes([byte]))
        assert box.receive() == []
    os.write(theirs.fileno(), frame[-1:])
    assert box.receive() == [Note("x")]
    assert box.receive() == []


def test_at_most_a_hundred_messages_are_returned_at_once(ends):
    box, theirs = ends
    for step in range(250):
        send(theirs, Points(step, {}))
    assert [len(box.receive()) for _ in range(4)] == [100, 100, 50, 0]


def test_end_of_the_stream_returns_nothing(ends):
    box, theirs = ends
    theirs.close()
    assert box.receive() == []
