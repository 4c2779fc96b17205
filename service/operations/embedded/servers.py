"""PostgreSQL and Valkey from their wheels, for one machine without any set-up.

Both run as our own children in sessions of their own: they stop with us, even when we are killed. They listen on
unix sockets in a private folder, ask for a password and open no TCP port. Linux only.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from service.operations.embedded.home import Home, remove_sockets
from service.operations.embedded.postgres import Postgres
from service.operations.embedded.process import Account, EmbeddedError, server_account
from service.operations.embedded.programs import find
from service.operations.embedded.valkey import Valkey


class Embedded:
    """`with Embedded(home) as servers`: both servers run inside the block, started from the main thread.

    `home` is a folder (made if need be, locked here) or a `Home` that is locked already. `fast` gives up durability,
    for tests. Raises `EmbeddedError`, whose message is one line that says what to do.
    """

    postgres: Postgres
    valkey: Valkey

    def __init__(self, home: Path | Home, *, fast: bool = False) -> None:
        self._home = home
        self._fast = fast
        self._stack = ExitStack()

    @property
    def database_url(self) -> str:
        """postgresql+psycopg://..., password included."""
        return self.postgres.url

    @property
    def broker_url(self) -> str:
        """redis+socket://..., password included."""
        return self.valkey.url

    def __enter__(self) -> Embedded:
        with ExitStack() as stack:
            home = self._home if isinstance(self._home, Home) else stack.enter_context(Home(self._home))
            account = server_account()
            _require_reachable(home.path, account)
            programs = find(home.path, account)
            sockets = home.make_socket_folder(account)
            stack.callback(remove_sockets, sockets)
            self.postgres = Postgres(home, programs, sockets, account, self._fast)
            self.valkey = Valkey(home, programs, sockets, account)
            for server in (self.postgres, self.valkey):
                stack.callback(server.stop)
                server.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _require_reachable(home: Path, account: Account | None) -> None:
    """The servers' user must be able to get to its data; opening somebody's folder to it is not ours to do."""
    if account and (closed := account.blocked_at(home)):
        raise EmbeddedError(
            f"as root, PostgreSQL runs as '{account.name}', who may not enter {closed}: set KOTRAIN_HOME to a folder "
            "that others may enter (the default is /var/lib/kotrain), or run kotrain as an ordinary user"
        )
