"""Clients that do not send, do not read, or open too many connections, against a real server process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import uvicorn

from service.errors import TooMany
from service.operations import connections
from service.operations.connections import MAX_LINGERING_PER_ADDRESS, AcceptErrors, Limits
from service.web.middleware import Pieces

LIMITS = Limits(connections=8, per_address=4, request_seconds=0.4, read_seconds=0.4, streaming=frozenset({"POST /big"}))
LARGE = b"x" * 20_000_000


def refusal(address: str, authorization: str | None, *, is_upload: bool) -> TooMany | None:
    """Refuse all but the known key, and its uploads, too."""
    return TooMany("too many", 3) if authorization != "Bearer known" or is_upload else None


async def application(scope, receive, send) -> None:
    """Answers with the size of the body; `/large` with 20 MB."""
    if scope["type"] == "lifespan":
        scope["state"]["refusal"] = refusal
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    size = 0
    while scope["path"] != "/early":
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    body = LARGE if scope["path"] == "/large" else str(size).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def served(limits: Limits, **options: Any) -> Iterator[int]:
    """The port of a server with these limits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        protocol = connections.protocol(limits)
        config = uvicorn.Config(
            Pieces(application), http=protocol, log_config=None, lifespan="on", **{"proxy_headers": False} | options
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    with served(LIMITS) as port:
        yield port


def connect(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)


def keep_alive_get(connection: socket.socket) -> None:
    """A request whose response leaves the connection open."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while not received.endswith(b"\r\n\r\n0"):
        piece = connection.recv(1000)
        assert piece, "the connection was closed"
        received += piece


def get(port: int, path: str = "/") -> bytes:
    with connect(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()) as connection:
        return answer(connection)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcd",
    ],
    ids=["nothing", "half of the headers", "half of the body", "half of a streamed body"],
)
def test_closes_connection_whose_request_does_not_arrive(port: int, sent: bytes) -> None:
    start = time.monotonic()
    with connect(port, sent) as connection:
        assert answer(connection) == b""
    assert time.monotonic() - start >= 0.3
    assert get(port).endswith(b"0")


@pytest.mark.parametrize(("path", "is_answered"), [("/", False), ("/big", True)])
def test_body_that_moves_slowly(port: int, path: str, is_answered: bool) -> None:
    """A streamed body has time between two pieces, any other in all."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n".encode()
    with connect(port, head) as connection:
        for _ in range(4):
            time.sleep(0.2)
            with suppress(ConnectionError):
                connection.sendall(b"a")
        assert answer(connection).endswith(b"4") == is_answered


def test_half_request_on_kept_connection(port: int) -> None:
    with connect(port) as connection:
        keep_alive_get(connection)
        connection.sendall(b"GET / HT")
        assert answer(connection) == b""


def test_kept_connection_stays_open(port: int) -> None:
    """uvicorn's own timer, of 5 s by default, applies."""
    with connect(port) as connection:
        keep_alive_get(connection)
        time.sleep(0.8)
        keep_alive_get(connection)


def test_closes_connection_of_client_that_does_not_read(port: int) -> None:
    with connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        time.sleep(1)
        assert len(answer(connection)) < len(LARGE)


def test_slow_reader_gets_everything(port: int) -> None:
    with connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        received = 0
        while piece := connection.recv(2_000_000):
            received += len(piece)
            time.sleep(0.05)
    assert received > len(LARGE)


def test_waiting_connections_give_way_to_new_ones(port: int) -> None:
    """Sockets that send nothing do not keep others out."""
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(4)]
        assert get(port).endswith(b"0")
        assert answer(idle[0]) == b""


def test_readers_that_do_not_read_give_way_to_new_connections(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")).recv(1000)
        time.sleep(0.1)
        assert get(port).endswith(b"0")


def test_refuses_connections_beyond_limit_if_all_work(port: int) -> None:
    """The response has a body that says why."""
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
        time.sleep(0.1)
        refusal = get(port)
        assert refusal.startswith(b"HTTP/1.1 503 Service Unavailable")
        assert b"Retry-After: 2" in refusal
        assert b"too many open connections" in refusal
    time.sleep(0.1)
    assert get(port).endswith(b"0")


def test_rest_of_a_body_after_an_early_response(port: int) -> None:
    """uvicorn has ended its own timer then."""
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nabcd"
    with connect(port, head) as connection:
        assert b"200 OK" in connection.recv(1000)
        connection.sendall(b"efgh")
        answer(connection)  # ends


def test_closes_connection_whose_last_bytes_are_not_read(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = 0
        while received < len(LARGE) - 3_000_000:
            received += len(connection.recv(65_536))
        time.sleep(1)
        assert len(answer(connection)) + received < len(LARGE) + 200


def request(path: str = "/v1/me", key: str = "", method: str = "GET", prefix: str = "") -> bytes:
    header = f"authorization: Bearer {key}\r\n" if key else ""
    return f"{method} {prefix}{path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 0\r\n\r\n".encode()


class TestRefusalAtTheConnection:
    def test_is_a_response_that_closes_the_connection(self, port: int) -> None:
        with connect(port, request()) as connection:
            head, _, body = answer(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert (headers["Retry-After"], headers["Connection"]) == ("3", "close")
        assert UUID(headers["X-Request-ID"]).version == 7
        assert int(headers["Content-Length"]) == len(body)
        assert json.loads(body)["detail"] == "too many"

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (request(key="known"), 200),
            (request(key="other"), 429),
            (request(prefix="/kotrain"), 429),
            (request("/v1/datasets?name=x", "known", "POST"), 429),
            (request("/v1/datasets", "known"), 200),
            (request("/"), 200),
            (request("/?next=/v1/me"), 200),
        ],
    )
    def test_of_requests_to_the_api(self, port: int, sent: bytes, status: int) -> None:
        with connect(port, sent) as connection:
            assert connection.recv(1000).startswith(f"HTTP/1.1 {status} ".encode())

    def test_of_a_later_request_on_a_kept_connection(self, port: int) -> None:
        with connect(port) as connection:
            keep_alive_get(connection)
            connection.sendall(request())
            assert answer(connection).startswith(b"HTTP/1.1 429 ")

    def test_is_left_to_the_application_if_headers_come_in_pieces(self, port: int) -> None:
        whole = request()
        with connect(port, whole[:30]) as connection:
            time.sleep(0.05)
            connection.sendall(whole[30:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")

    def test_is_left_to_the_application_behind_a_proxy(self) -> None:
        with served(LIMITS, proxy_headers=True) as port, connect(port, request()) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")

    def test_many_at_once_are_answered(self) -> None:
        """Beyond a number, without time to send the rest of the request."""
        count = MAX_LINGERING_PER_ADDRESS + 10
        with served(replace(LIMITS, per_address=200, connections=200)) as port, ExitStack() as stack:
            for _ in range(3):  # those that the client has closed no longer count
                opened = [stack.enter_context(connect(port, request())) for _ in range(count)]
                assert all(connection.recv(1000).startswith(b"HTTP/1.1 429 ") for connection in opened)
                for connection in opened:
                    connection.close()


def test_raises_soft_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda what: (1024, 4096))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda what, limits: set_to.append(limits))
    assert connections.raise_descriptor_limit() == 4096
    assert set_to == [(4096, 4096)]


def test_failed_accepts_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    handler = AcceptErrors()
    for _ in range(1000):
        context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
        handler(loop, context)
    assert caplog.messages == ["cannot accept connections: [Errno 24] Too many open files"]
    handler(loop, {"message": "something else", "exception": ValueError("x")})
    assert len(caplog.messages) == 2
    loop.close()
