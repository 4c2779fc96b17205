"""Hostile files: what each tries at its import, and how its job ends."""

from __future__ import annotations

from typing import NamedTuple

MODULE = '''"""A hostile file."""

import ctypes, os, signal, socket, subprocess, sys, threading, time
from pathlib import Path

from torch.optim import SGD

{attempt}


class Hostile(SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr)
'''
STEP = """
    def step(self, closure=None):
        {attempt}
"""


class Attack(NamedTuple):
    """What a file tries, and a part of the message with which its job fails."""

    attempt: str
    message: str
    at_step: bool = False

    @property
    def source(self) -> str:
        """The file."""
        if self.at_step:
            return MODULE.format(attempt="") + STEP.format(attempt=self.attempt.replace("\n", "\n        "))
        return MODULE.format(attempt=self.attempt)


DENIED = "PermissionError"

ATTACKS = {
    # files
    "read passwords": Attack("open('/etc/shadow').read()", DENIED),
    "read the accounts": Attack("open('/etc/passwd').read()", DENIED),
    "list the root": Attack("os.listdir('/')", DENIED),
    "list temporary files": Attack("os.listdir('/tmp')", DENIED),
    "read the home of kotrain": Attack("os.listdir('{home}')", DENIED),
    "read the key of the owner": Attack("open('{home}/key').read()", DENIED),
    "list the data sets": Attack("os.listdir('{home}/data')", DENIED),
    "write beside its folder": Attack("Path('{home}/files/mine').write_text('x')", DENIED),
    "overwrite a library": Attack("import torch; open(torch.__file__, 'a').write('x')", DENIED),
    "overwrite kotrain": Attack("open(sys.modules['workers'].__file__, 'a').write('x')", DENIED),
    "link to a file outside": Attack("os.symlink('/etc/shadow', '1.pt')", DENIED),
    "make a named pipe": Attack("os.mkfifo('1.pt')", DENIED),
    "write a huge file": Attack("os.truncate(os.open('big', os.O_CREAT | os.O_RDWR), 2**35)", "File too large"),
    "write many files": Attack(
        "for n in range(20_000):\n    open(str(n), 'w').close()\nwhile True:\n    time.sleep(1)",
        "more than 10,000 files",
    ),
    "make a folder that cannot be read": Attack("os.mkdir('a')\nos.mkdir('b', 0)\nraise RuntimeError('made')", "made"),
    "make the key readable": Attack("os.chmod('{home}/key', 0o777)", DENIED),
    "lock others out": Attack("os.chmod('{home}', 0)", DENIED),
    "change times": Attack("os.utime('{home}/key', (0, 0))", DENIED),
    "hide its memory": Attack("assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0, 'not hidden'", "not hidden"),
    "send to a socket of the system": Attack(
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '/dev/log')", DENIED
    ),
    "make deep folders": Attack(
        "for _ in range(3000):\n    os.mkdir('a')\n    os.chdir('a')\nwhile True:\n    time.sleep(1)",
        "cannot be read (File name too long)",
    ),
    "leave files": Attack("open('99.pt', 'w').write('x')\nos.mkdir('b\\nc')\nraise RuntimeError('left')", "left"),
    "use memory that is not counted": Attack("os.memfd_create('x')", DENIED),
    # other processes
    "see other processes": Attack("os.listdir('/proc')", DENIED),
    "read the worker's environment": Attack("open('/proc/{worker}/environ').read()", DENIED),
    "read the worker's memory": Attack("open('/proc/{worker}/mem', 'rb')", DENIED),
    "kill the worker": Attack("os.kill({worker}, signal.SIGKILL)", "ProcessLookupError"),
    "kill its parent": Attack("os.kill(os.getppid() or {worker}, signal.SIGKILL)", "ProcessLookupError"),
    "kill everything": Attack("os.kill(-1, signal.SIGKILL)", "ProcessLookupError"),
    "trace the worker": Attack("assert ctypes.CDLL(None).ptrace(16, {worker}, 0, 0) == 0, 'not traced'", "not traced"),
    "read another process's memory": Attack(
        "assert ctypes.CDLL(None).syscall(310, {worker}, 0, 0, 0, 0, 0) == 0, 'not read'", "not read"
    ),
    "mount a file system": Attack(
        "assert ctypes.CDLL(None).mount(b'x', b'.', b'tmpfs', 0, None) == 0, 'not mounted'", "not mounted"
    ),
    "become root": Attack("assert os.setresuid(0, 0, 0) or open('/etc/shadow').read()", DENIED),
    "make namespaces": Attack("assert ctypes.CDLL(None).unshare(0x10000000) == 0, 'not unshared'", "not unshared"),
    "start many processes": Attack(
        "for _ in range(200):\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n"
        "while True:\n    time.sleep(1)",
        "processes; at most 64",
    ),
    "outlive its parent": Attack(
        "assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0, 'cannot clear the signal'", "cannot clear the signal"
    ),
    "leave a process behind": Attack(
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv('/bin/sleep', ['kotrain-stray', '600'])\n    os._exit(0)\nraise RuntimeError('left one')",
        "left one",
    ),
    # network
    "open a socket": Attack("socket.socket()", DENIED),
    "connect to the broker": Attack("socket.socket(socket.AF_UNIX).connect('{broker}')", DENIED),
    "call out": Attack(
        "assert subprocess.run([sys.executable, '-c', 'import socket; socket.create_connection((\"1.1.1.1\", 53))'], "
        "capture_output=True).returncode == 0, 'no network'",
        "no network",
    ),
    # its own process
    "print much": Attack("for _ in range(2000):\n    print('x' * 500_000)\nraise RuntimeError('printed')", "printed"),
    "write many errors": Attack(
        "for _ in range(2000):\n    sys.stderr.write('x' * 10_000)\nraise RuntimeError('written')", "written"
    ),
    "take much memory": Attack("x = bytearray(2**40)", "memory"),
    "exit": Attack("os._exit(3)", "ended with status 3"),
    "exit as if it succeeded": Attack("os._exit(0)", "ended with status 0"),
    "crash": Attack("ctypes.string_at(0)", "signal 11"),
    "raise what is no exception": Attack("raise SystemExit('bye')", "bye"),
    "send garbage": Attack(
        "for fd in range(3, 256):\n    try: os.write(fd, b'\\x00\\x00\\x00\\x04junk')\n    except OSError: pass\n"
        "while True:\n    time.sleep(1)",
        "invalid message",
    ),
    "send a pickle": Attack(
        "import pickle\nclass Evil:\n    def __reduce__(self):\n        return os.system, ('touch {home}/pwned',)\n"
        "data = pickle.dumps(Evil())\n"
        "frame = len(data).to_bytes(4, 'big') + data\n"
        "for fd in range(3, 256):\n    try: os.write(fd, frame)\n    except OSError: pass\n"
        "while True:\n    time.sleep(1)",
        "invalid message",
    ),
    "patch torch": Attack(
        "import torch; torch.autograd.backward = torch.nn.functional.cross_entropy = lambda *a, **k: 1 / 0",
        "ZeroDivisionError",
    ),
    "fail in a step": Attack("raise KeyError('mine')", "KeyError: 'mine'", at_step=True),
    "raise nothing but its type": Attack("raise ValueError", "ValueError"),
    "return no optimizer": Attack("SGD.__new__ = lambda *a, **k: 7", "which is no torch.optim.Optimizer"),
}

ENDLESS = "while True:\n    pass"
"""At its import, a file that neither ends nor sends anything."""
