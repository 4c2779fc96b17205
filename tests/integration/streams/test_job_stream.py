"""The event stream of one job; the test takes the worker's part."""

from __future__ import annotations

import httpx2
import pytest
from sqlalchemy import update

from service.jobs import claims, heartbeats, outcomes
from service.jobs.heartbeats import Batch, Beat
from service.metrics import read
from service.specs.states import JobStatus, Reason
from service.storage import database
from service.storage.tables import JobEvent
from service.streams import job_feed
from service.streams.hub import read_delta
from tests.integration.job_calls import claim, do, submit
from tests.streams import Page, parse
from tests.waiting import until


def points(name="train_loss", steps=(), value=1.0):
    return {name: (list(steps), [value * step for step in steps], [step / 100 for step in steps])}


def beat(claimed, measured, step=0):
    instructions = do(heartbeats.beat, "w1", [Beat(claimed, step, 100, [Batch(measured)])])
    assert instructions == {claimed.job_id: heartbeats.Instruction.CONTINUE}


def finish(claimed, measured=None):
    assert do(outcomes.finish, claimed, Reason.COMPLETED, batches=[Batch(measured or {})])


def stored(job_id) -> dict[str, dict[int, float]]:
    curves = do(read.curves, [job_id]).get(job_id, {})
    return {name: dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) for name, curve in curves.items()}


def path(job_id):
    return f"/v1/jobs/{job_id}/events"


