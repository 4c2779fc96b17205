"""What processes do that a supervisor has to end: targets of `workers.process.Process`."""

import ctypes
import mmap
import os
import pickle
import struct
import time

import msgspec

from workers import messages

SIZE = 300 * 2**20


def eat(pipe):
    """Allocate half here and half in another process, in mappings that no resource limit counts."""
    os.setsid()
    if os.fork() == 0:
        _touch()
    _touch()


def _touch():
    memory = mmap.mmap(-1, SIZE // 2)
    memory.write(b"x" * (SIZE // 2))
    time.sleep(1000)


def hang(pipe):
    os.setsid()
    messages.send(pipe, messages.Note("last words"))
    ctypes.PyDLL(None).sleep(1000)  # native code that holds the interpreter


def abort(pipe):
    """Fail in C++, which ends the process: `operator new` throws std::bad_alloc, which nobody catches."""
    os.setsid()
    ctypes.CDLL("libstdc++.so.6")._Znwm(ctypes.c_size_t(2**60))


def end(pipe):
    os.setsid()
    os._exit(7)


def send_half(pipe):
    os.setsid()
    messages.send(pipe, messages.Note("last words"))
    os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half")
    time.sleep(1000)


class Hostile:
    """Its pickle writes a file when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch " + os.environ["HOSTILE_FILE"],)


INVALID = {
    "pickle": lambda: pickle.dumps(Hostile()),
    "not a message": lambda: b"garbage",
    "empty": lambda: b"",
    "unknown kind": lambda: encode({"kind": "Command", "text": "x"}),
    "unknown field": lambda: encode({"kind": "Note", "text": "x", "more": 1}),
    "long text": lambda: encode({"kind": "Note", "text": "x" * 10**6}),
    "path": lambda: encode(
        {"kind": "Checkpoint", "step": 1, "file": "../1.pt", "size_bytes": 5, "sha256": "x", "seconds": 0.1}
    ),
    "negative step": lambda: encode({"kind": "Points", "step": -1, "points": {}}),
    "huge step": lambda: encode({"kind": "Points", "step": 2**63, "points": {}}),
    "columns": lambda: encode({"kind": "Points", "step": 1, "points": {"loss": [[1, 2], [0.5], [0.1, 0.2]]}}),
    "name": lambda: encode({"kind": "Points", "step": 1, "points": {"x" * 129: [[1], [0.5], [0.1]]}}),
    "line break": lambda: encode({"kind": "Points", "step": 1, "points": {"x" + chr(10): [[1], [0.5], [0.1]]}}),
    "NUL": lambda: encode({"kind": "Points", "step": 1, "points": {"x" + chr(0): [[1], [0.5], [0.1]]}}),
    "no points": lambda: encode({"kind": "Points", "step": 1, "points": {"x": [[], [], []]}}),
    "backwards": lambda: encode({"kind": "Points", "step": 1, "points": {"x": [[2, 1], [0.5, 0.5], [0.1, 0.1]]}}),
    "no time": lambda: encode({"kind": "Points", "step": 1, "points": {"x": [[1], [0.5], [float("nan")]]}}),
    "endless time": lambda: encode({"kind": "Points", "step": 1, "points": {"x": [[1], [0.5], [float("inf")]]}}),
    "many metrics": lambda: encode(
        {"kind": "Points", "step": 1, "points": {f"x{number}": [[1], [0.5], [0.1]] for number in range(10_001)}}
    ),
    "bomb": lambda: encode(
        {
            "kind": "Started",
            "environment": {str(n): {} for n in range(10**5)},
            "total_steps": 1,
            "step": 0,
            "reported": [],
            "seconds": 0.0,
        }
    ),
    "engine": lambda: encode({"kind": "NoEngine", "text": "x"}),
    "completed": lambda: encode({"kind": "Failure", "reason": "completed", "text": "x"}),
    "deep": lambda: bytes([0x91]) * 10**6,
    "reason": lambda: encode({"kind": "Failure", "reason": "no such reason", "text": "x"}),
    "summary": lambda: encode({"kind": "Result", "summary": {"reason": "completed"}}),
}


def encode(value):
    return msgspec.msgpack.encode(value)


def send_invalid(pipe, kind):
    os.setsid()
    messages.send(pipe, messages.Ready())
    messages.send(pipe, messages.Note("last words"))
    pipe.send_bytes(INVALID[kind]())
    time.sleep(1000)


def send_long(pipe):
    """Announce a message that is longer than allowed."""
    os.setsid()
    os.write(pipe.fileno(), struct.pack("!i", -1) + struct.pack("!Q", 2**40))
    time.sleep(1000)


def flood(pipe):
    os.setsid()
    while True:
        messages.send(pipe, messages.Points(1, {}))


def send_notes(pipe):
    os.setsid()
    while True:
        messages.send(pipe, messages.Note("last words"))


def send_points(pipe, spread):
    """Send points without end, of one metric or spread over many."""
    os.setsid()
    messages.send(pipe, messages.Note("last words"))
    step = 0
    while True:
        step += 1
        name = f"x{step % 5000}" if spread else "x"
        steps = list(range(100 * step, 100 * step + 100))
        messages.send(pipe, messages.Points(step, {name: (steps, [0.5] * 100, [0.1] * 100)}))


def measure(pipe, assignment):
    """Take a second, or very long with a batch size of 1, whatever the supervisor asks for."""
    os.setsid()
    time.sleep(1000 if assignment.spec.get("batch_size") == 1 else 1)
    messages.send(pipe, messages.Measured({"test_accuracy": 0.5}, {"host": "lab"}))


TESTS = {
    "killed": lambda pipe: os.kill(os.getpid(), 9),
    "disk": lambda pipe: messages.send(pipe, messages.Failure("child_lost", "Traceback: OSError: no space")),
    "unable": lambda pipe: messages.send(pipe, messages.Unable("it cannot isolate uploaded code")),
    "aborted": lambda pipe: os.kill(os.getpid(), 6),
    "error": lambda pipe: messages.send(pipe, messages.Failure("error", "ValueError: mine")),
}


def end_test(pipe, task):
    os.setsid()
    TESTS[task.code](pipe)


def drip(pipe):
    """Send a byte now and then, which never become a message."""
    os.setsid()
    os.write(pipe.fileno(), struct.pack("!i", 1000))
    while True:
        time.sleep(0.2)
        os.write(pipe.fileno(), b"x")


def save(pipe, path, stays):
    """Write a checkpoint, and continue until a request to stop, or end immediately."""
    os.setsid()
    with open(path, "wb") as file:
        file.write(b"state")
    messages.send(pipe, messages.Checkpoint(1, "1.pt", 5, "0" * 64, 0.1))
    if stays:
        pipe.recv_bytes()
