"""Retries and errors of the client, after faults that a real server does not provoke, such as lost connections."""

import json

import httpx2
import pytest

from kotrain import ApiError, Client, Conflict, ConnectionFailed, InvalidRequest, Unavailable, errors, transport

JOB = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
CATALOG = {"datasets": [], "models": [], "optimizers": [], "schedules": []}


def problem(status, detail="away", fields=()):
    document = {"type": "t", "title": "T", "status": status, "detail": detail, "errors": list(fields)}
    return httpx2.Response(status, json=document)


@pytest.fixture
def waits(monkeypatch):
    """The pauses between attempts, in seconds; they are recorded, not slept."""
    pauses = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    return pauses


def client_of(*responses):
    """A client whose requests get these responses in turn, and the list of its requests."""
    requests, remaining = [], list(responses)

    def handle(request):
        requests.append(request)
        response = remaining.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    http = httpx2.Client(transport=httpx2.MockTransport(handle), base_url="http://lab:8000")
    return Client(http=http, key="secret"), requests


def test_retries_after_lost_connection(waits):
    client, requests = client_of(
        httpx2.ReadError("lost"), httpx2.ConnectError("no"), httpx2.Response(200, json=CATALOG)
    )
    assert client.catalog().datasets == []
    assert waits == [0.2, 0.4]
    assert [request.headers["Authorization"] for request in requests] == ["Bearer secret"] * 3


def test_raises_connection_failed_after_four_attempts(waits):
    client, _ = client_of(*[httpx2.ConnectError("refused")] * 4)
    message = r"cannot connect to kotrain at http://lab:8000 \(refused\); is the address right\? Set KOTRAIN_URL"
    with pytest.raises(ConnectionFailed, match=rf"^{message}$"):
        client.catalog()
    assert waits == [0.2, 0.4, 0.8]


def test_retry_after_is_limited(waits):
    responses = [problem(503), problem(503), httpx2.Response(200, json=CATALOG)]
    responses[0].headers["Retry-After"] = "5"
    responses[1].headers["Retry-After"] = "3600"
    client_of(*responses)[0].catalog()
    assert waits == [5, 10]


def test_raises_unavailable_after_four_attempts(waits):
    with pytest.raises(Unavailable, match="away"):
        client_of(*[problem(503) for _ in range(4)])[0].catalog()
    assert len(waits) == 3


def test_retries_of_submission_share_idempotency_key(waits):
    client, requests = client_of(httpx2.ReadTimeout("slow"), problem(409, "under way"), problem(422, "bad"))
    with pytest.raises(InvalidRequest):
        client.submit(JOB)
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert [json.loads(request.content) for request in requests] == [JOB] * 3


def test_each_submission_has_its_own_idempotency_key(waits):
    client, requests = client_of(problem(422), problem(422))
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            client.submit(JOB)
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 2


def test_does_not_retry_conflict_of_cancel(waits):
    client, requests = client_of(problem(409, "it has ended"))
    with pytest.raises(Conflict, match="it has ended"):
        client.cancel("1")
    assert len(requests) == 1
    assert waits == []


@pytest.mark.parametrize(("status", "kind"), errors.BY_STATUS.items())
def test_status_determines_exception(waits, status, kind):
    with pytest.raises(ApiError) as error:
        client_of(*[problem(status, "why", [{"pointer": "/seed", "detail": "wrong"}])] * 4)[0].get("1")
    assert type(error.value) is kind
    assert (error.value.status, error.value.type, error.value.detail) == (status, "t", "why")
    assert [(field.pointer, field.detail) for field in error.value.fields] == [("/seed", "wrong")]


def test_response_of_proxy_raises_api_error(waits):
    with pytest.raises(ApiError, match="the server returned 502 Bad Gateway") as error:
        client_of(httpx2.Response(502, html="<h1>nginx</h1>"))[0].catalog()
    assert type(error.value) is ApiError


def test_omits_empty_parameters(waits):
    client, requests = client_of(problem(404))
    with pytest.raises(ApiError):
        client.compare("digits", "mlp", metric=None, tag=["a:1", "b:2"], where=[])
    assert str(requests[0].url) == "http://lab:8000/v1/compare?dataset=digits&model=mlp&tag=a%3A1&tag=b%3A2"
