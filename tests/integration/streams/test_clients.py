"""Many, slow and disconnected clients of streams, an outage of the database, and the server's shutdown."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import replace

import httpx2
import psycopg
import pytest
from sqlalchemy import delete, select

from service.accounts import api_keys
from service.config import Settings, settings
from service.jobs import heartbeats, outcomes
from service.jobs.heartbeats import Batch, Beat
from service.operations import stack
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import ApiKey, User
from service.streams import hub, response
from service.streams.hub import Hub
from tests.integration.job_calls import claim, do, submit
from tests.integration.streams.conftest import served
from tests.waiting import until


def path(job_id):
    return f"/v1/jobs/{job_id}/events"


def measure(claimed, steps, names=("train_loss",)):
    points = {name: (list(steps), [1.0] * len(steps), [0.5] * len(steps)) for name in names}
    do(heartbeats.beat, "w1", [Beat(claimed, steps[-1], None, [Batch(points)])])


def finish(claimed):
    assert do(outcomes.finish, claimed, Reason.COMPLETED)


def get(server, where="/healthz", **headers):
    return httpx2.get(server.url + where, headers={"Authorization": f"Bearer {server.key}"} | headers, trust_env=False)


def test_client_that_never_reads_is_disconnected_and_others_are_not(server, monkeypatch, caplog):
    monkeypatch.setattr(response, "SEND_TIMEOUT_SECONDS", 0.5)
    job_id = submit()
    claimed = claim()
    good = server.listen(path(job_id))
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", server.port))
        silent.sendall(f"GET {path(job_id)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode())
        until(lambda: server.hub.streams == 2)
        for start in range(0, 60_000, 20_000):  # 2 MB, more than the buffers take
            measure(claimed, range(start, start + 20_000))
        until(lambda: server.hub.streams == 1)
        assert get(server).json() == {"status": "ok"}
        finish(claimed)
        assert len(good.wait_until_end().points["train_loss"]) == 60_000
    assert [record.message for record in caplog.records if "was disconnected" in record.message]


def test_kernel_drops_a_connection_whose_peer_accepts_nothing(monkeypatch):
    monkeypatch.setattr(stack, "UNACKNOWLEDGED_MILLISECONDS", 400)
    with stack.listen("127.0.0.1", 0) as listener, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.settimeout(30)
        with accepted, pytest.raises(TimeoutError, match="Connection timed out"):  # by the kernel, not by Python
            accepted.sendall(bytes(100_000_000))


def test_responses_do_not_wait_for_acknowledgements():
    with stack.listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("of", ["a job", "everything"])
def test_heartbeats_are_sent_during_silence(server, monkeypatch, of):
    """Also on streams that wake up more often than that without an event."""
    monkeypatch.setattr(hub, "PULSE_SECONDS", 0.05)
    monkeypatch.setattr(response, "HEARTBEAT_SECONDS", 0.4)
    job_id = submit()
    headers = {"Authorization": f"Bearer {server.key}"}
    with (
        httpx2.Client(trust_env=False, headers=headers) as client,
        client.stream("GET", server.url + (path(job_id) if of == "a job" else "/v1/events")) as answer,
    ):
        lines = answer.iter_lines()
        until(lambda: next(lines) == ":")
        start, polls = time.monotonic(), server.hub.polls
        assert [next(lines) for _ in range(4)] == ["", ":", "", ":"]
        assert time.monotonic() - start > 0.4
        assert server.hub.polls > polls + 2


def test_deleted_key_ends_its_streams(server, monkeypatch):
    monkeypatch.setattr(hub, "KEY_SECONDS", 0.1)
    job_id = submit()
    bobs = replace(server, key=api_keys.create("bob"))
    revoked = [bobs.listen(path(job_id)), bobs.listen("/v1/events").opened()]
    other = server.listen(path(job_id))
    for listener in (revoked[0], other):
        listener.wait_for_events(1)
    polls = server.hub.polls
    until(lambda: server.hub.polls > polls + 1)
    assert server.hub.streams == 3
    with database.transaction() as session:
        session.execute(
            delete(ApiKey).where(ApiKey.user_id == select(User.id).where(User.name == "bob").scalar_subquery())
        )
    for listener in revoked:
        assert not listener.wait_until_end().has_ended
    assert get(bobs, path(job_id), **{"Last-Event-ID": revoked[0].page.last_id}).status_code == 401
    finish(claim())
    assert other.wait_until_end().statuses() == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), psycopg.OperationalError()])
def test_polling_continues_after_a_failure(server, monkeypatch, caplog, error):
    job_id = submit()
    listener = server.listen(path(job_id))
    listener.wait_for_events(1)
    poll, failed = Hub._poll, threading.Event()

    async def fail_once(*args):
        if not failed.is_set():
            failed.set()
            raise error
        await poll(*args)

    monkeypatch.setattr(Hub, "_poll", fail_once)
    assert failed.wait(30)
    finish(claim())
    assert listener.wait_until_end().statuses() == ["queued", "running", "succeeded"]
    assert [record for record in caplog.records if record.message.startswith("streams wait")]
    assert ("unforeseen" in caplog.text) == isinstance(error, RuntimeError)


def test_open_transaction_that_delays_streams_is_logged_once(server, monkeypatch, caplog):
    def logged():
        return [record.message for record in caplog.records if "wait for its end" in record.message]

    def wait_for_polls():
        polls = server.hub.polls
        until(lambda: server.hub.polls > polls + 3)

    monkeypatch.setattr(hub, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(hub, "PULSE_SECONDS", 0.05)
    listener = server.listen("/v1/events").opened()
    with psycopg.connect(settings().database_url.replace("+psycopg", "", 1)) as idle:
        (xid,) = idle.execute("SELECT pg_current_xact_id()::text").fetchone()
        wait_for_polls()
        assert logged() == []  # no stream is delayed
        submit()
        until(logged)
        wait_for_polls()
    (message,) = logged()
    assert message.startswith(f"transaction {xid} has been open for ")
    listener.wait_for_events(1)


def test_number_of_streams_is_limited(server, monkeypatch):
    monkeypatch.setattr(hub, "MAX_STREAMS", 2)
    job_id = submit()
    for _ in range(2):
        server.listen(path(job_id)).wait_for_events(1)
    refused = get(server, path(job_id))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.headers["content-type"] == "application/problem+json"


def test_number_of_streams_of_a_user_is_limited(server, monkeypatch):
    monkeypatch.setattr(hub, "settings", lambda: Settings(max_streams_per_user=2))
    job_id = submit()
    for _ in range(2):
        server.listen(path(job_id)).wait_for_events(1)
    refused = get(server, path(job_id))
    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("your limit of 2 open streams is reached")
    other = {"Authorization": f"Bearer {api_keys.create('grace')}"}
    with httpx2.stream("GET", server.url + path(job_id), headers=other, trust_env=False) as stream:
        assert stream.status_code == 200


def test_streams_survive_a_database_outage(server, servers):
    job_id = submit()
    job_listener, events_listener = server.listen(path(job_id)), server.listen("/v1/events").opened()
    job_listener.wait_for_events(1)
    claimed = claim()
    measure(claimed, [1, 2])
    job_listener.wait_for_events(3)
    servers.postgres.stop()
    assert get(server).status_code == 200
    assert get(server, path(job_id)).status_code == 503
    servers.postgres.start()
    measure(claimed, [3, 4])
    finish(claimed)
    page = job_listener.wait_until_end()
    assert page.points == {"train_loss": dict.fromkeys([1, 2, 3, 4], 1.0)}
    assert page.statuses() == ["queued", "running", "succeeded"]
    until(lambda: len(events_listener.page.named("status")) >= 2)
    assert [event.data["status"] for event in events_listener.page.named("status")] == ["running", "succeeded"]


def test_shutdown_ends_all_streams(key, caplog):
    with served(key) as server:
        job_id = submit()
        listeners = [server.listen(path(job_id)) for _ in range(3)] + [server.listen("/v1/events").opened()]
        pages = [listener.wait_for_events(1) for listener in listeners[:3]]
        began = time.monotonic()
    for listener in listeners:
        listener.wait_until_end()  # the response is complete, no connection is cut
    assert time.monotonic() - began < stack.STREAM_SECONDS
    assert not any(page.has_ended for page in pages)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    with served(key) as another:
        resumed = [another.listen(path(job_id), page) for page in pages]
        finish(claim())
        for listener in resumed:
            assert listener.wait_until_end().statuses() == ["queued", "running", "succeeded"]


def test_equal_reads_are_shared(server, monkeypatch):
    reads = []
    read = hub.read_delta

    def counted(*args):
        reads.append(args)
        return read(*args)

    monkeypatch.setattr(hub, "read_delta", counted)
    job_id = submit()
    listeners = [server.listen(path(job_id)) for _ in range(10)]
    for listener in listeners:
        listener.wait_for_events(1)
    before = len(reads)
    polls = server.hub.polls
    until(lambda: server.hub.polls > polls + 1)
    claimed = claim()
    for listener in listeners:
        listener.wait_for_events(2)
    assert len(reads) - before < 10
    finish(claimed)
    for listener in listeners:
        listener.wait_until_end()


def test_many_clients_connect_at_once(server):
    """More clients than connections to the database."""
    job_id = submit()
    finish(claim())
    headers = {"Authorization": f"Bearer {server.key}"}

    async def connect() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(headers=headers, trust_env=False, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(client.get(server.url + path(job_id)) for _ in range(120)))

    answers = asyncio.run(connect())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
