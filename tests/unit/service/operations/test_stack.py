"""Restarts of a stack's part, and giving up after repeated failures."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from service.operations.embedded.process import EmbeddedError, Process
from service.operations.stack import Part


def part(folder: Path, script: str) -> Part:
    process = Process("part", [sys.executable, "-S", "-c", script], log=folder / "part.log", environment={})
    return Part(process, process.start)


def check_until_error(part: Part) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        part.check()


def test_raises_last_output_after_five_failed_starts(tmp_path: Path) -> None:
    dying = part(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); print('no luck'); raise SystemExit(3)")
    dying.begin()
    with pytest.raises(
        EmbeddedError, match=r"the part failed to start 5 times \(exit status 3\): no luck; see .*part.log"
    ):
        check_until_error(dying)
    assert (tmp_path / "starts").read_text() == "xxxxx"


def test_resets_count_of_failures_after_a_minute(tmp_path: Path) -> None:
    dying = part(tmp_path, "pass")
    dying.begin()
    dying.deaths = 4
    dying.started -= 60
    while dying.due is None:
        dying.check()
    assert dying.deaths == 1
