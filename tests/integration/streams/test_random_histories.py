"""Random histories of a job and random disconnections of a page: the page ends with the stored curves."""

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


class RandomHistory:
    """A job, its worker and a page that take random steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.job_id = submit()
        self.page = Page()
        self.claim: claims.Claim | None = None
        self.step, self.measured_names, self.measurements = 0, set(), 0

    def run(self) -> None:
        actions = self.random.choices((self.measure, self.lose, self.listen), (6, 1, 4), k=60)
        for act in actions:
            act()
        self.finish()
        self.listen(whole=True)

    def claimed(self) -> claims.Claim:
        if self.claim is None:
            self.claim = claim()
            self.step = self.random.randint(0, self.step)
            names = {name for name in NAMES if self.random.random() < 0.5 and self.step in self.steps(name)}
            do(claims.begin, self.claim, self.step, names)
            self.measured_names = names if self.step else set()
        return self.claim

    def steps(self, name):
        curve = do(read.curves, [self.job_id], [name]).get(self.job_id, {}).get(name)
        return [] if curve is None else curve.steps.tolist()

    def points(self):
        """Measure new metrics at random steps, starting with the last step or a later one."""
        points = {}
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.7:
                self.step, self.measured_names = self.step + self.random.randint(1, 3), set()
            for name in set(NAMES) - self.measured_names:
                if self.random.random() < 0.5:
                    self.measurements += 1
                    point = (self.step, float(self.measurements), 0.5)
                    for column, value in zip(points.setdefault(name, ([], [], [])), point, strict=True):
                        column.append(value)
                    self.measured_names = self.measured_names | {name}
        return points

    def measure(self) -> None:
        claimed = self.claimed()
        do(heartbeats.beat, "w1", [Beat(claimed, self.step, None, [Batch(self.points())])])

    def lose(self) -> None:
        if self.claim is not None:
            batches = [Batch(self.points())] if self.random.random() < 0.5 else []
            do(outcomes.requeue, self.claim, "the worker shuts down", 0, batches)
            self.claim = None

    def finish(self) -> None:
        assert do(outcomes.finish, self.claimed(), Reason.COMPLETED, batches=[Batch(self.points())])

    def listen(self, *, whole: bool = False) -> None:
        feed = job_feed.JobFeed(self.job_id)
        last = self.page.last_id
        events = self.read(feed, None if last is None else feed.parse(last))
        for event in islice(events, None if whole else self.random.randint(0, 6)):
            self.page.receive(event)

    def read(self, feed, cursor):
        """Yield the events of all pages."""
        has_more = True
        while has_more:
            delta = read_delta(feed, cursor, None)
            yield from parse(b"".join(delta.frames).decode().split("\n"))
            cursor, has_more = delta.cursor, delta.has_more


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("key")
def test_client_ends_with_the_stored_curves(seed, monkeypatch):
    monkeypatch.setattr(job_feed, "MAX_POINTS", 5)
    history = RandomHistory(seed)
    history.run()
    stored = do(read.curves, [history.job_id])[history.job_id]
    assert history.page.points == {
        name: dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) for name, curve in stored.items()
    }
    assert history.page.seqs() == list(range(1, load(history.job_id).seq + 1))
    assert history.page.statuses()[-1] == JobStatus.SUCCEEDED
    assert history.page.has_ended
