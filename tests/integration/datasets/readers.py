"""Processes in place of the reader of uploads: some end badly, one attacks what surrounds it."""

import json
import os
import signal
import socket
import time
from pathlib import Path

from service.datasets.uploads import build, confinement


def kill(pipe, upload, limits):
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(pipe, upload, limits):
    os._exit(3)


def hang(pipe, upload, limits):
    time.sleep(60)


def lie(pipe, upload, limits):
    pipe.send_bytes(b'{"error": "Exception", "detail": "x", "errors": []}')


def rename(pipe, upload, limits):
    description = {"name": "tables/../../elsewhere", "kind": "table", "owner": "ada"}
    pipe.send_bytes(json.dumps(description).encode())


def forge(pipe, upload, limits):
    """What a reader may do that its file has taken over: build the set in another's name."""
    description = build.build(upload, limits)
    forged = {"owner": "eve", "sha256": "0" * 64, "size_bytes": 1}
    (upload.folder / build.SET / "dataset.json").write_text("forged")
    pipe.send_bytes(description.model_copy(update=forged).model_dump_json().encode())


def attack(pipe, folder, secret, port, pid):
    """Send the names of the attacks that succeed, and whether the kernel confines files at all."""

    def connect():
        with socket.create_connection(("127.0.0.1", port), 5):
            pass

    attempts = {
        "read a file": lambda: Path(secret).read_bytes(),
        "write a file": lambda: Path(secret).with_name("planted").write_text(""),
        "list a folder": lambda: os.listdir(Path(secret).parent),
        "read the environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
        "kill": lambda: os.kill(pid, signal.SIGTERM),
        "connect": connect,
        "link": lambda: os.symlink(secret, Path(folder, "link")),
        "use the own folder": lambda: Path(folder, "own").write_text("mine"),
        "take memory": lambda: bytes(2**30),
        "write a large file": lambda: Path(folder, "large").write_bytes(bytes(2**21)),
    }
    confinement.limit(60, 2**29, 2**20)
    is_confined = confinement.confine([], Path(folder))
    succeeded = []
    for name, attempt in attempts.items():
        try:
            attempt()
            succeeded.append(name)
        except (OSError, MemoryError):
            pass
    pipe.send((is_confined, succeeded))
