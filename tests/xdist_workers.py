"""The worker processes of pytest-xdist, forked from one process that has collected the tests.

Otherwise each of them imports torch, the packages and every test module, for 15 s of CPU time. tests/conftest.py starts
the process, and xdist starts each worker with tests/xdist_python.py, which asks for a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import forked, xdist_python


class Collected:
    """The process that has collected the tests; `python` is the interpreter for xdist to start its workers with."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kotrain-xdist-")
        address = str(Path(self._folder.name, "socket"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.xdist_workers", str(listener.fileno()), *arguments],
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # the forks could not use its threads
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        self.python = shlex.join([sys.executable, "-P", "-S", xdist_python.__file__, address])

    def end(self) -> None:
        """Stop the process; its forks keep running."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        self._folder.cleanup()


def _serve(requests: socket.socket) -> str:
    """Fork a process for each request until the standard input ends; return the program to run in the new process."""
    while requests in select.select([requests, sys.stdin], [], [])[0]:
        connection, _ = requests.accept()
        with connection:
            message, descriptors, *_ = socket.recv_fds(connection, xdist_python.MAX_BYTES, 3)
            request = json.loads(message)
            if (pid := os.fork()) == 0:
                requests.close()
                forked.become(request, descriptors)
                break
            connection.send(str(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)
    else:
        sys.exit()
    forked.fork_forkserver()
    program: str = request["program"]
    return program


def _collect(arguments: Sequence[str]) -> None:
    with contextlib.suppress(SystemExit):  # the workers report errors
        pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *arguments])
    for module in sorted({name for names in forked.IMPORTS.values() for name in names}):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _collect(sys.argv[2:])
    exec(_serve(socket.socket(fileno=int(sys.argv[1]))), {"__name__": "__main__"})
