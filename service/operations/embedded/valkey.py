"""Valkey as a child process: one unix socket, a password, no data on disk.

The broker only carries wake-up messages, and jobs are stored in the database, so a restart loses nothing.
"""

from __future__ import annotations

import secrets
import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.operations.embedded.home import Home
from service.operations.embedded.process import Process
from service.operations.embedded.programs import Programs

_READY_SECONDS = 30.0


class Valkey:
    """The broker of a home; it can be restarted with `start` and `stop`. Raises `EmbeddedError`."""

    def __init__(self, home: Home, programs: Programs, sockets: Path) -> None:
        self._socket = sockets / "valkey.sock"
        self._password = secrets.token_urlsafe(24)

        self.process = Process(
            "valkey",
            [str(programs.valkey), "-"],  # settings on standard input: arguments are visible to all users
            log=home.path / "logs" / "valkey.log",
            environment={"LC_ALL": "C", "KOTRAIN_HOME": str(home.path)},
            account=home.account,
            death_signal=signal.SIGTERM,
            stop_signals=((signal.SIGTERM, 10.0),),
            keep_open=(home.lock,),
            secret_input="\n".join(
                (
                    "port 0",
                    f'unixsocket "{self._socket}"',
                    "unixsocketperm 700",
                    f"requirepass {self._password}",
                    f'dir "{sockets}"',
                    'save ""',
                    "appendonly no",
                    "",
                )
            ),
        )

    @property
    def url(self) -> str:
        """The address in Celery's form, including the password."""
        return f"redis+socket://:{self._password}@{self._socket}"

    def start(self) -> None:
        """Start the server and wait until it responds."""
        no_retries = Retry(NoBackoff(), 0)  # the client's default backoff takes seconds
        with redis.Redis(unix_socket_path=str(self._socket), password=self._password, retry=no_retries) as client:
            self.process.start_server("Valkey", client.ping, redis.RedisError, _READY_SECONDS)

    def stop(self) -> None:
        """Stop; no effect if the server is not running."""
        self.process.stop()
