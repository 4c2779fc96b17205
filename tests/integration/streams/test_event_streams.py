"""The event streams of all jobs, and of one comparison."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from service.accounts import api_keys
from service.comparisons import lifecycle
from service.comparisons.design.requests import ComparisonRequest
from service.config import settings
from service.jobs import claims, heartbeats, outcomes
from service.jobs.heartbeats import Batch, Beat
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import Worker
from service.streams import event_feed
from service.streams.cursor import ManyCursor
from service.streams.event_feed import AllFeed
from tests.integration.comparisons.comparison_calls import REQUEST, WORKER, finish_all, job_ids, start
from tests.integration.job_calls import claim, do, submit
from tests.streams import Page, parse
from tests.waiting import until


def finish(claimed):
    assert do(outcomes.finish, claimed, Reason.COMPLETED)


def statuses_of(page, job_id):
    return [event.data["status"] for event in page.named("status") if event.data.get("job") == str(job_id)]


def has_no_duplicates(page) -> bool:
    ids = [event.id for event in page.events if event.name in ("status", "log")]
    return len(ids) == len(set(ids))


class TestAllJobs:
    def test_stream_starts_with_the_next_event(self, server):
        earlier = submit()
        listener = server.listen("/v1/events").opened()
        later = submit(optimizer="sgd")
        finish(claim())
        finish(claim())
        page = listener.wait_for_events(5)
        until(lambda: len(page.named("status")) == 5)
        assert statuses_of(page, earlier) == ["running", "succeeded"]
        assert statuses_of(page, later) == ["queued", "running", "succeeded"]
        status = page.named("status")[0].data
        assert status == {
            "job": str(later), "seq": 1, "attempt": 0, "status": "queued", "reason": None, "dataset": "digits",
            "model": "mlp", "optimizer": "sgd", "user": "ada", "message": None, "at": status["at"],
        }  # fmt: skip
        assert status["at"].endswith("Z")
        assert has_no_duplicates(page)

    def test_notes_are_sent_as_log_events(self, server):
        listener = server.listen("/v1/events").opened()
        submit()
        do(claims.begin, claim(), 0)
        page = listener.wait_for_events(3)
        assert [event.name for event in page.events if event.name != "metric"] == ["status", "status", "log"]

    def test_progress_of_running_jobs_is_sent(self, server):
        submit()
        claimed = claim()
        listener = server.listen("/v1/events").opened()
        until(lambda: listener.page.named("metric"))
        do(heartbeats.beat, "w1", [Beat(claimed, 7, 100, [Batch()])])
        page = listener.wait_for_events(2)
        job = str(claimed.job_id)
        assert [event.data["progress"] for event in page.named("metric")[-2:]] == [
            [{"job": job, "step": 0, "total_steps": None}],
            [{"job": job, "step": 7, "total_steps": 100}],
        ]

    def test_events_of_transactions_that_commit_out_of_order_are_all_sent(self, server):
        """The older one commits last; a reader that orders by numbers assigned before the commit would miss it."""
        jobs = [submit(), submit()]
        listener = server.listen("/v1/events").opened()
        url = settings().database_url.replace("+psycopg", "")
        insert = "INSERT INTO job_events (job_id, seq, attempt, status, message) VALUES (%s, 2, 0, 'running', %s)"
        with psycopg.connect(url) as older, psycopg.connect(url) as newer:
            older.execute(insert, [jobs[0], "older"])
            newer.execute(insert, [jobs[1], "newer"])
            newer.commit()
            third = submit()
            polls = server.hub.polls
            until(lambda: server.hub.polls > polls + 1)
            assert not listener.page.events
            older.commit()
        page = listener.wait_for_events(3)
        assert [event.data["message"] for event in page.events] == ["older", "newer", None]
        assert statuses_of(page, third) == ["queued"]
        assert has_no_duplicates(page)

    def test_resumes_after_any_event(self, server, monkeypatch):
        monkeypatch.setattr(event_feed, "PAGE", 2)
        listener = server.listen("/v1/events").opened()
        with database.transaction() as session:  # several events of one transaction
            owner = api_keys.authenticated_user(session, f"Bearer {server.key}")
            lifecycle.create(session, owner, lifecycle.resolved_plan(ComparisonRequest.model_validate(REQUEST)))
        last = submit()
        until(lambda: statuses_of(listener.page, last))
        whole = listener.page.named("status")
        assert len({event.id.split(".")[0] for event in whole}) == 2 < len(whole)
        for number, event in enumerate(whole, 1):
            resumed = Page()
            resumed.events.append(event)
            again = server.listen("/v1/events", resumed)
            until(lambda resumed=resumed, left=len(whole) - number + 1: len(resumed.events) >= left)
            assert resumed.events[1:] == whole[number:]
            assert again.error is None

    def test_id_newer_than_the_database_restarts_the_stream(self, server):
        submit()
        delta = do(lambda session: AllFeed().read(session, ManyCursor(2**62), None))
        assert delta.frames == []
        assert delta.cursor == do(lambda session: AllFeed().read(session, None, None)).cursor

    def test_migrate_clears_transaction_ids_of_another_server(self, server):
        job_id = submit()
        with database.transaction() as session:
            session.execute(text("UPDATE job_events SET xid = xid + 1000000"))
        database.migrate()
        xid = text("SELECT xid FROM job_events WHERE job_id = :job ORDER BY seq")
        assert do(lambda session: session.scalars(xid, {"job": job_id}).all()) == [None]
        do(claims.begin, claim(), 0)
        assert None not in do(lambda session: session.scalars(xid, {"job": job_id}).all())[1:]


@pytest.fixture
def worker(empty):
    """A worker in the database."""
    with database.transaction() as session:
        session.add(Worker(**WORKER))


class TestComparison:
    def test_stream_ends_with_the_comparison(self, server, api, worker):
        other = submit()
        comparison = start(api)
        path = f"/v1/comparisons/{comparison['id']}/events"
        listener = server.listen(path).opened()
        finish(claim())  # the directly submitted job
        finish_all()
        page = listener.wait_until_end()
        statuses = [event.data for event in page.named("status") if "comparison" in event.data]
        assert [status["status"] for status in statuses] == ["running", "succeeded"]
        assert {status["name"] for status in statuses} == {"test"}
        assert statuses_of(page, other) == []
        for job_id in job_ids(comparison):
            assert statuses_of(page, job_id)[-2:] == ["running", "succeeded"]
        assert page.events[-1].data == {"status": "succeeded", "message": None}
        assert has_no_duplicates(page)
        assert api.get(path, headers={"Last-Event-ID": page.last_id}).status_code == 204
        resumed = api.get(path, headers={"Last-Event-ID": page.named("status")[-1].id})
        assert [event.name for event in parse(resumed.text.split("\n"))] == ["end"]

    def test_ended_comparison_sends_its_status_and_ends(self, api, worker):
        comparison = start(api)
        finish_all()
        answer = api.get(f"/v1/comparisons/{comparison['id']}/events")
        events = [(event.name, event.data["status"]) for event in parse(answer.text.split("\n"))]
        assert events == [("status", "succeeded"), ("end", "succeeded")]

    def test_failed_comparison_gives_the_reason(self, server, api, worker):
        comparison = start(api)
        listener = server.listen(f"/v1/comparisons/{comparison['id']}/events").opened()
        do(lifecycle.fail, comparison["id"], "it cannot continue")
        page = listener.wait_until_end()
        assert page.events[-1].data == {"status": "failed", "message": "it cannot continue"}

    def test_unknown_comparison_returns_404(self, api):
        assert api.get("/v1/comparisons/0199c0de-0000-7000-8000-000000000000/events").status_code == 404

    def test_invalid_last_event_id_returns_422(self, api, worker):
        comparison = start(api)
        answer = api.get(f"/v1/comparisons/{comparison['id']}/events", headers={"Last-Event-ID": "1.2.3"})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["Last-Event-ID"]
