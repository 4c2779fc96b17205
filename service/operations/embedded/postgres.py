"""PostgreSQL as a child process: unix sockets only, password authentication, data in the home."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

from service.operations.embedded.account import creator_of, own
from service.operations.embedded.home import Home, socket_folder
from service.operations.embedded.process import EmbeddedError, Process, last_error
from service.operations.embedded.programs import POSTGRES_MAJOR, Programs

_NAME = "kotrain"  # of the database and of its owner
_ORPHANS_SECONDS = 20.0
_READY_SECONDS = 120.0  # includes recovery after a crash
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Postgres:
    """The database server of a home; it can be restarted with `start` and `stop`.

    `fast` disables durability (fsync off), for tests. Raises `EmbeddedError`.
    """

    def __init__(self, home: Home, programs: Programs, sockets: Path, fast: bool) -> None:
        self._folder = home.path / "postgres"
        self._data = self._folder / "data"
        self._programs = programs
        self._sockets = sockets
        self._account = home.account
        self._fast = fast
        self._logs = home.path / "logs"
        settings = _SETTINGS | {"unix_socket_directories": str(sockets)} | (_FAST if fast else {})
        self.process = Process(
            "postgres",
            [str(programs.postgres), "-D", str(self._data), *(f"--{key}={value}" for key, value in settings.items())],
            log=self._logs / "postgres.log",
            environment=_environment(home.path),
            account=home.account,
            death_signal=signal.SIGINT,  # fast shutdown: disconnects clients, writes a checkpoint
            stop_signals=((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)),
            keep_open=(home.lock,),
        )

    @property
    def url(self) -> str:
        """The SQLAlchemy address, including the password."""
        return _url(self._password(), self._sockets)

    def start(self) -> None:
        """Create the database cluster if missing, start the server and wait until it accepts connections."""
        if not self._folder.exists():
            self._initialize()
        self._check_data()
        self._drop_stale_pid()
        self.process.start_server("PostgreSQL", self._connect_once, psycopg.OperationalError, _READY_SECONDS)

    def stop(self) -> None:
        """Stop cleanly; no effect if the server is not running."""
        self.process.stop()

    def _initialize(self) -> None:
        """Run initdb in a temporary folder and rename it when complete, so that an incomplete cluster is never used."""
        home = self._folder.parent
        for unfinished in home.glob("postgres.new-*"):
            shutil.rmtree(unfinished)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=home))
        password = unfinished / "password"
        password.write_text(secrets.token_urlsafe(24))
        password.chmod(0o600)
        creator = creator_of(self._account) if self._account else None
        if creator:
            (unfinished / "data").mkdir(mode=0o700)
            for path, uid, mode in (
                (unfinished, 0, 0o710),
                (password, 0, 0o640),
                (unfinished / "data", creator.uid, 0o700),
            ):
                os.chown(path, uid, creator.gid)
                path.chmod(mode)
        initdb = Process(
            "initdb",
            [
                str(self._programs.initdb),
                f"--pgdata={unfinished / 'data'}",
                f"--username={_NAME}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                *(["--no-sync"] if self._fast else []),
            ],
            log=self._logs / "initdb.log",
            environment=_environment(home),
            account=creator,
        )
        if (code := initdb.run(_READY_SECONDS)) != 0:
            raise EmbeddedError(f"initdb failed (exit status {code}): {last_error(initdb.log)}; see {initdb.log}")
        if self._account:
            password.chmod(0o600)
            own(unfinished, self._account)
            unfinished.chmod(0o700)
        unfinished.rename(self._folder)

    def _check_data(self) -> None:
        """Raise unless the data is complete and of the right version."""
        try:
            version = (self._data / "PG_VERSION").read_text().strip()
            self._password()
        except OSError as error:
            raise EmbeddedError(
                f"{self._folder} is not a complete database ({error.strerror}: {error.filename}): "
                "restore it from a copy, or move it away to start with an empty database"
            ) from error
        if version != str(POSTGRES_MAJOR):
            raise EmbeddedError(
                f"{self._data} is of PostgreSQL {version}, this kotrain includes {POSTGRES_MAJOR}: "
                f"migrate it with pg_dumpall of version {version}, or set KOTRAIN_HOME to a new folder"
            )

    def _drop_stale_pid(self) -> None:
        """Remove the pid file of a server that no longer runs.

        This process holds the lock of the home, which our servers inherit, so the process in the file is not one of
        them; its id may have been reused, and it is never signalled. A server started manually on this data is
        detected by its working directory, which is the data folder.
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        recorded = (pid_file.read_text().splitlines() or [""])[0].strip()
        if recorded.isdigit() and self._works_here(int(recorded)):
            raise EmbeddedError(f"another PostgreSQL (process {recorded}) is running on {self._data}: stop it first")
        self._wait_for_orphans()
        pid_file.unlink()

    def _wait_for_orphans(self) -> None:
        """Wait for remaining processes of a killed server: a second server beside them would corrupt the data.

        PostgreSQL's own protection against that depends on the pid file.
        """
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while orphans := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._works_here(pid)]:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"processes of a killed PostgreSQL are still running on {self._data}: "
                    f"stop {', '.join(map(str, orphans))} first"
                )
            time.sleep(0.05)

    def _works_here(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cwd").samefile(self._data)
        except OSError:
            return False  # ended, or of another user

    def _connect_once(self) -> None:
        """Connect, and create the database if it does not exist."""
        with psycopg.connect(
            host=str(self._sockets), user=_NAME, password=self._password(), dbname="postgres", autocommit=True
        ) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {_NAME}")

    def _password(self) -> str:
        return (self._folder / "password").read_text()


def database_url_of(home: Path) -> str:
    """The address of the database of `home`. Raises `OSError` if there is none or it is not readable."""
    home = home.resolve()
    return _url((home / "postgres" / "password").read_text(), socket_folder(home))


def _url(password: str, sockets: Path) -> str:
    return f"postgresql+psycopg://{_NAME}:{password}@/{_NAME}?host={quote(str(sockets), safe='')}"


def _environment(home: Path) -> dict[str, str]:
    """A minimal environment: PG* variables would affect the server. The home identifies the owner of the process."""
    return {"PATH": os.defpath, "LC_ALL": "C", "KOTRAIN_HOME": str(home)}
