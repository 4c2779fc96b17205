"""`python -m MODULE` without the seconds of imports: forked from a process that has imported everything already.

Other tests start real processes with `subprocess` (tests/acceptance/test_up.py, tests/integration/test_processes.py).
The processes here run the same module with the same arguments, environment and output; a worker's own forkserver is
forked likewise. They inherit only the descriptors passed to them.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
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
    "tests.programs": ("workers.tasks", "workers.child"),
}
"""Modules to import before the first run of a module."""
_GET_SUBREAPER, _SET_SUBREAPER = 37, 36  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)
_MESSAGE_BYTES = 2**20
_MAX_DESCRIPTORS = 16


class Forked(subprocess.Popen[Any]):
    """A child process that runs `python -m MODULE ARGUMENT...`.

    Of Popen's options, it has `env`, `cwd`, `pass_fds`, those of the outputs, and `text`.
    """

    def __init__(self, module: str, *arguments: str, **options: Any) -> None:
        super().__init__([module, *arguments], **options)

    def _execute_child(self, args: Sequence[str], *options: Any) -> None:  # type: ignore[override] # private in Popen
        _executable, _prepare, _close, passed, cwd, env, _info, _flags, _shell, *pipes = options
        ends = pipes[:6]
        descriptors = [own if end == -1 else end for own, end in enumerate((ends[0], ends[3], ends[5]))]
        request = {
            "command": args,
            "cwd": cwd or os.getcwd(),
            "environment": dict(os.environ if env is None else env),
            "descriptors": [0, 1, 2, *passed],
        }
        self.pid = forkserver().fork(request, [*descriptors, *passed])
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def run(module: str, *arguments: str, seconds: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a module for at most these seconds; return what `subprocess.run` would."""
    with Forked(module, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Forkserver:
    """The process that holds the imports; it ends with this one."""

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

    def fork(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Start a child and return its process id."""
        with self._lock, _adopting():
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer = self._socket.recv(_MESSAGE_BYTES)
        assert answer, "the forkserver is dead"
        return int(answer)

    def end(self) -> None:
        """Stop this process; its forked children keep running."""
        self._socket.close()
        self.process.wait(20)


@lru_cache(maxsize=1)
def forkserver() -> Forkserver:
    """The forkserver of this process, started on first use."""
    return Forkserver()


@contextmanager
def _adopting() -> Iterator[None]:
    """Make this process adopt its descendants that lose their parent inside the block."""
    before = ctypes.c_int()
    _prctl(_GET_SUBREAPER, ctypes.addressof(before))
    _prctl(_SET_SUBREAPER, 1)
    yield
    _prctl(_SET_SUBREAPER, before.value)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


# --- within the forkserver ---


def serve(requests: socket.socket) -> list[str]:
    """Fork a process for each request; return the request's command in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, _MESSAGE_BYTES, _MAX_DESCRIPTORS)
        if not message:
            sys.exit()
        request = json.loads(message)
        gc.disable()  # as workers.preload does
        for name in IMPORTS[request["command"][0]]:
            importlib.import_module(name)
        gc.freeze()
        gc.enable()
        if (pid := _fork_twice()) == 0:
            requests.close()
            _become(request, descriptors)
            command: list[str] = request["command"]
            return command
        requests.send(str(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_twice() -> int:
    """Fork a grandchild; return its process id, and 0 in the grandchild itself."""
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


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    above = 1 + max(*request["descriptors"], *descriptors)
    for target, copy in [
        (target, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above))
        for target, descriptor in zip(request["descriptors"], descriptors, strict=True)
    ]:
        os.dup2(copy, target)
        os.close(copy)
    for descriptor in {*descriptors} - {*request["descriptors"]}:
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = list(request["command"])
    if request["command"][0] != "service.commands":
        # The API starts its own from one of many threads, with objects that would close descriptors of the fork later.
        util.spawnv_passfds = _fork_instead


def _fork_instead(_path: str, arguments: Sequence[Any], inherited: Sequence[int]) -> int:
    """Run the `-c PROGRAM` of a helper process of multiprocessing, its forkserver above all, in a fork of this one."""
    if pid := os.fork():
        return pid
    os.nice(10)  # training yields to the tests: jobs that train until a test ends must not slow the others down
    program = os.fsdecode(arguments[list(map(os.fsdecode, arguments)).index("-c") + 1])
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in inherited:
            with suppress(OSError):  # the listing's own descriptor
                os.close(int(name))
    try:
        exec(program, {"__name__": "__main__"})
    finally:
        os._exit(0)


if __name__ == "__main__":
    module = serve(socket.socket(fileno=int(sys.argv[1])))[0]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
