"""Streams as a page hears them: parsed events, in a thread where they are not over by themselves."""

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
    """Events as the standard has them; comments and `retry` are passed over."""
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
    """What a page keeps of a job's stream, however often it was cut off."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.points: dict[str, dict[int, float | None]] = {}

    def hear(self, event: Event) -> None:
        self.events.append(event)
        back = event.data.get("rewind_to")
        if back is not None:
            kept = {name: {s: v for s, v in of.items() if s < back} for name, of in self.points.items()}
            self.points = {name: of for name, of in kept.items() if of}
        for name, curve in event.data.get("points", {}).items():
            told = self.points.setdefault(name, {})
            for step, value, _ in zip(curve["steps"], curve["values"], curve["wall_seconds"], strict=True):
                assert step not in told, f"{name} of step {step} was told twice"
                told[step] = value

    @property
    def last_id(self) -> str | None:
        return self.events[-1].id if self.events else None

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1].name == "end"

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def seqs(self) -> list[int]:
        """Of all events that the job's history has, too."""
        return [event.data["seq"] for event in self.events if event.name in ("status", "log")]

    def statuses(self) -> list[str]:
        return [event.data["status"] for event in self.named("status")]


@dataclass
class Listening:
    """A page that listens in a thread, once, until the stream ends or breaks; it goes on where it was left."""

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
                    self.page.hear(event)
        except (httpx2.TransportError, AssertionError) as error:
            self.error = error
        finally:
            self.is_open.set()

    def opened(self) -> Listening:
        """Wait for the answer to begin."""
        assert self.is_open.wait(30)
        assert self.status == 200, self.error
        return self

    def over(self) -> Page:
        """Wait for the stream's end, which is a clean one."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream does not end"
        assert self.error is None, self.error
        return self.page

    def broken(self) -> Page:
        """Wait until it has ended, in whatever way."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream does not end"
        assert not isinstance(self.error, AssertionError), self.error
        return self.page

    def heard(self, count: int = 1) -> Page:
        """Wait for so many events."""
        until(lambda: len(self.page.events) >= count or self.error)
        assert self.error is None, self.error
        return self.page
