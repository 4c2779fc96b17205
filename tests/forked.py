"""`python -m MODULE` without the seconds of imports: forked from a process that has made them already.

What a real start does is tested where one is started, by `subprocess` (tests/acceptance/test_up.py,
tests/integration/test_processes.py). The processes here run the same module with the same arguments, environment and
output; a worker's own forkserver is forked likewise, and no descriptor is inherited that was not given.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing import util
from typing import Any

IMPORTS = {
    "service.commands": ("service.operations.commands", "service.app", "uvicorn.protocols.http.h11_impl"),
    "workers": ("workers.tasks", "workers.child", "celery.apps.worker", "celery.concurrency.thread"),
    "kotrain": ("kotrain.cli", "service.operations.commands"),
}
"""What is imported before the module of a name is first run."""
_GET_SUBREAPER, _SET_SUBREAPER = 37, 36  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)
_MESSAGE_BYTES = 2**20


class Forked(subprocess.Popen[Any]):
    """A process that runs `python -m MODULE ARGUMENT...`, our own child; `env`, `cwd` and the outputs as of Popen."""

    def __init__(self, module: str, *arguments: str, **how: Any) -> None:
        super().__init__([module, *arguments], **how)

    def _execute_child(self, args: Sequence[str], *how: Any) -> None:  # type: ignore[override] # Popen's own, in private
        _executable, _prepare, _close, _pass, cwd, env, _info, _flags, _shell, *pipes = how
        ends = pipes[:6]
        given = [own if end == -1 else end for own, end in enumerate((ends[0], ends[3], ends[5]))]
        order = {"command": args, "cwd": cwd or os.getcwd(), "environment": dict(os.environ if env is None else env)}
        self.pid = forkserver().fork(order, given)
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def run(module: str, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """The finished process and what it said, as `subprocess.run` answers; it gets a minute."""
    with Forked(module, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how) as process:
        try:
            out, err = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Forkserver:
    """The process with the imports, which ends with us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.forked", str(theirs.fileno())],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.end)

    def fork(self, order: dict[str, Any], descriptors: Sequence[int]) -> int:
        """The process id of a new child."""
        with self._lock, _adopting():
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            answer = self._socket.recv(_MESSAGE_BYTES)
        assert answer, "the forkserver is dead"
        return int(answer)

    def end(self) -> None:
        """Stop this process; its forked children keep running."""
        self._socket.close()
        self.process.wait(20)


@lru_cache(maxsize=1)
def forkserver() -> Forkserver:
    """The one of this process, started on first use."""
    return Forkserver()


@contextmanager
def _adopting() -> Iterator[None]:
    """Inside the block, descendants of ours that lose their parent become our children."""
    before = ctypes.c_int()
    _prctl(_GET_SUBREAPER, ctypes.addressof(before))
    _prctl(_SET_SUBREAPER, 1)
    yield
    _prctl(_SET_SUBREAPER, before.value)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


# --- within the forkserver ---


def serve(asked: socket.socket) -> list[str]:
    """Fork a process for each order; the command, in that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, _MESSAGE_BYTES, 3)
        if not message:
            sys.exit()
        order = json.loads(message)
        for name in IMPORTS[order["command"][0]]:
            importlib.import_module(name)
        gc.freeze()
        if (pid := _fork_twice()) == 0:
            asked.close()
            _become(order, descriptors)
            command: list[str] = order["command"]
            return command
        asked.send(str(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_twice() -> int:
    """The id of a process whose parent is not we, but who adopts it; 0 in that process."""
    ours, theirs = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(ours)
        if (pid := os.fork()) == 0:
            os.close(theirs)
            return 0
        os.write(theirs, str(pid).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as pipe:
        pid = int(pipe.read())
    os.waitpid(between, 0)
    return pid


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for own, given in enumerate(descriptors):
        os.dup2(given, own)
        os.close(given)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = list(order["command"])
    util.spawnv_passfds = _fork_instead


def _fork_instead(_path: str, arguments: Sequence[Any], kept: Sequence[int]) -> int:
    """Run the `-c PROGRAM` of a helper process of multiprocessing, its forkserver above all, in a fork of this one."""
    if pid := os.fork():
        return pid
    program = os.fsdecode(arguments[list(map(os.fsdecode, arguments)).index("-c") + 1])
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):  # the folder's own
                os.close(int(name))
    try:
        exec(program, {"__name__": "__main__"})
    finally:
        os._exit(0)


if __name__ == "__main__":
    module = serve(socket.socket(fileno=int(sys.argv[1])))[0]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