class TestEndedJob:
    """The stream of an ended job ends, so that the test client can read it."""

    @pytest.fixture
    def job_id(self, api):
        job_id = submit()
        claimed = claim()
        do(claims.begin, claimed, 0)
        beat(claimed, points(steps=range(0, 50, 10)) | points("lr", steps=[40]))
        finish(claimed, points(steps=[50]) | points("val_loss", steps=[50], value=float("nan")))
        return job_id

    def receive(self, api, job_id, last_id=None, page=None, **params) -> Page:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        page = page or Page()
        answer = api.get(path(job_id), headers=headers, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
        assert answer.text.startswith("retry: 1000\n\n")
        for event in parse(answer.text.split("\n")):
            page.receive(event)
        return page

    def test_all_events_are_sent_in_order(self, api, job_id):
        page = self.receive(api, job_id)
        assert [event.name for event in page.events] == ["status", "status", "log", "metric", "status", "end"]
        assert page.statuses() == ["queued", "running", "succeeded"]
        (metric,) = page.named("metric")
        assert metric.data["points"]["val_loss"] == {"steps": [50], "values": [None], "wall_seconds": [0.5]}
        assert (metric.data["step"], metric.data["total_steps"]) == (0, None)
        assert page.points["train_loss"] == stored(job_id)["train_loss"]
        assert page.named("log")[0].data["rewind_to"] == 0
        assert page.events[-1].data == {"status": "succeeded", "reason": "completed"}
        assert page.named("status")[0].data.keys() == {"seq", "at", "attempt", "status", "reason", "message"}
        assert page.seqs() == [1, 2, 3, 4]

    def test_resumes_after_any_event(self, api, job_id, monkeypatch):
        monkeypatch.setattr(job_feed, "MAX_POINTS", 2)
        whole = self.receive(api, job_id)
        assert len(whole.named("metric")) == 4
        for number, event in enumerate(whole.events[:-1], 1):
            assert self.receive(api, job_id, event.id).events == whole.events[number:]

    def test_ended_stream_returns_204(self, api, job_id):
        last = self.receive(api, job_id).last_id
        answer = api.get(path(job_id), headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")

    def test_past_points_are_reduced_and_new_ones_are_not(self, api, job_id):
        page = self.receive(api, job_id, max_points=4)
        assert len(page.points["train_loss"]) == 4
        assert {0, 50} <= page.points["train_loss"].keys()
        resumed = self.receive(api, job_id, "1.-1.", max_points=4)
        assert len(resumed.points["train_loss"]) == 6

    def test_end_comes_after_the_last_page(self, api, job_id, monkeypatch):
        monkeypatch.setattr(job_feed, "MAX_POINTS", 2)
        deltas = [read_delta(job_feed.JobFeed(job_id), None, None)]
        while deltas[-1].has_more:
            deltas.append(read_delta(job_feed.JobFeed(job_id), deltas[-1].cursor, None))
        names = [[event.name for event in parse(b"".join(delta.frames).decode().split("\n"))] for delta in deltas]
        assert names == [["status", "status", "log", "metric"], ["metric"], ["metric"], ["metric", "status", "end"]]
        assert [delta.is_last for delta in deltas] == [False, False, False, True]

    def test_id_newer_than_a_restored_database_restarts_the_stream(self, api, job_id):
        assert self.receive(api, job_id, "99.7.").events == self.receive(api, job_id).events


class TestLongJob:
    """The feed of a long job is read in pages, so that a slow client holds only one of them."""

    NAMES = ("train_loss", "lr", "val_loss")

    @pytest.fixture
    def job_id(self, empty, key):
        job_id = submit()
        claimed = claim()
        for start in range(0, 400, 20):
            measured = points("train_loss", range(start, start + 20)) | points("lr", range(start, start + 20, 5))
            beat(claimed, measured | (points("val_loss", [start]) if start % 100 == 0 else {}))
        return job_id

    @pytest.mark.parametrize("max_points", [1, 7, 30, 1000])
    def test_is_read_page_by_page(self, job_id, monkeypatch, max_points):
        monkeypatch.setattr(job_feed, "MAX_POINTS", max_points)
        page, cursor, has_more = Page(), None, True
        while has_more:
            delta = read_delta(job_feed.JobFeed(job_id), cursor, None)
            events = list(parse(b"".join(delta.frames).decode().split("\n")))
            for event in events:
                page.receive(event)
            count = sum(len(curve["steps"]) for event in events for curve in event.data.get("points", {}).values())
            assert 0 < count < max_points + len(self.NAMES)
            cursor, has_more = delta.cursor, delta.has_more
        assert page.points == stored(job_id)

    def test_query_fetches_about_one_page(self, job_id):
        params = {"job": job_id, "step": 99, "max_points": 60}
        chunks = do(lambda session: session.execute(job_feed.CHUNKS, params).all())
        assert {chunk.name for chunk in chunks} == set(self.NAMES)
        assert sum(len(chunk.steps) for chunk in chunks) < 60 + 3 * 20 + 10

    def test_past_is_reduced_as_a_whole(self, job_id, monkeypatch):
        monkeypatch.setattr(job_feed, "MAX_POINTS", 3)
        delta = read_delta(job_feed.JobFeed(job_id, 8), None, None)
        page = Page()
        for event in parse(b"".join(delta.frames).decode().split("\n")):
            page.receive(event)
        assert {0, 399} <= page.points["train_loss"].keys()
        assert len(page.points["train_loss"]) == 8
        assert not delta.has_more


class TestRefusals:
    def test_unknown_job_returns_404(self, api):
        answer = api.get(path("0199c0de-0000-7000-8000-000000000000"))
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"

    @pytest.mark.parametrize("last_id", ["x", "1.2.3.4", ".end", "1.0"])
    def test_invalid_last_event_id_returns_422(self, api, last_id):
        answer = api.get(path(submit()), headers={"Last-Event-ID": last_id})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["Last-Event-ID"]

    def test_unknown_parameter_returns_422(self, api):
        assert api.get(path(submit()), params={"points": 3}).status_code == 422

    def test_missing_key_returns_401(self, api):
        assert api.get(path(submit()), headers={"Authorization": ""}).status_code == 401


class TestRunningJob:
    def test_events_are_sent_as_they_happen(self, server):
        job_id = submit()
        listener = server.listen(path(job_id))
        assert listener.wait_for_events(1).statuses() == ["queued"]
        claimed = claim()
        assert listener.wait_for_events(2).statuses() == ["queued", "running"]
        beat(claimed, points(steps=[10, 20]), step=20)
        listener.wait_for_events(3)
        beat(claimed, points("val_loss", steps=[20]), step=20)  # at a step whose points were sent already
        listener.wait_for_events(4)
        finish(claimed, points(steps=[30]))
        page = listener.wait_until_end()
        assert page.statuses() == ["queued", "running", "succeeded"]
        assert page.points == stored(job_id)
        assert [event.data["step"] for event in page.named("metric")] == [20, 20, 20]

    def test_rewinds_to_a_checkpoint(self, server):
        job_id = submit()
        listener = server.listen(path(job_id))
        first = claim()
        do(claims.begin, first, 0)
        beat(first, points(steps=[10, 20, 30]) | points("val_loss", steps=[20]), step=30)
        listener.wait_for_events(4)
        do(outcomes.requeue, first, "the worker shuts down")
        second = claim()
        do(claims.begin, second, 20, {"train_loss"})
        beat(second, points("val_loss", steps=[20], value=2.0) | points(steps=[30], value=2.0), step=30)
        finish(second, points(steps=[40], value=2.0))
        page = listener.wait_until_end()
        assert page.statuses() == ["queued", "running", "queued", "running", "succeeded"]
        assert [event.data["rewind_to"] for event in page.named("log")] == [0, 20]
        assert page.points == stored(job_id)
        assert page.points["val_loss"] == {20: 40.0}
        assert page.seqs() == list(range(1, 8))

    def test_rewinds_under_a_worker_without_the_step_column(self, server):
        job_id = submit()
        first = claim()
        beat(first, points(steps=[10, 20, 30]))
        listener = server.listen(path(job_id))
        listener.wait_for_events(3)
        do(outcomes.requeue, first, "the worker shuts down")
        second = claim()
        do(claims.begin, second, 20, {"train_loss"})
        with database.transaction() as session:
            session.execute(update(JobEvent).where(JobEvent.job_id == job_id).values(step=None))
        beat(second, points(steps=[30], value=2.0))
        finish(second)
        page = listener.wait_until_end()
        assert page.points == stored(job_id)
        assert [event.data["rewind_to"] for event in page.named("log")] == [20]

    def test_all_clients_receive_the_same_events(self, server):
        job_id = submit()
        listeners = [server.listen(path(job_id)) for _ in range(5)]
        claimed = claim()
        for step in range(1, 6):
            beat(claimed, points(steps=[step]), step)
        finish(claimed)
        pages = [listener.wait_until_end() for listener in listeners]
        assert all(page.points == stored(job_id) for page in pages)
        assert all(page.statuses() == ["queued", "running", "succeeded"] for page in pages)

    def test_job_cancelled_while_queued_ends_the_stream(self, server):
        job_id = submit()
        listener = server.listen(path(job_id))
        listener.wait_for_events(1)
        httpx2.post(
            f"{server.url}/v1/jobs/{job_id}/cancel",
            headers={"Authorization": f"Bearer {server.key}"},
            trust_env=False,
        )
        page = listener.wait_until_end()
        assert page.statuses() == ["queued", "cancelled"]
        assert page.events[-1].data == {"status": JobStatus.CANCELLED, "reason": Reason.CANCELLED}

    def test_disconnected_client_is_removed(self, server):
        job_id = submit()
        headers = {"Authorization": f"Bearer {server.key}"}
        with (
            httpx2.Client(trust_env=False, headers=headers) as client,
            client.stream("GET", server.url + path(job_id)) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines) == "retry: 1000"
            until(lambda: server.hub.streams == 1)
        until(lambda: server.hub.streams == 0)
