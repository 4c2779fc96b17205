"""The Python of pytest-xdist's workers: ask `tests.xdist_workers` for a fork that runs the `-c PROGRAM`.

The fork has the standard streams of this process, which ends when the fork does. It imports only standard modules, to
start within 20 ms.
"""

import json
import os
import select
import signal
import socket
import sys

MAX_BYTES = 2**20


def main(address: str, arguments: list[str]) -> None:
    """Run `python ARGUMENT...` in a fork of the process that listens at the address."""
    request = {
        "command": ["-c"],
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "program": arguments[arguments.index("-c") + 1],
    }
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        answer = server.recv(MAX_BYTES)
    with open(os.pidfd_open(int(answer))) as ended:
        select.select([ended], [], [])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork decides when to end
    main(sys.argv[1], sys.argv[2:])
