"""Streams of all jobs, and of one comparison's."""

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
from tests.integration.at_work import claim, do, submit
from tests.integration.comparisons.asking import REQUEST, WORKER, ask, job_ids, work
from tests.streams import Page, parse
from tests.waiting import until


def finish(claimed):
    assert do(outcomes.finish, claimed, Reason.COMPLETED)


def told_of(page, job_id):
    return [event.data["status"] for event in page.named("status") if event.data.get("job") == str(job_id)]


def each_once(page) -> bool:
    ids = [event.id for event in page.events if event.name in ("status", "log")]
    return len(ids) == len(set(ids))


class TestAllJobs:
    def test_stream_starts_with_the_next_event(self, server):
        earlier = submit()
        listening = server.listen("/v1/events").opened()
        later = submit(optimizer="sgd")
        finish(claim())
        finish(claim())
        page = listening.heard(5)
        until(lambda: len(page.named("status")) == 5)
        assert told_of(page, earlier) == ["running", "succeeded"]
        assert told_of(page, later) == ["queued", "running", "succeeded"]
        said = page.named("status")[0].data
        assert said == {
            "job": str(later), "seq": 1, "attempt": 0, "status": "queued", "reason": None, "dataset": "digits",
            "model": "mlp", "optimizer": "sgd", "user": "ada", "message": None, "at": said["at"],
        }  # fmt: skip
        assert said["at"].endswith("Z")
        assert each_once(page)

    def test_notes_are_sent_as_log(self, server):
        listening = server.listen("/v1/events").opened()
        submit()
        do(claims.begin, claim(), 0)
        page = listening.heard(3)
        assert [event.name for event in page.events if event.name != "metric"] == ["status", "status", "log"]

    def test_progress_of_running_jobs(self, server):
        submit()
        claimed = claim()
        listening = server.listen("/v1/events").opened()
        until(lambda: listening.page.named("metric"))
        do(heartbeats.beat, "w1", [Beat(claimed, 7, 100, [Batch()])])
        page = listening.heard(2)
        job = str(claimed.job_id)
        assert [event.data["progress"] for event in page.named("metric")[-2:]] == [
            [{"job": job, "step": 0, "total_steps": None}],
            [{"job": job, "step": 7, "total_steps": 100}],
        ]

    def test_transactions_that_commit_out_of_order(self, server):
        """The older one commits last; a reader that goes by any number given out earlier would lose it."""
        jobs = [submit(), submit()]
        listening = server.listen("/v1/events").opened()
        url = settings().database_url.replace("+psycopg", "")
        note = "INSERT INTO job_events (job_id, seq, attempt, status, message) VALUES (%s, 2, 0, 'running', %s)"
        with psycopg.connect(url) as older, psycopg.connect(url) as newer:
            older.execute(note, [jobs[0], "older"])
            newer.execute(note, [jobs[1], "newer"])
            newer.commit()
            third = submit()
            polls = server.hub.polls
            until(lambda: server.hub.polls > polls + 1)
            assert not listening.page.events
            older.commit()
        page = listening.heard(3)
        assert [event.data["message"] for event in page.events] == ["older", "newer", None]
        assert told_of(page, third) == ["queued"]
        assert each_once(page)

    def test_resumes_after_any_event(self, server, monkeypatch):
        monkeypatch.setattr(event_feed, "PAGE", 2)
        listening = server.listen("/v1/events").opened()
        with database.transaction() as session:  # several events of one transaction
            owner = api_keys.authenticated_user(session, f"Bearer {server.key}")
            lifecycle.create(session, owner, ComparisonRequest.model_validate(REQUEST))
        last = submit()
        until(lambda: told_of(listening.page, last))
        whole = listening.page.named("status")
        assert len({event.id.split(".")[0] for event in whole}) == 2 < len(whole)
        for number, event in enumerate(whole, 1):
            resumed = Page()
            resumed.events.append(event)
            again = server.listen("/v1/events", resumed)
            until(lambda resumed=resumed, left=len(whole) - number + 1: len(resumed.events) >= left)
            assert resumed.events[1:] == whole[number:]
            assert again.error is None

    def test_id_of_another_server(self, server):
        submit()
        delta = do(lambda session: AllFeed().read(session, ManyCursor(2**62), None))
        assert delta.frames == []
        assert delta.cursor == do(lambda session: AllFeed().read(session, None, None)).cursor

    def test_events_of_another_server_are_forgotten(self, server):
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
    """One that is known."""
    with database.transaction() as session:
        session.add(Worker(**WORKER))


class TestComparison:
    def test_stream_ends_with_the_comparison(self, server, api, worker):
        other = submit()
        comparison = ask(api)
        path = f"/v1/comparisons/{comparison['id']}/events"
        listening = server.listen(path).opened()
        finish(claim())  # the other
        work()
        page = listening.over()
        of_it = [event.data for event in page.named("status") if "comparison" in event.data]
        assert [said["status"] for said in of_it] == ["running", "succeeded"]
        assert {said["name"] for said in of_it} == {"test"}
        assert told_of(page, other) == []
        for job_id in job_ids(comparison):
            assert told_of(page, job_id)[-2:] == ["running", "succeeded"]
        assert page.events[-1].data == {"status": "succeeded", "message": None}
        assert each_once(page)
        assert api.get(path, headers={"Last-Event-ID": page.last_id}).status_code == 204
        behind = api.get(path, headers={"Last-Event-ID": page.named("status")[-1].id})
        assert [event.name for event in parse(behind.text.split("\n"))] == ["end"]

    def test_ended_comparison(self, api, worker):
        comparison = ask(api)
        work()
        answer = api.get(f"/v1/comparisons/{comparison['id']}/events")
        told = [(event.name, event.data["status"]) for event in parse(answer.text.split("\n"))]
        assert told == [("status", "succeeded"), ("end", "succeeded")]

    def test_failed_comparison_gives_the_reason(self, server, api, worker):
        comparison = ask(api)
        listening = server.listen(f"/v1/comparisons/{comparison['id']}/events").opened()
        do(lifecycle.fail, comparison["id"], "it cannot go on")
        page = listening.over()
        assert page.events[-1].data == {"status": "failed", "message": "it cannot go on"}

    def test_unknown(self, api):
        assert api.get("/v1/comparisons/0199c0de-0000-7000-8000-000000000000/events").status_code == 404

    def test_id_of_another_stream(self, api, worker):
        comparison = ask(api)
        answer = api.get(f"/v1/comparisons/{comparison['id']}/events", headers={"Last-Event-ID": "1.2.3"})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["Last-Event-ID"]
