"""Polls jobs until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from kotrain.errors import WaitTimeout
from service.jobs.schemas import JobView
from service.specs.text import agreeing, counted

FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.1, 1.0
POLLED_JOBS = 8
"""Unfinished jobs to poll per round of `wait`; jobs mostly end in the order of submission."""

Get = Callable[[str], JobView]


def wait(
    get: Get, ids: Iterable[str], timeout: float | None, on_progress: Callable[[list[JobView]], None] | None
) -> list[JobView]:
    """The jobs with these ids, in this order, once all have ended; see `Client.wait`."""
    all_ids = tuple(ids)
    deadline = None if timeout is None else time.monotonic() + timeout
    views: dict[str, JobView] = {}
    unfinished, poll_seconds = all_ids, FIRST_POLL_SECONDS
    while True:
        before, unfinished = unfinished, tuple(_unfinished(get, unfinished, views))
        if on_progress is not None:
            on_progress([views[id_] for id_ in all_ids if id_ in views])
        if not unfinished:
            return [views[id_] for id_ in all_ids]
        if deadline is not None and time.monotonic() + poll_seconds > deadline:
            have = agreeing(len(unfinished), "has", "have")
            of_all = f"{len(unfinished)} of {counted(len(all_ids), 'job')}"
            raise WaitTimeout(f"{of_all} {have} not ended after {timeout:g} s")
        time.sleep(poll_seconds)
        poll_seconds = min(1.5 * poll_seconds, MAX_POLL_SECONDS) if unfinished == before else FIRST_POLL_SECONDS


def _unfinished(get: Get, ids: Iterable[str], views: dict[str, JobView]) -> Iterator[str]:
    """Poll the first few of `ids` into `views`; yield all that have not ended."""
    polled = 0
    for id_ in ids:
        if polled < POLLED_JOBS:
            # A part of an id may become ambiguous while we wait.
            views[id_] = get(str(views[id_].id) if id_ in views else id_)
            if views[id_].status.is_final:
                continue
            polled += 1
        yield id_
