"""PostgreSQL as our own child: sockets only, password authentication, data under the home."""

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

from service.operations.embedded.home import Home, socket_folder
from service.operations.embedded.process import Account, EmbeddedError, Process, last_line
from service.operations.embedded.programs import POSTGRES_MAJOR, Programs

_NAME = "kotrain"  # of the database and of its owner
_ORPHANS_SECONDS = 20.0
_READY_SECONDS = 120.0  # recovery after a crash takes its time
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Postgres:
    """The database server of a home: `start` and `stop` may be called again and again.

    `fast` gives up durability (fsync off), for tests. Raises `EmbeddedError`.
    """

    def __init__(self, home: Home, programs: Programs, sockets: Path, account: Account | None, fast: bool) -> None:
        self._folder = home.path / "postgres"
        self._data = self._folder / "data"
        self._programs = programs
        self._sockets = sockets
        self._account = account
        self._fast = fast
        self._log = home.path / "logs" / "postgres.log"
        settings = _SETTINGS | {"unix_socket_directories": str(sockets)} | (_FAST if fast else {})
        self.process = Process(
            "postgres",
            [str(programs.postgres), "-D", str(self._data), *(f"--{key}={value}" for key, value in settings.items())],
            log=self._log,
            environment=_environment(home.path),
            account=account,
            death_signal=signal.SIGINT,  # its fast shutdown: clients are cut off, a checkpoint is written
            stop_signals=((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)),
            keep_open=(home.lock,),
        )

    @property
    def url(self) -> str:
        """The SQLAlchemy address, password included."""
        return _url(self._password(), self._sockets)

    def start(self) -> None:
        """Make the database cluster if there is none, start the server and wait until it answers."""
        if not self._folder.exists():
            self._initialize()
        self._check_data()
        self._drop_stale_pid()
        self.process.start()
        try:
            self._wait_ready()
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> None:
        """Stop cleanly; nothing happens if it does not run."""
        self.process.stop()

    def _initialize(self) -> None:
        """Run initdb beside the final place and rename when complete: a half-written one is never used."""
        home = self._folder.parent
        for unfinished in home.glob("postgres.new-*"):
            shutil.rmtree(unfinished)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=home))
        password = unfinished / "password"
        password.write_text(secrets.token_urlsafe(24))
        password.chmod(0o600)
        if self._account:
            for path in (unfinished, password):
                os.chown(path, self._account.uid, self._account.gid)
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
            log=self._log.with_name("initdb.log"),
            environment=_environment(home),
            account=self._account,
        )
        if (code := initdb.run(_READY_SECONDS)) != 0:
            raise EmbeddedError(f"initdb failed (exit status {code}): {last_line(initdb.log)}; see {initdb.log}")
        unfinished.rename(self._folder)

    def _check_data(self) -> None:
        """Refuse data that this server cannot use."""
        try:
            version = (self._data / "PG_VERSION").read_text().strip()
            self._password()
        except OSError as error:
            raise EmbeddedError(
                f"{self._folder} is not a complete database ({error.strerror}: {error.filename}): "
                "put a copy of it back, or move it away to begin with an empty one"
            ) from error
        if version != str(POSTGRES_MAJOR):
            raise EmbeddedError(
                f"{self._data} was made by PostgreSQL {version} and this kotrain brings {POSTGRES_MAJOR}: "
                f"move it over with pg_dumpall of version {version}, or set KOTRAIN_HOME to a new folder"
            )

    def _drop_stale_pid(self) -> None:
        """Remove a pid file whose server is gone.

        We hold the home's lock, which every server that we start inherits, so the process that the file names is not
        ours; it may be anybody's by now and is never signalled. Only a server that somebody started by hand on this
        data is respected: a running one has the data folder as its working directory.
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        named = (pid_file.read_text().splitlines() or [""])[0].strip()
        if named.isdigit() and self._works_here(int(named)):
            raise EmbeddedError(f"another PostgreSQL (process {named}) runs on {self._data}: stop it first")
        self._wait_for_orphans()
        pid_file.unlink()

    def _wait_for_orphans(self) -> None:
        """Processes of a server that was killed may still be busy; a new one beside them would destroy the data.

        PostgreSQL's own guard against that goes with the pid file.
        """
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._works_here(pid)]:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"processes of a PostgreSQL that is gone still run on {self._data}: "
                    f"stop {', '.join(map(str, left))} first"
                )
            time.sleep(0.05)

    def _works_here(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cwd").samefile(self._data)
        except OSError:
            return False  # gone, or somebody else's

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self._connect_once()
                return
            except psycopg.OperationalError as error:
                if (code := self.process.exit_code()) is not None:
                    raise EmbeddedError(
                        f"PostgreSQL ended at once (exit status {code}): {last_line(self._log)}; see {self._log}"
                    ) from error
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"PostgreSQL does not answer: {error}; see {self._log}") from error
                time.sleep(0.02)

    def _connect_once(self) -> None:
        """Connect, and make our database if there is none."""
        with psycopg.connect(
            host=str(self._sockets), user=_NAME, password=self._password(), dbname="postgres", autocommit=True
        ) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {_NAME}")

    def _password(self) -> str:
        return (self._folder / "password").read_text()


def database_url_of(home: Path) -> str:
    """The address of the database that another process runs in `home`; `OSError` if there is none or it is not ours."""
    home = home.resolve()
    return _url((home / "postgres" / "password").read_text(), socket_folder(home))


def _url(password: str, sockets: Path) -> str:
    return f"postgresql+psycopg://{_NAME}:{password}@/{_NAME}?host={quote(str(sockets), safe='')}"


def _environment(home: Path) -> dict[str, str]:
    """Nothing of ours (PG* variables would change what the server does) but the home, which says whose it is."""
    return {"PATH": os.defpath, "LC_ALL": "C", "KOTRAIN_HOME": str(home)}
