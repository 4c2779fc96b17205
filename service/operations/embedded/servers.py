"""Embedded PostgreSQL and Valkey from their wheels, for a single machine without any setup.

Both run as child processes in their own sessions and stop with their parent, even if it is killed. They listen on unix
sockets in a private folder, require a password and open no TCP port. Linux only.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from service.operations.embedded.home import Home, remove_sockets
from service.operations.embedded.postgres import Postgres
from service.operations.embedded.programs import find
from service.operations.embedded.valkey import Valkey


class Embedded:
    """`with Embedded(home) as servers`: both servers run inside the block, started from the main thread.

    `home` is a folder (created if missing, locked here) or a locked `Home`. `fast` disables durability, for tests.
    Raises `EmbeddedError`.
    """

    postgres: Postgres
    valkey: Valkey

    def __init__(self, home: Path | Home, *, fast: bool = False) -> None:
        self._home = home
        self._fast = fast
        self._stack = ExitStack()

    @property
    def database_url(self) -> str:
        """postgresql+psycopg://..., including the password."""
        return self.postgres.url

    @property
    def broker_url(self) -> str:
        """redis+socket://..., including the password."""
        return self.valkey.url

    def __enter__(self) -> Embedded:
        with ExitStack() as stack:
            home = self._home if isinstance(self._home, Home) else stack.enter_context(Home(self._home))
            programs = find(home.path, home.account)
            sockets = home.make_socket_folder()
            stack.callback(remove_sockets, sockets)
            self.postgres = Postgres(home, programs, sockets, self._fast)
            self.valkey = Valkey(home, programs, sockets)
            for server in (self.postgres, self.valkey):
                stack.callback(server.stop)
                server.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
