"""Clients of event streams: parsed events, received in a thread if the stream does not end on its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.waiting import until


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: dict[str, Any]


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream in the server-sent events format; comments and `retry` are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


class Page:
    """The state that a page builds from a job's stream, across any number of reconnections."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.points: dict[str, dict[int, float | None]] = {}

    def receive(self, event: Event) -> None:
        self.events.append(event)
        rewind_to = event.data.get("rewind_to")
        if rewind_to is not None:
            points = {name: {s: v for s, v in curve.items() if s < rewind_to} for name, curve in self.points.items()}
            self.points = {name: curve for name, curve in points.items() if curve}
        for name, curve in event.data.get("points", {}).items():
            values = self.points.setdefault(name, {})
            for step, value, _ in zip(curve["steps"], curve["values"], curve["wall_seconds"], strict=True):
                assert step not in values, f"{name} of step {step} was sent twice"
                values[step] = value

    @property
    def last_id(self) -> str | None:
        return self.events[-1].id if self.events else None

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].name == "end"

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def seqs(self) -> list[int]:
        """Sequence numbers of the events that are also in the job's history."""
        return [event.data["seq"] for event in self.events if event.name in ("status", "log")]

    def statuses(self) -> list[str]:
        return [event.data["status"] for event in self.named("status")]


@dataclass
class Listener:
    """One connection to a stream, read in a thread until it ends or breaks; resumes after the page's last event."""

    url: str
    key: str
    page: Page = field(default_factory=Page)
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.is_open = threading.Event()
        self.error: Exception | None = None
        self.status = 0
        self._response: httpx2.Response | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        last = self.page.last_id
        headers = {"Authorization": f"Bearer {self.key}"} | ({"Last-Event-ID": last} if last else {})
        try:
            with (
                httpx2.Client(trust_env=False, timeout=60) as client,
                client.stream("GET", self.url, params=self.params, headers=headers) as response,
            ):
                self.status = response.status_code
                self.is_open.set()
                for event in parse(response.iter_lines()):
                    self.page.receive(event)
        except (httpx2.TransportError, AssertionError) as error:
            self.error = error
        finally:
            self.is_open.set()

    def opened(self) -> Listener:
        """Wait until the response begins."""
        assert self.is_open.wait(30)
        assert self.status == 200, self.error
        return self

    def wait_until_end(self) -> Page:
        """Wait until the stream has ended without an error."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream does not end"
        assert self.error is None, self.error
        return self.page

    def wait_until_closed(self) -> Page:
        """Wait until the stream has ended, with or without a transport error."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream does not end"
        assert not isinstance(self.error, AssertionError), self.error
        return self.page

    def wait_for_events(self, count: int = 1) -> Page:
        """Wait until `count` events have arrived."""
        until(lambda: len(self.page.events) >= count or self.error)
        assert self.error is None, self.error
        return self.page
