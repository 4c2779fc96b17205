"""What clients without a key, or with many requests, can take from others: budgets per address and user, turns."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import ExitStack

import httpx2
import pytest

from service import app
from service.accounts import api_keys
from service.config import settings
from service.web.budgets import MAX_LEVELS, Budget, Budgets, Turns
from service.web.routes.datasets import IN_PROGRESS
from tests.clients import client
from tests.connections import statements
from tests.integration.streams.conftest import served
from tests.integration.test_dashboard import FILES
from tests.waiting import until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestBudget:
    def test_is_refilled_steadily_up_to_its_units(self) -> None:
        clock = Clock()
        budget = Budget(units=10, per_second=2, clock=clock)
        budget.spend("a", 10)
        assert budget.wait_seconds("a") == 0.5
        assert budget.wait_seconds("b") == 0
        clock.now = 0.5
        assert budget.wait_seconds("a") == 0
        clock.now = 100
        budget.spend("a", 11)
        assert budget.wait_seconds("a") == 1

    def test_keeps_a_limited_number_of_levels(self) -> None:
        budget = Budget(units=1, per_second=1, clock=Clock())
        for number in range(MAX_LEVELS + 1):
            budget.spend(str(number), 2)
        assert len(budget._levels) == MAX_LEVELS
        assert budget.wait_seconds(str(MAX_LEVELS)) == 2


def look_ups(sent) -> list[str]:
    """Statements of requests; those that look up all keys belong to the application."""
    return [statement for statement, _ in sent if "LIMIT" not in statement]


@pytest.fixture
def exhausted(monkeypatch):
    """Empties a budget of the client's address; budgets are not refilled."""

    def exhausted(api, name: str) -> Budgets:
        budgets = api.app.state.budgets
        budgets.refill()
        for budget in (budgets.refusals, budgets.files):
            monkeypatch.setattr(budget, "_clock", Clock())
        getattr(budgets, name).spend("testclient", 100_000)
        return budgets

    return exhausted


class TestWithoutKey:
    def test_refused_keys_are_counted(self, api, exhausted) -> None:
        budgets = exhausted(api, "refusals")
        budgets.refusals.spend("testclient", -100_000 + budgets.refusals._units - 1)  # one unit is left
        wrong = {"Authorization": "Bearer kt_wrong"}
        assert api.get("/v1/me", headers=wrong).status_code == 401
        refused = api.get("/v1/me", headers=wrong)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["detail"].startswith("too many requests without a valid API key from this address")

    def test_users_of_the_same_address_are_not_affected(self, api, exhausted) -> None:
        assert api.get("/v1/me").status_code == 200
        exhausted(api, "refusals")
        assert api.get("/v1/me").status_code == 200
        assert api.get("/v1/me", headers={"Authorization": "Bearer kt_wrong"}).status_code == 429
        assert api.get("/healthz").status_code == api.get("/readyz").status_code == 200
        assert api.get("/").status_code == 200

    def test_new_keys_are_known_before_their_first_use(self, api, as_admin, exhausted) -> None:
        made = as_admin("/v1/keys", {"user": "bob"})["key"]
        older = api_keys.create("carol")
        api_keys._KNOWN.clear()
        api_keys.remember_all()  # as after a restart
        exhausted(api, "refusals")
        for key in (made, older):
            assert api.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).status_code == 200

    def test_keys_made_by_another_process_become_known(self, api, monkeypatch, exhausted) -> None:
        """Also if another client of the address keeps its budget empty."""
        monkeypatch.setattr(app, "KEYS_SECONDS", 0.05)
        made = api_keys.create("dave")
        api_keys._KNOWN.clear()
        exhausted(api, "refusals")
        headers = {"Authorization": f"Bearer {made}"}
        assert api.get("/v1/me", headers=headers).status_code == 429
        until(lambda: api.get("/v1/me", headers=headers).status_code == 200)
        assert api.get("/v1/me", headers={"Authorization": "Bearer kt_wrong"}).status_code == 429

    def test_request_without_a_key_takes_no_query(self, api) -> None:
        with statements() as sent:
            assert api.post("/v1/jobs", json={}, headers={"Authorization": ""}).status_code == 401
        assert not look_ups(sent)

    def test_revoked_key_counts_as_unknown(self, api, as_admin, exhausted) -> None:
        key = as_admin("/v1/keys", {"user": "bob"})
        headers = {"Authorization": f"Bearer {key['key']}"}
        assert api.get("/v1/me", headers=headers).status_code == 200
        as_admin.delete(f"/v1/keys/{key['id']}")
        assert api.get("/v1/me", headers=headers).status_code == 401
        exhausted(api, "refusals")
        assert api.get("/v1/me", headers=headers).status_code == 429

    def test_pages_and_files_are_counted_by_their_size(self, api, exhausted) -> None:
        budgets = exhausted(api, "files")
        refused = api.get("/dashboard/plotly.js")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 100
        assert api.get("/v1/me").status_code == 200
        budgets.files._levels.clear()
        before = budgets.files._level("testclient").left
        size = int(api.get("/dashboard/plotly.js").headers["Content-Length"])
        assert before - budgets.files._level("testclient").left == pytest.approx(1 + size / 65_536)

    def test_twenty_people_behind_one_address_never_wait(self, api, exhausted) -> None:
        """Each opens the dashboard for the first time, all within a second: all files, compressed."""
        budgets = exhausted(api, "files")
        budgets.files._levels.clear()
        before = budgets.files._level("testclient").left
        for name in (*FILES, "plotly.js"):
            assert api.get(f"/dashboard/{name}").status_code == 200
        assert 20 * (before - budgets.files._level("testclient").left) < before


