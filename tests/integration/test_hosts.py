"""Names under which the API answers: its own, local ones and addresses, but not another site's (DNS rebinding)."""

import socket

import pytest
from starlette.testclient import TestClient

from service.config import settings
from service.web.hosts import KnownHosts


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def status(host: str, names: str = "", path: str = "/v1/jobs") -> int:
    return TestClient(KnownHosts(answer, names)).get(path, headers={"Host": host}).status_code


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "192.168.1.7:80", "[fe80::1]"),
        *("gpu7", "GPU7:8000", "gpu7.local", "gpu7.lan.", "kotrain.internal", "kotrain.home.arpa"),
        *(socket.gethostname(), socket.getfqdn()),
    ],
)
def test_own_and_local_names_are_known(host):
    assert status(host) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "local.evil.example"])
def test_public_names_are_refused_unless_they_are_set(host):
    assert status(host) == 421
    assert status(host, path="/healthz") == 200
    assert status(host, names=f"other.example, {host.partition(':')[0].upper()}") == 200
    assert status(host, names="*") == 200


def test_refusal_names_the_setting(api):
    assert settings().hosts == ""
    refused = api.get("/v1/jobs", headers={"Host": "evil.example"})
    assert refused.status_code == 421
    assert refused.json()["detail"] == (
        "this server is not known as 'evil.example'; add the name to KOTRAIN_HOSTS, or use its address"
    )
