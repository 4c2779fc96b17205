"""The stack of `kotrain up`: database, broker, worker and API of one machine, started, supervised and stopped."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import psycopg

from service.accounts import api_keys
from service.config import Settings, settings
from service.home import LOOPBACK, url_of
from service.home import Running as RunFile
from service.operations.embedded.account import may_read_all, refuse_unwritable, unreadable
from service.operations.embedded.home import Home
from service.operations.embedded.postgres import database_url_of
from service.operations.embedded.process import Account, EmbeddedError, Process, last_error
from service.operations.embedded.servers import Embedded
from service.storage import database

OWNER = "owner"  # user of the key that the first start creates

_READY_SECONDS = 60.0
_WATCH_SECONDS = 0.25
_QUICK_SECONDS = 10.0  # a process that ends earlier counts as failed to start
_QUICK_DEATHS = 5
STREAM_SECONDS = 5  # time for open responses to finish when the API stops
UNACKNOWLEDGED_MILLISECONDS = 30_000  # the kernel then drops a connection whose peer acknowledges no data
BACKLOG = 2048  # connections that wait until the API accepts them

log = logging.getLogger(__name__)


@dataclass
class Part:
    """A process that is restarted with increasing delays when it ends unexpectedly."""

    process: Process
    start: Callable[[], None]
    started: float = 0.0
    deaths: int = 0
    due: float | None = None  # time of the next restart

    def begin(self) -> None:
        """Start the process."""
        self.started, self.due = time.monotonic(), None
        self.start()

    def check(self) -> None:
        """Restart the process if it has ended. Raises `EmbeddedError` if it keeps ending right after its start."""
        now = time.monotonic()
        if self.due is not None:
            if now >= self.due:
                self.begin()
        elif (code := self.process.exit_code()) is not None:
            self._schedule_restart(code, now)

    def _schedule_restart(self, code: int, now: float) -> None:
        self.deaths = self.deaths + 1 if now - self.started < _QUICK_SECONDS else 1
        name, path = self.process.name, self.process.log
        if self.deaths >= _QUICK_DEATHS:
            raise EmbeddedError(
                f"the {name} failed to start {self.deaths} times (exit status {code}): {last_error(path)}; see {path}"
            )
        pause = 0.25 * 2 ** (self.deaths - 1)
        log.warning("the %s ended (exit status %d), restarting in %.2g s; see %s", name, code, pause, path)
        self.due = now + pause


@dataclass(frozen=True)
class Running:
    """A running stack: its addresses on this machine and for others, the owner's key file, and the folder of logs."""

    url: str
    remote_url: str | None
    """None if it listens on this machine alone."""
    key_file: Path
    logs: Path


def run(announce: Callable[[Running], None]) -> None:
    """Run the stack in the home of `settings()` until SIGINT or SIGTERM; `announce` is called once the API is ready.

    Starts embedded servers unless the settings name a database and a broker. Raises `EmbeddedError`.
    """
    with _until_signal(), ExitStack() as stack:
        config = settings()
        home = stack.enter_context(Home(config.home))
        account, closed = _service_account(home, config)
        logs = home.path / "logs"
        listener = stack.enter_context(listen(config.host, config.port))
        url = url_of(*listener.getsockname()[:2])
        parts = []
        addresses = _external_addresses(config)
        if addresses is None:
            servers = stack.enter_context(Embedded(home))
            parts = [Part(server.process, server.start) for server in (servers.postgres, servers.valkey)]
            addresses = {"KOTRAIN_DATABASE_URL": servers.database_url, "KOTRAIN_BROKER_URL": servers.broker_url}
        environment = {**addresses, "KOTRAIN_HOME": str(home.path), "KOTRAIN_PORT": str(listener.getsockname()[1])}
        stack.enter_context(_settings_from(environment))
        database.migrate()
        write_key(home.path / "key")
        if account and closed:
            log.warning(
                "as root, kotrain runs as the account %s, which gets the right to read all files, because it could not "
                "read %s: install kotrain and its data where other users can read them, or run it as an ordinary user",
                *(account.name, closed),
            )

        for process in (_worker(logs, config.drain_seconds, account), _api(logs, listener.fileno(), account)):
            parts.append(Part(process, process.start))
            stack.callback(process.stop)
            parts[-1].begin()
        _wait_healthy(url, parts)
        running = RunFile(url=url, pid=os.getpid(), settings=_without_secrets(settings()))
        stack.enter_context(_written(home.path / "running.json", running.model_dump_json()))
        announce(Running(url, remote_url(config.host, listener.getsockname()[1]), home.path / "key", logs))
        _watch(parts)


@contextmanager
def reachable_database(*, must_be_stopped: bool = False) -> Iterator[None]:
    """Make the settings name a database: that of the settings, that of the running stack, or that of the home.

    The latter is started here and stopped at the end of the block. With `must_be_stopped` a running stack is an error;
    otherwise the home must hold a database. Raises `EmbeddedError`.
    """
    config = settings()
    if config.database_url is not None:
        yield
        return
    if not must_be_stopped:
        try:
            url = database_url_of(config.home)
        except OSError as error:
            raise EmbeddedError(
                f"cannot open a database in {config.home} ({error.strerror}): choose another folder with --home, "
                "or set KOTRAIN_DATABASE_URL"
            ) from error
        if _answers(url):
            with _settings_from({"KOTRAIN_DATABASE_URL": url}):
                yield
            return
    with Embedded(config.home) as servers, _settings_from({"KOTRAIN_DATABASE_URL": servers.database_url}):
        yield


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises `EmbeddedError`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Accepted connections inherit the options. asyncio sets the first only on sockets that name their protocol;
        # without it, the body of a response waits until the client has acknowledged the headers, 40 ms later.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)
        return listener
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        is_elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = (
            "an address of this machine with --host"
            if is_elsewhere
            else "another port with --port N (0: any free port)"
        )
        raise EmbeddedError(f"cannot listen on {host} port {port} ({reason}): choose {remedy}") from error


