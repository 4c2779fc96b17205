"""The address of the API, proxies, and the causes of failed connections, against real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kotrain import Client, ConnectionFailed, KotrainError, Unauthorized, address, transport
from kotrain.errors import InvalidAddress, UnexpectedResponse

PROXIES = [name for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (base, base.lower())]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
    for name in (*PROXIES, "KOTRAIN_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that reads once from each connection and answers, and what it has read."""
    received: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                received.append(connection.recv(65_536))
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def response(body: bytes, status: str = "200 OK", headers: str = "Content-Type: text/html") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def error_of(url: str, kind: type[KotrainError] = KotrainError) -> str:
    with pytest.raises(kind) as caught, Client(url, key="secret") as client:
        client.catalog()
    assert type(caught.value) is kind or kind is KotrainError
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "the address of kotrain '127.0.0.1:8000' must have the form http://HOST:PORT"),
        ("lab", "must have the form http://HOST:PORT or https://HOST"),
        ("ftp://lab", "must have the form http://HOST:PORT or https://HOST"),
        ("http://", "must have the form http://HOST:PORT or https://HOST"),
        ("http://lab:99999", "the address of kotrain is invalid: write http://HOST:PORT or https://HOST"),
        ("http://user:p4secret/word@lab", "the address of kotrain is invalid: write http://HOST:PORT"),
        (
            "http://user:secret@lab:8000",
            "must not contain a user or a password: write http://lab:8000, and set the API",
        ),
        ("user:secret@lab:8000", "the address of kotrain must have the form"),
        ("http://lab/?a=1", "has a query or a fragment"),
    ],
)
def test_rejects_address(url: str, message: str) -> None:
    text = error_of(url, InvalidAddress)
    assert message in text
    assert "secret" not in text


def test_final_slash_and_spaces_are_ignored() -> None:
    assert Client(" http://lab/kotrain/ ").url == "http://lab/kotrain"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, host: str) -> None:
    with server(lambda connection: connection.sendall(response(b"x", "502 Bad Gateway"))) as (proxy, seen):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy}")
        error_of(f"http://{host}:9", ConnectionFailed)
        assert seen == []
        assert "502 Bad Gateway" in error_of("http://lab:9")
        assert b"lab:9" in seen[0]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_proxy_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "ALL_PROXY" in error_of("http://lab:8000", InvalidAddress)
    error_of("http://127.0.0.1:9", ConnectionFailed)


def test_refused_connection() -> None:
    expected = "cannot connect to kotrain at http://127.0.0.1:9; start it with `kotrain up`, or set KOTRAIN_URL"
    assert error_of("http://127.0.0.1:9", ConnectionFailed) == expected


def test_unknown_host() -> None:
    assert "its host name is unknown" in error_of("http://no-such-host.invalid", ConnectionFailed)


def test_tls_on_plain_port() -> None:
    with server(lambda connection: connection.sendall(response(b"", "400 Bad Request"))) as (port, _):
        text = error_of(f"https://127.0.0.1:{port}", ConnectionFailed)
    assert "does not answer with TLS there; does its address begin with http://?" in text


def test_plain_http_on_tls_port() -> None:
    alert = bytes([21, 3, 1, 0, 2, 2, 22])  # what TLS answers to plain text (RFC 8446, section 6)
    with server(lambda connection: connection.sendall(alert)) as (port, _):
        text = error_of(f"http://127.0.0.1:{port}", ConnectionFailed)
    assert "does its address begin with https://?" in text


def test_untrusted_certificate_names_remedy() -> None:
    cause = ssl.SSLCertVerificationError("unable to get local issuer certificate")
    assert "set SSL_CERT_FILE" in str(ConnectionFailed("https://lab", cause))


def test_page_of_login_is_an_error_of_the_sdk() -> None:
    with server(lambda connection: connection.sendall(response(b"<html>Log in</html>"))) as (port, _):
        text = error_of(f"http://127.0.0.1:{port}", UnexpectedResponse)
    assert "answered with text/html, not as kotrain does; is it the page of a login" in text


def test_redirect_names_target() -> None:
    moved = response(b"", "302 Found", "Location: https://login.example/")
    with server(lambda connection: connection.sendall(moved)) as (port, seen):
        text = error_of(f"http://127.0.0.1:{port}")
    assert text == "the server returned 302 Found to https://login.example/; set KOTRAIN_URL to the final address"
    assert len(seen) == 1


def test_missing_key_is_named_in_terms_of_the_client(api) -> None:  # type: ignore[no-untyped-def]
    del api.headers["Authorization"]
    with pytest.raises(Unauthorized, match=r"^no API key for http://testserver: set KOTRAIN_KEY"):
        Client(http=api).catalog()


def test_same_addresses() -> None:
    assert address.is_same("http://127.0.0.1:80/", "http://127.0.0.1")
    assert not address.is_same("http://[::1]:80", "http://127.0.0.1")
    assert not address.is_same("http://lab:8000", "http://192.0.2.1:8000")


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("localhost", True), ("lab.localhost", True)),
        *(("0.0.0.0", True), ("[::]", True), ("[::ffff:127.0.0.1]", True), ("lab", False), ("10.0.0.1", False)),
    ],
)
def test_addresses_of_this_machine(host: str, is_here: bool) -> None:
    assert address.is_loopback(f"http://{host}:8000") == is_here
