"""What cannot be provoked on a real server: lost connections, 503s, answers of a proxy."""

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
    """The waits between attempts, which take no time here."""
    waited = []
    monkeypatch.setattr(transport.time, "sleep", waited.append)
    return waited


def client_of(*answers):
    """A client whose requests meet these answers in turn, and the requests."""
    requests, left = [], list(answers)

    def handle(request):
        requests.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx2.Client(transport=httpx2.MockTransport(handle), base_url="http://lab:8000")
    return Client(http=http, key="secret"), requests


def test_lost_connection_is_tried_again(waits):
    client, requests = client_of(
        httpx2.ReadError("lost"), httpx2.ConnectError("no"), httpx2.Response(200, json=CATALOG)
    )
    assert client.catalog().datasets == []
    assert waits == [0.2, 0.4]
    assert [request.headers["Authorization"] for request in requests] == ["Bearer secret"] * 3


def test_nothing_answers(waits):
    client, _ = client_of(*[httpx2.ConnectError("refused")] * 4)
    message = "cannot connect to kotrain at http://lab:8000; start it with `kotrain up`, or set KOTRAIN_URL"
    with pytest.raises(ConnectionFailed, match=rf"^{message}$"):
        client.catalog()
    assert waits == [0.2, 0.4, 0.8]


def test_retry_after_is_kept_to_a_limit(waits):
    answers = [problem(503), problem(503), httpx2.Response(200, json=CATALOG)]
    answers[0].headers["Retry-After"] = "5"
    answers[1].headers["Retry-After"] = "3600"
    client_of(*answers)[0].catalog()
    assert waits == [5, 10]


def test_unavailable_in_the_end(waits):
    with pytest.raises(Unavailable, match="away"):
        client_of(*[problem(503) for _ in range(4)])[0].catalog()
    assert len(waits) == 3


def test_submission_is_repeated_under_one_key(waits):
    client, requests = client_of(httpx2.ReadTimeout("slow"), problem(409, "under way"), problem(422, "bad"))
    with pytest.raises(InvalidRequest):
        client.submit(JOB)
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert [json.loads(request.content) for request in requests] == [JOB] * 3


def test_each_submission_has_its_own_key(waits):
    client, requests = client_of(problem(422), problem(422))
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            client.submit(JOB)
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 2


def test_conflict_of_a_cancel_is_final(waits):
    client, requests = client_of(problem(409, "it has ended"))
    with pytest.raises(Conflict, match="it has ended"):
        client.cancel("1")
    assert len(requests) == 1
    assert waits == []


@pytest.mark.parametrize(("status", "kind"), errors.BY_STATUS.items())
def test_status_decides_the_exception(waits, status, kind):
    with pytest.raises(ApiError) as caught:
        client_of(*[problem(status, "why", [{"pointer": "/seed", "detail": "wrong"}])] * 4)[0].get("1")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.type, caught.value.detail) == (status, "t", "why")
    assert [(field.pointer, field.detail) for field in caught.value.fields] == [("/seed", "wrong")]


def test_an_answer_that_is_not_kotrains(waits):
    with pytest.raises(ApiError, match="the server returned 502 Bad Gateway") as caught:
        client_of(httpx2.Response(502, html="<h1>nginx</h1>"))[0].catalog()
    assert type(caught.value) is ApiError


def test_empty_parameters_are_left_out(waits):
    client, requests = client_of(problem(404))
    with pytest.raises(ApiError):
        client.compare("digits", "mlp", metric=None, tag=["a:1", "b:2"], where=[])
    assert str(requests[0].url) == "http://lab:8000/v1/compare?dataset=digits&model=mlp&tag=a%3A1&tag=b%3A2"
