"""The API while the broker or the database is down or read-only, and after an unexpected error of the broker."""

import time

import psycopg
from sqlalchemy import make_url

from service.jobs import queue
from tests import connections
from tests.integration.api_calls import JOB, problem, stored_jobs
from tests.integration.comparisons.comparison_calls import REQUEST
from tests.waiting import until


def readiness(api, database):
    """The body of /readyz with this state of the database; it is looked up once a second."""
    response = until(lambda: (answer := api.get("/readyz")).json()["database"] == database and answer)
    assert response.status_code == (200 if database == "up" else 503)
    return response.json()


def test_jobs_are_accepted_while_the_broker_is_down(api, servers):
    servers.valkey.stop()
    try:
        until(lambda: api.get("/readyz").json() == {"status": "degraded", "database": "up", "broker": "down"})
        assert api.post("/v1/jobs", json=JOB).status_code == 202
    finally:
        servers.valkey.start()
    assert stored_jobs() == 1


def test_jobs_are_accepted_and_later_messages_sent_after_an_unexpected_error(api, monkeypatch, caplog):
    sent = []

    def fail(name):
        sent.append(name)
        raise RuntimeError(name)

    monkeypatch.setattr(queue, "wake", fail)
    assert api.post("/v1/comparisons", json=REQUEST).status_code == 202
    assert len(sent) > 1
    assert len(caplog.records) == len(sent)


def test_returns_503_while_the_database_is_read_only(api, servers):
    role = make_url(servers.database_url).username
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        connections.close_all()
        try:
            answer = api.post("/v1/jobs", json=JOB)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["detail"] == "the database is read-only; try again in a few seconds"
            assert readiness(api, "read-only") == {"status": "down", "database": "read-only", "broker": "up"}
        finally:
            admin.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
    deadline = time.monotonic() + 20
    while not api.post("/v1/jobs", json=JOB).is_success:  # the pool discards each connection that refused a write
        assert time.monotonic() < deadline


def test_returns_503_while_the_database_is_down(api, servers):
    servers.postgres.stop()
    try:
        response = api.post("/v1/jobs", json=JOB)
        problem(response, 503)
        assert response.headers["Retry-After"] == "5"
        assert readiness(api, "down")["status"] == "down"
        assert api.get("/healthz").status_code == 200
    finally:
        servers.postgres.start()
    assert stored_jobs() == 0
    assert api.post("/v1/jobs", json=JOB).status_code == 202
