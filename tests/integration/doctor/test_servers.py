"""Servers that are away, too old, or somebody else's: the doctor names it."""

import http.server
import os
import socket
import threading
import time

import psycopg
import pytest
from sqlalchemy import text

from service.operations.doctor import checks, servers
from service.storage import database
from tests.integration.doctor.examination import is_well, look, says


@pytest.fixture
def port(monkeypatch):
    """A free one, in the settings."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("KOTRAIN_PORT", str(port))
    return port


class TestApi:
    def test_nothing_answers(self, schema, port):
        assert says("api", "warning", "cannot connect to the API")

    def test_a_free_port(self, embedded, place, port):
        assert is_well("api")

    def test_another_program_that_speaks_http(self, schema, port):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", port), Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert says("api", "error", f"port {port} is in use by another program")
            server.shutdown()

    def test_another_program_that_says_nothing(self, embedded, place, port, monkeypatch):
        monkeypatch.setattr(servers, "WAIT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", port)):
            assert says("api", "error", "in use by another program", str(os.getpid()))


class TestDatabase:
    def test_a_sound_one(self, empty):
        for check in ("schema", "connections", "clock"):
            assert is_well(check)

    def test_one_that_can_lose_what_was_accepted(self, empty):
        assert says("database", "warning", "fsync")

    def test_one_that_takes_no_changes(self, servers, empty, monkeypatch):
        url = _another_database(servers, "bare")
        with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("ALTER DATABASE bare SET default_transaction_read_only = on")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert any("is read-only" in what for level, what in look("database") if level == "error")

    def test_one_that_is_not_there(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", "postgresql://kotrain:secret@127.0.0.1:1/kotrain")
        assert says("database", "error", "cannot connect")
        for check in ("schema", "clock", "workers", "jobs", "checkpoints"):
            assert says(check, "warning", "not checked")
        assert "secret" not in str(checks.examine())

    def test_no_schema_yet(self, servers, empty, monkeypatch):
        url = _another_database(servers, "bare")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert says("schema", "error", "no schema yet")
        assert says("jobs", "warning", "not checked: the tables are of another version")

    def test_a_schema_that_is_too_new(self, empty):
        with database.engine().begin() as connection:
            before = connection.scalar(text("SELECT version_num FROM alembic_version"))
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("UPDATE compatibility SET oldest_code = 9999"))
        try:
            assert says("schema", "error", "9999")
        finally:
            with database.engine().begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": before})
                connection.execute(text("UPDATE compatibility SET oldest_code = 2"))

    def test_an_encoding_that_cannot_hold_names(self, servers, empty, monkeypatch):
        url = _another_database(
            servers, "latin", "ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert "encoding of the database is LATIN1" in str(look("database"))

    def test_few_connections_left(self, empty, monkeypatch):
        monkeypatch.setattr(servers, "POOL_CONNECTIONS", 1000)
        assert says("connections", "warning", "are free")

    @pytest.mark.parametrize("seconds", [-60, 60])
    def test_a_clock_that_is_wrong(self, empty, monkeypatch, seconds):
        now = time.time
        monkeypatch.setattr(servers.time, "time", lambda: now() + seconds)
        assert says("clock", "warning", "60 s", "ahead of" if seconds > 0 else "behind")


def _another_database(servers, name, options=""):
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    return servers.database_url.replace("/kotrain?", f"/{name}?")


class TestBroker:
    def test_a_sound_one(self, empty):
        assert is_well("broker")

    def test_one_that_is_not_there(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BROKER_URL", "redis://127.0.0.1:1/0")
        assert says("broker", "error", "cannot connect")

    def test_a_wrong_password(self, servers, empty, monkeypatch):
        scheme, _, path = servers.broker_url.partition("@")
        monkeypatch.setenv("KOTRAIN_BROKER_URL", f"{scheme.partition('//')[0]}//:wrong@{path}")
        assert says("broker", "error", "password")
        assert "wrong@" not in str(look("broker"))
