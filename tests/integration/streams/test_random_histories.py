"""Any way of a job through the database, and a page that is cut off anywhere: it ends up with what is stored."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from service.jobs import claims, heartbeats, outcomes
from service.jobs.heartbeats import Batch, Beat
from service.metrics import read
from service.specs.states import JobStatus, Reason
from service.streams import job_feed
from service.streams.hub import read_delta
from tests.integration.job_calls import claim, do, load, submit
from tests.streams import Page, parse

NAMES = ("train_loss", "val_loss", "test_loss")


class Way:
    """A job, its worker and a page, which do what a generator of random numbers says."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.job_id = submit()
        self.page = Page()
        self.claim: claims.Claim | None = None
        self.step, self.at_step, self.measured = 0, set(), 0

    def go(self) -> None:
        taken = self.random.choices((self.measure, self.lose, self.listen), (6, 1, 4), k=60)
        for take in taken:
            take()
        self.finish()
        self.listen(whole=True)

    def work(self) -> claims.Claim:
        if self.claim is None:
            self.claim = claim()
            self.step = self.random.randint(0, self.step)
            told = {name for name in NAMES if self.random.random() < 0.5 and self.step in self.steps(name)}
            do(claims.begin, self.claim, self.step, told)
            self.at_step = told if self.step else set()
        return self.claim

    def steps(self, name):
        curve = do(read.curves, [self.job_id], [name]).get(self.job_id, {}).get(name)
        return [] if curve is None else curve.steps.tolist()

    def points(self):
        """Some steps, of which the first may be the last one, of metrics that it does not have yet."""
        found = {}
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.7:
                self.step, self.at_step = self.step + self.random.randint(1, 3), set()
            for name in set(NAMES) - self.at_step:
                if self.random.random() < 0.5:
                    self.measured += 1
                    for column, value in zip(
                        found.setdefault(name, ([], [], [])), (self.step, float(self.measured), 0.5), strict=True
                    ):
                        column.append(value)
                    self.at_step = self.at_step | {name}
        return found

    def measure(self) -> None:
        claimed = self.work()
        do(heartbeats.beat, "w1", [Beat(claimed, self.step, None, [Batch(self.points())])])

    def lose(self) -> None:
        if self.claim is not None:
            batches = [Batch(self.points())] if self.random.random() < 0.5 else []
            do(outcomes.requeue, self.claim, "it shuts down", 0, batches)
            self.claim = None

    def finish(self) -> None:
        assert do(outcomes.finish, self.work(), Reason.COMPLETED, batches=[Batch(self.points())])

    def listen(self, *, whole: bool = False) -> None:
        feed = job_feed.JobFeed(self.job_id)
        last = self.page.last_id
        events = self.told(feed, None if last is None else feed.parse(last))
        for event in islice(events, None if whole else self.random.randint(0, 6)):
            self.page.receive(event)

    def told(self, feed, cursor):
        """Page after page."""
        has_more = True
        while has_more:
            delta = read_delta(feed, cursor, None)
            yield from parse(b"".join(delta.frames).decode().split("\n"))
            cursor, has_more = delta.cursor, delta.has_more


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("key")
def test_client_ends_with_the_stored_curves(seed, monkeypatch):
    monkeypatch.setattr(job_feed, "MOST_POINTS", 5)
    way = Way(seed)
    way.go()
    stored = do(read.curves, [way.job_id])[way.job_id]
    assert way.page.points == {
        name: dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) for name, curve in stored.items()
    }
    assert way.page.seqs() == list(range(1, load(way.job_id).seq + 1))
    assert way.page.statuses()[-1] == JobStatus.SUCCEEDED
    assert way.page.has_ended