class TestRefusedUser:
    def test_is_refused_without_a_query_once_budget_is_empty(self, api, key, empty, monkeypatch, exhausted) -> None:
        """A program that uploads again and again although two of its uploads are in progress."""
        user = api_keys.known_user(f"Bearer {key}")
        budgets = exhausted(api, "refusals")
        budgets.refusals.spend(user, budgets.refusals._units - 1)  # one unit is left
        monkeypatch.setitem(IN_PROGRESS, user, 2)
        upload = {"url": "/v1/datasets", "params": {"name": "x", "format": "csv"}, "content": b"a"}
        assert api.post(**upload).json()["detail"].startswith("you have 2 uploads in progress")
        with statements() as sent:
            refused = api.post(**upload)
        assert (refused.status_code, refused.headers["Retry-After"], look_ups(sent)) == (429, "1", [])
        assert refused.json()["detail"].startswith("too many refused uploads of this user; try again in 1 second")
        assert api.get("/v1/me").status_code == 200


def test_uploads_take_no_turn_while_they_are_received(key, empty, monkeypatch) -> None:
    """More of them than a user has turns; the user's other calls are answered meanwhile."""
    monkeypatch.setenv("KOTRAIN_MAX_UPLOADS_PER_USER", "20")
    settings.cache_clear()
    uploads = app.MAX_REQUESTS
    with served(key) as server, ExitStack() as stack:
        for number in range(uploads):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            head = f"POST /v1/datasets?format=csv&name=x{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            connection.sendall(f"{head}Authorization: Bearer {key}\r\nContent-Length: 9\r\n\r\na".encode())
        until(lambda: IN_PROGRESS.total() == uploads)
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx2.get(f"{server.url}/v1/me", headers=headers, timeout=20).status_code == 200
    until(lambda: not IN_PROGRESS)


def test_openapi_document_is_compressed_once_and_revalidated(api) -> None:
    answer = api.get("/openapi.json")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(gzip.compress(answer.content, mtime=0))
    plain = api.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert plain.json() == answer.json() == api.app.openapi()
    again = api.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


class TestTurns:
    def test_users_take_turns(self) -> None:
        """Eight requests of one user wait before the first of another; the other is second in line."""

        async def order() -> list[str]:
            turns, served = Turns(total=1, share=1), []
            await turns.take("first")

            async def request(who: str) -> None:
                await turns.take(who)
                served.append(who)
                turns.release(who)

            tasks = [asyncio.create_task(request("ada")) for _ in range(8)]
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(request("bob")))
            await asyncio.sleep(0)
            turns.release("first")
            await asyncio.gather(*tasks)
            return served

        assert asyncio.run(order()) == ["ada", "bob", *["ada"] * 7]

    def test_user_holds_a_share_at_most(self) -> None:
        async def held() -> tuple[int, bool]:
            turns = Turns(total=4, share=3)
            tasks = [asyncio.create_task(turns.take("ada")) for _ in range(10)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done = sum(task.done() for task in tasks)
            await asyncio.wait_for(turns.take("bob"), 10)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for who in ("ada", "ada", "ada", "bob"):
                turns.release(who)
            return done, not turns._held and turns._free == 4

        assert asyncio.run(held()) == (3, True)

    def test_request_that_goes_when_its_turn_comes_gives_it_back(self) -> None:
        async def free() -> int:
            turns = Turns(total=1, share=1)
            await turns.take("ada")
            waiting = asyncio.create_task(turns.take("bob"))
            await asyncio.sleep(0)
            turns.release("ada")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return turns._free

        assert asyncio.run(free()) == 1


@pytest.fixture
def as_admin(empty, key):
    """Calls as an admin: `as_admin(path, body)` posts, `.delete(path)` deletes."""
    with client(api_keys.create("root", admin=True)) as admin:

        def post(path: str, body: dict[str, str]) -> dict[str, str]:
            answer = admin.post(path, json=body)
            assert answer.status_code == 201, answer.text
            return answer.json()

        post.delete = admin.delete
        yield post
