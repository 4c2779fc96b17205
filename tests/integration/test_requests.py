"""Requests that no route gets to see: bodies, methods, cursors and paths that are refused for all."""

import json

import pytest
from starlette.testclient import TestClient

from service.web.middleware import HeadAsGet
from tests.integration.api_calls import JOB, problem

AS_JSON = {"Content-Type": "application/json"}


class TestRequests:
    def test_half_of_a_character_is_refused(self, api):
        body = json.dumps({**JOB, "tags": {"a": "\ud800"}}).encode()
        assert "unpaired surrogate" in problem(api.post("/v1/jobs", content=body, headers=AS_JSON), 400)["detail"]
        request = json.dumps({"optimizers": [{"optimizer": "adam", "space": {"\udfff": [1]}}]}).encode()
        problem(api.post("/v1/comparisons", content=request, headers=AS_JSON), 400)

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets?name=x&format=csv", "/healthz"])
    def test_two_lengths_are_refused(self, api, path):
        """Otherwise a proxy and the API could disagree where the next request begins."""
        lengths = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
        refused = api.post(path, content=b"0\r\n\r\n", headers={**AS_JSON, **lengths})
        assert problem(refused, 400)["detail"] == "give either Content-Length or Transfer-Encoding"
        assert refused.headers["Connection"] == "close"

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ('{"dataset": "digits", "dataset": "mnist"}', "/dataset"),
            ('{"optimizer": {"name": "adam", "params": {"lr": 0.1, "lr": 0.2}}}', "/optimizer/params/lr"),
            ('{"tags": {"a/b": [{"c": {"d": 1, "d": 1}}]}}', "/tags/a~1b/0/c/d"),
            ('{"a": {"b": 1, "b": 2}, "a": 3}', "/a"),
        ],
    )
    def test_repeated_key_is_refused(self, api, body, pointer):
        for path in ("/v1/jobs", "/v1/comparisons"):
            answer = problem(api.post(path, content=body, headers=AS_JSON), 400)
            assert answer["detail"] == f"{pointer} is given twice"
            assert answer["errors"] == [{"pointer": pointer, "detail": "this field is given twice"}]

    def test_bodies_of_changes_have_the_same_limits(self, api):
        path = "/v1/jobs/00000000-0000-7000-8000-000000000000"
        problem(api.patch(path, content='{"note": "a", "note": "b"}', headers=AS_JSON), 400)
        problem(api.patch(path, content=json.dumps({"note": "\ud800"}), headers=AS_JSON), 400)
        problem(api.patch(path, json={"note": "x" * 2**20}), 413)
        problem(api.patch(path, content="{", headers={"Authorization": "Bearer wrong"}), 401)

    def test_whole_characters_beyond_16_bits_are_accepted(self, api):
        body = json.dumps({**JOB, "tags": {"a": "\U00020000"}}).encode()
        assert api.post("/v1/jobs", content=body, headers=AS_JSON).json()["tags"] == {"a": "\U00020000"}

    def test_tags_are_composed(self, api):
        body = {**JOB, "tags": {"cafe\u0301": "e\u0301"}}
        assert api.post("/v1/jobs", json=body).json()["tags"] == {"caf\u00e9": "\u00e9"}

    def test_many_errors_are_counted(self, api):
        body = {**JOB, "model": {"name": "mlp", "params": {"hidden": [[0]] * 1000}}}
        answer = problem(api.post("/v1/jobs", json=body), 422)
        assert answer["errors"][20:] == [{"pointer": "", "detail": "and 980 more errors"}]
        assert answer["detail"].endswith("; and 980 more errors")

    def test_body_with_too_many_values_is_refused_unread(self, api):
        body = {**JOB, "model": {"name": "mlp", "params": {"hidden": [[0]] * 20_001}}}
        assert problem(api.post("/v1/jobs", json=body), 413)["detail"] == "the body has more than 20,000 values"

    def test_cursor_of_another_list_is_refused(self, api):
        for _ in range(2):
            api.post("/v1/jobs", json=JOB)
        cursor = api.get("/v1/jobs", params={"limit": 1}).json()["next"]
        assert api.get("/v1/jobs", params={"after": cursor}).status_code == 200
        assert problem(api.get("/v1/comparisons", params={"after": cursor}), 422)["errors"][0]["pointer"] == "after"

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/v1/jobs", "GET, HEAD, POST"),
            ("/v1/jobs/actions", "GET, HEAD, PATCH, POST"),
            ("/v1/datasets/images/a", "DELETE, GET, HEAD"),
            ("/healthz", "GET, HEAD"),
        ],
    )
    def test_other_methods_name_those_that_are_allowed(self, api, path, allowed):
        answer = api.put(path)
        problem(answer, 405)
        assert answer.headers["Allow"] == allowed

    @pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/v1/me", "/", "/dashboard/main.js"])
    def test_head_is_get_without_body(self, api, path):
        with_body, without = api.get(path), api.head(path)
        assert (without.status_code, without.content) == (200, b"")
        assert without.headers["content-length"] == with_body.headers["content-length"]

    def test_head_of_a_stream_ends(self, api):
        answer = api.head("/v1/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert api.put("/v1/events").headers["Allow"] == "GET, HEAD"

    def test_head_makes_no_more_than_the_first_part_of_a_body(self):
        """As of a checkpoint of gigabytes."""
        made = []

        async def download(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"300")]})
            for part in range(3):
                made.append(part)
                await send({"type": "http.response.body", "body": bytes(100), "more_body": part < 2})

        answer = TestClient(HeadAsGet(download)).head("/")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "300")
        assert made == [0]

    def test_final_slash_is_not_redirected(self, api):
        problem(api.get("/v1/jobs/", follow_redirects=False), 404)