def _watch(parts: list[Part]) -> None:
    while True:
        time.sleep(_WATCH_SECONDS)
        for part in parts:
            part.check()
            part.process.rotate_log()


def _service_account(home: Home, config: Settings) -> tuple[Account | None, Path | None]:
    """The user of worker and API, that of the home, and what it may only read with a right to read all files."""
    if home.account is None:
        return None, None
    refuse_unwritable(home.account, config)
    closed = unreadable(home.account)
    if closed and not may_read_all():
        raise EmbeddedError(
            f"as root, kotrain runs as the account {home.account.name}, which cannot read {closed}, and this container "
            "does not allow CAP_DAC_READ_SEARCH: install kotrain and its data where other users can read them, or run "
            "kotrain as an ordinary user"
        )
    return replace(home.account, reads_all=closed is not None), closed


def _environment(account: Account | None) -> dict[str, str]:
    """That of this process. An account without a name has no home folder, in which libraries keep caches."""
    if account is None:
        return os.environ.copy()
    folder = pwd.getpwnam(account.name).pw_dir if settings().user else str(settings().home / "user")
    return os.environ | {"HOME": folder, "USER": "kotrain", "LOGNAME": "kotrain"}


def _worker(logs: Path, drain_seconds: float, account: Account | None) -> Process:
    return Process(
        "worker",
        [sys.executable, "-P", "-m", "workers"],
        log=logs / "worker.log",
        environment=_environment(account),
        account=account,
        stop_signals=((signal.SIGTERM, drain_seconds + 5),),
    )


def _api(logs: Path, listener: int, account: Account | None) -> Process:
    """Inherits the listening socket: the port is kept across restarts, and clients wait instead of failing."""
    return Process(
        "api",
        [sys.executable, "-P", "-m", "service.commands", "api", "--fd", str(listener)],
        log=logs / "api.log",
        environment=_environment(account),
        account=account,
        stop_signals=((signal.SIGTERM, STREAM_SECONDS + 5),),
        keep_open=(listener,),
    )


def _without_secrets(config: Settings) -> dict[str, Any]:
    """The settings that the doctor needs to know, with absolute paths."""
    absolute: dict[str, str] = {}
    if config.data_dir is not None:
        absolute["data_dir"] = str(config.data_dir.absolute())
    if config.files is not None and "://" not in config.files:
        absolute["files"] = str(Path(config.files).absolute())
    elif config.files is not None and "@" in config.files:  # a password may be before it
        absolute["files"] = config.files.partition("://")[0] + "://..."
    return config.model_dump(mode="json", exclude={"home", "database_url", "broker_url"}) | absolute


def remote_url(host: str, port: int) -> str | None:
    """The URL at which other machines reach an API that listens on `host`; None if none can."""
    if host in LOOPBACK or host.startswith("127."):
        return None
    return url_of(socket.gethostname() if host in ("0.0.0.0", "::") else host, port)


def _wait_healthy(url: str, parts: list[Part]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            # The listening socket queues connections until the API accepts them.
            if httpx2.get(f"{url}/healthz", timeout=1, trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        for part in parts:
            part.check()
            part.process.rotate_log()
        if time.monotonic() > deadline:
            api = parts[-1].process
            raise EmbeddedError(f"the API does not respond at {url}: {last_error(api.log)}; see {api.log}")


def _external_addresses(config: Settings) -> Mapping[str, str] | None:
    """The addresses of external servers; None if embedded servers are to be started."""
    addresses = {"KOTRAIN_DATABASE_URL": config.database_url, "KOTRAIN_BROKER_URL": config.broker_url}
    missing = [name for name, value in addresses.items() if value is None]
    if len(missing) == 1:
        raise EmbeddedError(
            f"{missing[0]} is not set: set both KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL, or neither"
        )
    return None if missing else {name: value for name, value in addresses.items() if value is not None}


def write_key(path: Path) -> None:
    """Ensure that the owner's key file (mode 0600) holds a valid key.

    A revoked key is replaced by a new one. A database without any keys accepts the key in the file.
    """
    written = path.read_text().strip() or None if path.exists() else None
    if written is not None and api_keys.any_exist() and not api_keys.is_known(written):
        log.warning("the key in %s is no longer valid: replacing it", path)
        written = None
    key = api_keys.create(OWNER, admin=True, key=written)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    with open(descriptor, "w") as file:
        file.write(key + "\n")


@contextmanager
def _written(path: Path, text: str) -> Iterator[None]:
    """The file exists, complete, while the block runs."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text)
    unfinished.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _settings_from(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for this process and its children while the block runs."""
    before = os.environ.copy()
    os.environ.update(environment)
    settings.cache_clear()
    database.engine.cache_clear()
    try:
        yield
    finally:
        database.engine().dispose()
        database.engine.cache_clear()
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()


@contextmanager
def _until_signal() -> Iterator[None]:
    """End the block at the first SIGINT, SIGTERM or SIGHUP; further signals are ignored while it unwinds."""
    ends = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN  # nohup, or a shell's background job
    ]

    def end(_number: int, _frame: FrameType | None) -> Any:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in ends}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
