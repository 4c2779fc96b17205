"""The doctor names faults of the API, the database and the broker."""

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
from tests.integration.doctor.examination import examine, finds, is_ok


@pytest.fixture
def port(monkeypatch):
    """A free port, which the settings name."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("KOTRAIN_PORT", str(port))
    return port


class TestApi:
    def test_no_response_is_a_warning(self, schema, port):
        assert finds("api", "warning", "cannot connect to the API")

    def test_address_of_the_environment_is_asked(self, schema, port, monkeypatch):
        monkeypatch.setenv("KOTRAIN_URL", "http://127.0.0.1:9")
        assert finds("api", "warning", "cannot connect to the API at http://127.0.0.1:9 ")

    def test_free_port_is_ok(self, embedded, place, port):
        assert is_ok("api")

    def test_other_http_server_on_the_port_is_an_error(self, schema, port):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", port), Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert finds("api", "error", f"port {port} is in use by another program")
            server.shutdown()

    def test_silent_program_on_the_port_is_an_error(self, embedded, place, port, monkeypatch):
        monkeypatch.setattr(servers, "WAIT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", port)):
            assert finds("api", "error", "in use by another program", str(os.getpid()))


class TestDatabase:
    def test_sound_database_is_ok(self, empty):
        for check in ("schema", "connections", "clock"):
            assert is_ok(check)

    def test_database_without_fsync_is_a_warning(self, empty):
        assert finds("database", "warning", "fsync")

    def test_read_only_database_is_an_error(self, servers, empty, monkeypatch):
        url = _another_database(servers, "bare")
        with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("ALTER DATABASE bare SET default_transaction_read_only = on")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert any("is read-only" in text for level, text in examine("database") if level == "error")

    def test_unreachable_database_is_an_error_without_its_password(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", "postgresql://kotrain:secret@127.0.0.1:1/kotrain")
        assert finds("database", "error", "cannot connect")
        for check in ("schema", "clock", "workers", "jobs", "checkpoints"):
            assert finds(check, "warning", "not checked")
        assert "secret" not in str(checks.examine())

    def test_missing_schema_is_an_error(self, servers, empty, monkeypatch):
        url = _another_database(servers, "bare")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert finds("schema", "error", "no schema yet")
        assert finds("jobs", "warning", "not checked: the tables are of another version")

    def test_newer_schema_is_an_error(self, empty):
        def change(version, oldest_code):
            with database.engine().begin() as connection:
                before = connection.execute(
                    text("SELECT version_num, oldest_code FROM alembic_version, compatibility FOR UPDATE")
                ).one()
                connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
                connection.execute(text("UPDATE compatibility SET oldest_code = :o"), {"o": oldest_code})
            return before

        before = change("9999", 8888)
        try:
            assert finds("schema", "error", "requires 8888 or newer")
        finally:
            change(*before)

    def test_encoding_other_than_utf8_is_reported(self, servers, empty, monkeypatch):
        url = _another_database(
            servers, "latin", "ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert "encoding of the database is LATIN1" in str(examine("database"))

    def test_few_free_connections_are_a_warning(self, empty, monkeypatch):
        monkeypatch.setattr(servers, "POOL_CONNECTIONS", 1000)
        assert finds("connections", "warning", "are free")

    @pytest.mark.parametrize("seconds", [-60, 60])
    def test_clock_difference_is_a_warning(self, empty, monkeypatch, seconds):
        now = time.time
        monkeypatch.setattr(servers.time, "time", lambda: now() + seconds)
        assert finds("clock", "warning", "60 s", "ahead of" if seconds > 0 else "behind")


def _another_database(servers, name, options=""):
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    return servers.database_url.replace("/kotrain?", f"/{name}?")


class TestBroker:
    def test_sound_broker_is_ok(self, empty):
        assert is_ok("broker")

    def test_unreachable_broker_is_an_error(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BROKER_URL", "redis://127.0.0.1:1/0")
        assert finds("broker", "error", "cannot connect")

    def test_wrong_password_is_an_error_without_the_password(self, servers, empty, monkeypatch):
        scheme, _, path = servers.broker_url.partition("@")
        monkeypatch.setenv("KOTRAIN_BROKER_URL", f"{scheme.partition('//')[0]}//:wrong@{path}")
        assert finds("broker", "error", "password")
        assert "wrong@" not in str(examine("broker"))
