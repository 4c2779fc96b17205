"""A small `kotrain demo`: the whole stack, each kind of job of the study, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

COMMAND = [sys.executable, "-m", "kotrain", "demo", "--epochs", "1", "--seeds", "2", "--tuning-seeds", "1"]


@pytest.fixture
def start(home):
    """Start the demo with `home` as its temporary folder, as from a terminal."""
    home.mkdir(mode=0o711)

    def start(*arguments):
        environment = {**os.environ, "TMPDIR": str(home), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # If the tests run as a background job of a shell, they ignore Ctrl-C, and their children would inherit that.
        default_handler = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        return subprocess.Popen([*COMMAND, *arguments], env=environment, text=True, **pipes, **default_handler)

    return start


def left_running(home):
    """Processes whose environment or command line names the demo's temporary folder."""
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if os.fsencode(home) in content:
            processes.append(content)
    return processes


def left_behind(home):
    """These processes, and the files in that folder."""
    return [*home.iterdir(), *left_running(home)]


def test_demo_runs_and_reports_the_study(start, home, tmp_path):
    process = start("--report", str(tmp_path / "report.html"))
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    answer = json.loads(out.splitlines()[-1])
    assert (answer["label"], answer["held_fixed"]["model.params.init_scale"]) == ("condensed", 0.1)
    assert [group["n"] for group in answer["groups"]] == [2] * 7
    assert {"adam", "ko", "sgd"} == {group["optimizer"]["name"] for group in answer["groups"]}
    assert len(answer["pairs"]) == 21
    assert [view["chosen"] is None for view in answer["tuning"]] == [False, False]
    assert answer["left_out"]["unfinished"] == answer["left_out"]["failed"] == 0
    assert "At the fixed learning rate 0.001, KO soft" in out
    assert "Adam, tuned on validation data, uses lr" in out
    assert "adjusted for 42 pairs" in out
    assert (tmp_path / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert left_behind(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_everything(start, home, number):
    process = start()
    assert process.stderr.readline().startswith("starting")
    assert process.stderr.readline().startswith("kotrain is running at")
    assert left_behind(home) != []
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, "kotrain: interrupted")
    assert left_behind(home) == []


def test_killed_demo_leaves_no_process(start, home):
    process = start()
    assert process.stderr.readline().startswith("starting")
    assert process.stderr.readline().startswith("kotrain is running at")
    process.kill()
    process.communicate()
    until(lambda: not left_running(home))
    (left,) = home.iterdir()
    process = start()  # which removes the folder
    assert process.stderr.readline().startswith("starting")
    assert process.stderr.readline().startswith("kotrain is running at")
    assert not left.exists()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert left_behind(home) == []
