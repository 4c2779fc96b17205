"""A supervisor and a process that misbehaves for real: its memory is weighed, its silence heard, its end awaited."""

import pytest

from tests.programs import said

MISBEHAVING = '''
import ctypes, mmap, os, time

SIZE = 300 * 2**20

def eat(pipe):
    """Half here and half in a process of its own, in mappings that no limit of ours counts."""
    os.setsid()
    if os.fork() == 0:
        _touch()
    _touch()

def _touch():
    kept = mmap.mmap(-1, SIZE // 2)
    kept.write(b"x" * (SIZE // 2))
    time.sleep(1000)

def hang(pipe):
    os.setsid()
    pipe.send(("note", "last words"))
    ctypes.PyDLL(None).sleep(1000)  # native code that holds the interpreter

def end(pipe):
    os.setsid()
    os._exit(7)
'''
PROGRAM = """
import json, logging, os, signal, sys, threading, time
from multiprocessing import forkserver
from types import SimpleNamespace
from uuid import uuid4
from service.attempts import Claim
from workers import supervisor
from workers.__main__ import scrub, start_forkserver
from workers.process import Process
from workers.relay import Track
import misbehaving

logging.getLogger("workers").addHandler(logging.NullHandler())
start_forkserver()
def watched(target, memory_bytes):
    claim = Claim(uuid4(), 1, {}, None, None, 0)
    process, track = Process(target), Track(claim)
    host = SimpleNamespace(draining=threading.Event())
    began = time.monotonic()
    ending = supervisor._Watch(process, claim, host, track, memory_bytes).to_the_end()
    return [ending.stop and ending.stop.name, ending.how, time.monotonic() - began,
            [note for batch in track.seal() for note in batch.notes]]

endings = [
    watched(misbehaving.eat, 250 * 2**20), watched(misbehaving.hang, 2**40), watched(misbehaving.end, 2**40),
]
# One in the kernel's uninterruptible sleep outlives its kill. Seen from here, so does one whose end nobody tells.
supervisor.UNKILLABLE_SECONDS = 2
teller = forkserver._forkserver._forkserver_pid
threading.Timer(1.5, os.kill, (teller, signal.SIGSTOP)).start()
endings.append(watched(misbehaving.hang, 2**40))
os.kill(teller, signal.SIGCONT)
print(json.dumps(endings))
"""
STALL_SECONDS = 3


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "misbehaving.py").write_text(MISBEHAVING)
    return said(PROGRAM, PYTHONPATH=str(folder), KOTRAIN_STALL_SECONDS=str(STALL_SECONDS))


def test_more_memory_than_its_limit_over_all_its_processes(endings):
    stop, how, *_ = endings[0]
    assert (stop, how) == ("MEMORY", "was killed by signal 9")


def test_silence_in_native_code_that_holds_the_interpreter(endings):
    stop, how, seconds, notes = endings[1]
    assert (stop, how, notes) == ("STALL", "was killed by signal 9", ["last words"])
    assert seconds >= STALL_SECONDS


def test_a_process_that_outlives_its_kill_is_not_waited_for(endings):
    stop, how, seconds, _ = endings[3]
    assert (stop, how) == ("STALL", "was killed and did not end within 2 s: it waits for a device or a disk")
    assert seconds >= STALL_SECONDS + 2


def test_an_end_without_a_word(endings):
    stop, how, *_ = endings[2]
    assert (stop, how) == (None, "ended with status 7 and no result")
