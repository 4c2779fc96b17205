"""The process that reads uploaded files, taken over by one: its time, its memory, its files and its answer."""

import pytest

from service.code import reader
from service.errors import Invalid

PROGRAM = """
import socket, sys, time
from pathlib import Path
from service.code import reader

def fail(*_):
    raise MemoryError

reader.SECONDS = 0.5
{before}
reader.confine()
{after}
"""
TAKEN_OVER = {
    "processor": ("while True: pass", "takes more than 10 s of CPU time to read"),
    "memory": ("x = bytearray(2**31)", "its parser ended with status 1"),
    "answer": ("while True: print('x' * 10**6)", "its parser ended with status 1"),
    "file": ("Path('/tmp/kotrain-own').write_text('x')", "its parser ended with status 1"),
    "secret": ("print(Path('/etc/passwd').read_text())", "its parser ended with status 1"),
    "no answer": ("pass", "ended with status 0 and no answer"),
    "list": ("print('[]')", "ended with status 0 and no answer"),
    "other name": ("""print('{"name": "bob/theirs@00000000"}')""", "ended with status 0 and no answer"),
    "other fields": ("""print('{"name": "ada/mine@00000000", "more": 1}')""", "its parser gave an invalid answer"),
    "crash": ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
}


@pytest.mark.parametrize("kind", TAKEN_OVER)
def test_process_that_is_taken_over_refuses_its_file(kind, monkeypatch):
    attempt, message = TAKEN_OVER[kind]
    monkeypatch.setattr(reader, "_PROGRAM", ("-P", "-c", PROGRAM.format(before="", after=attempt)))
    with pytest.raises(Invalid, match=r"mine\.py .*; make it shorter") as refusal:
        reader.declare("mine.py", b"x = 1", "ada/mine@00000000")
    assert message in refusal.value.detail


def test_process_that_waits_refuses_its_file(monkeypatch):
    monkeypatch.setattr(reader, "WALL_SECONDS", 1.0)
    monkeypatch.setattr(reader, "_PROGRAM", ("-P", "-c", "import time; time.sleep(100)"))
    with pytest.raises(Invalid, match="takes more than 1 s to read"):
        reader.declare("mine.py", b"x = 1", "ada/mine@00000000")


def test_file_that_takes_too_much_memory_is_refused(monkeypatch):
    program = PROGRAM.format(before="reader.Source.declare = fail", after="reader.main()")
    monkeypatch.setattr(reader, "_PROGRAM", ("-P", "-c", program))
    with pytest.raises(Invalid, match="takes more than 1 GiB of memory to read"):
        reader.declare("mine.py", b"x = 1", "ada/mine@00000000")
