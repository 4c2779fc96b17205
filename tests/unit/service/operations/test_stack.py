"""Restarts of a stack's part, and giving up after repeated failures."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

from service.operations.embedded.process import EmbeddedError, Process, last_error
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


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("1 FATAL: no space\n2 LOG: shutting down\nlater\n", "1 FATAL: no space"),
        (
            "ModuleNotFoundError: no torch\n1 INFO worker: starts\n2 WARNING worker: ends\n",
            "ModuleNotFoundError: no torch",
        ),
        ("1 ERROR workers.tasks: no torch\n2 INFO worker: ends\n", "1 ERROR workers.tasks: no torch"),
        ("1 INFO worker: starts\n", "its log names no error"),
        ("", "its log names no error"),
    ],
)
def test_information_is_no_error(tmp_path: Path, log: str, error: str) -> None:
    (tmp_path / "part.log").write_text(log)
    assert last_error(tmp_path / "part.log") == error


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part.log").write_text("1 ERROR: earlier\n")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert last_error(tmp_path / "part.log") == "the disk of its log is full"


def test_resets_count_of_failures_after_a_minute(tmp_path: Path) -> None:
    dying = part(tmp_path, "pass")
    dying.begin()
    dying.deaths = 4
    dying.started -= 60
    while dying.due is None:
        dying.check()
    assert dying.deaths == 1
