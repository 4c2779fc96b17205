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


def look_until_it_gives_up(part: Part) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        part.check()


def test_a_part_that_ends_at_once_is_given_up_with_what_it_said(tmp_path: Path) -> None:
    dying = part(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); print('no luck'); raise SystemExit(3)")
    dying.begin()
    with pytest.raises(
        EmbeddedError, match=r"the part failed to start 5 times \(exit status 3\): no luck; see .*part.log"
    ):
        look_until_it_gives_up(dying)
    assert (tmp_path / "starts").read_text() == "xxxxx"


def test_a_part_that_ran_for_a_while_is_not_counted_among_them(tmp_path: Path) -> None:
    dying = part(tmp_path, "pass")
    dying.begin()
    dying.deaths = 4
    dying.started -= 60
    while dying.due is None:
        dying.check()
    assert dying.deaths == 1
