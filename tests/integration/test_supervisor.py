"""A supervisor and a process that really misbehaves: too much memory, no output, a kill that does not end it."""

import re

import pytest

from tests.programs import run_forked

PROGRAM = """
import json, logging, os, signal, sys, threading, time
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4
from service.jobs.claims import Claim
from service.specs.summary import Summary
from workers import code_check, inbox, messages, supervisor
from workers.__main__ import scrub, start_forkserver
from workers.process import Process
from workers.heartbeat import AttemptState
from tests import misbehaving

logging.getLogger("workers").addHandler(logging.NullHandler())
start_forkserver()
def watched(target, memory_bytes, *args):
    claim = Claim(uuid4(), 1, {}, None, None, 0)
    child, state = Process(target, *args), AttemptState(claim)
    host = SimpleNamespace(id="w", draining=threading.Event())
    began = time.monotonic()
    outcome = supervisor.Outcome(memory_bytes=memory_bytes)
    supervisor._Monitor(child, claim, host, state, outcome, None).run()
    return [outcome.stop and outcome.stop.name, outcome.exit_description, time.monotonic() - began,
            [note for batch in state.seal() for note in batch.notes], outcome.failed_to_allocate, outcome.used_bytes]

def ended(target, *args):
    # The failure of a process that would run for long, and the notes that were received before.
    claim = Claim(uuid4(), 1, {}, None, None, 0)
    state, outcome = AttemptState(claim), supervisor.Outcome(memory_bytes=2**40)
    host = SimpleNamespace(id="w", draining=threading.Event())
    supervisor._Monitor(Process(target, *args), claim, host, state, outcome, None).run()
    notes = [note for batch in state.seal() for note in batch.notes]
    return [outcome.failure, outcome.stop and outcome.stop.name, notes]

endings = [
    watched(misbehaving.eat, 250 * 2**20), watched(misbehaving.hang, 2**40), watched(misbehaving.end, 2**40),
]
inbox.PARTIAL_MESSAGE_SECONDS = 1
endings.append(watched(misbehaving.send_half, 2**40))
# A process in uninterruptible sleep survives its kill. A process whose exit is not reported looks the same.
supervisor.UNKILLABLE_SECONDS = 2
reporter = forkserver._forkserver._forkserver_pid
threading.Timer(1.5, os.kill, (reporter, signal.SIGSTOP)).start()
endings.append(watched(misbehaving.hang, 2**40))
os.kill(reporter, signal.SIGCONT)
stderr, full = os.dup(2), os.open("/dev/full", os.O_WRONLY)
os.dup2(full, 2)  # takes nothing of what the process writes to it
endings.append(watched(misbehaving.abort, 2**40))
os.dup2(stderr, 2)
invalid = {}
for kind in misbehaving.INVALID:
    invalid[kind] = ended(misbehaving.send_invalid, kind)
invalid["long"] = ended(misbehaving.send_long)
invalid["notes"] = ended(misbehaving.send_notes)
endings.append(watched(misbehaving.drip, 2**40))
claim = Claim(uuid4(), 1, {}, 0.5, None, 0)
state, outcome = AttemptState(claim), supervisor.Outcome(memory_bytes=2**40)
host = SimpleNamespace(id="w", draining=threading.Event())
began = time.monotonic()
supervisor._Monitor(Process(misbehaving.flood), claim, host, state, outcome, None).run()
endings.append([outcome.stop and outcome.stop.name, time.monotonic() - began])

inbox.MAX_POINTS = supervisor.MAX_POINTS = 5000
invalid["points"] = ended(misbehaving.send_points, False)
assignment = messages.Assignment({}, Path(), 1, None, None, Path("own"), 1.0, None)
uploaded = replace(assignment, code=("some",))
outcome = supervisor.Outcome(memory_bytes=2**40)
state = AttemptState(Claim(uuid4(), 1, {}, None, None, 0))
child = Process(misbehaving.send_points, True)
supervisor._Monitor(child, state.claim, host, state, outcome, uploaded).run()
points = sum(len(steps) for batch in state.seal() for steps, _, _ in batch.points.values())
spread = [outcome.stop and outcome.stop.name, outcome.excess, points]

def seconds_after_start(assignment):
    # Of the time limit, if the process reports its start after five seconds.
    times = supervisor.Times(time.monotonic() - 5)
    monitor = supervisor._Monitor(child, state.claim, host, state, outcome, assignment, times)
    monitor._handle(messages.Started({}, 1, 0, [], 0.0))
    return round(time.monotonic() - times.started)

starts = [seconds_after_start(assignment), seconds_after_start(uploaded)]

supervisor.entry = SimpleNamespace(measure_job=misbehaving.measure)
def measured(*, trained_seconds=1.0, drain_seconds=None, spec={}):
    # The end of an attempt that is measured when its process has trained for so long.
    claim = Claim(uuid4(), 1, {}, 10.0, None, 0)
    times = supervisor.Times(time.monotonic() - trained_seconds)
    host = SimpleNamespace(id="w", draining=threading.Event())
    if drain_seconds is not None:
        times.drain_until = time.monotonic() + drain_seconds
        host.draining.set()
    summary = Summary(reason="completed", steps=5, epochs=1.0, train_seconds=1.0, total_seconds=1.0, parameters=1,
        metrics={}, best_step=None, target=None)
    outcome = supervisor.Outcome(memory_bytes=2**40, summary=summary)
    began = time.monotonic()
    supervisor._measure(claim, host, AttemptState(claim), outcome, replace(assignment, spec=spec), times)
    return [outcome.summary and outcome.summary.metrics, outcome.stop and outcome.stop.name, time.monotonic() - began]

measurements = {
    "usual": measured(),
    "late": measured(trained_seconds=9.5, spec={"batch_size": 1}),
    "drained": measured(drain_seconds=8.0),
    "drained late": measured(drain_seconds=0.5, spec={"batch_size": 1}),
}

code_check.entry = SimpleNamespace(check_code=misbehaving.end_test)
def tested(kind):
    # The sentence of a conformance test, and whether it is repeated.
    host = SimpleNamespace(threads_per_job=1, draining=threading.Event())
    try:
        return [code_check._run(kind, host)[0].text, False]
    except code_check.MachineTrouble as trouble:
        return [str(trouble), True]

tests = {kind: tested(kind) for kind in misbehaving.TESTS}
print(json.dumps([endings, invalid, spread, measurements, tests, starts]))
"""
STALL_SECONDS = 3


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory):
    """A file that exists if a hostile pickle has been loaded."""
    return tmp_path_factory.mktemp("hostile") / "loaded"


@pytest.fixture(scope="module")
def report(hostile_file):
    return run_forked(
        PROGRAM,
        KOTRAIN_STALL_SECONDS=str(STALL_SECONDS),
        KOTRAIN_CANCEL_SECONDS="1",
        HOSTILE_FILE=str(hostile_file),
    )


@pytest.fixture(scope="module")
def endings(report):
    return report[0]


INVALID = {
    "pickle": "missing required field",
    "not a message": "Expected `object`",
    "empty": "truncated",
    "unknown kind": "Command",
    "unknown field": "unknown field `more`",
    "long text": "length <= 20000",
    "path": "matching regex",
    "negative step": ">= 0",
    "huge step": "<= 2147483647|out of range",
    "columns": "columns of different lengths",
    "line break": "matching regex",
    "NUL": "matching regex",
    "no points": "empty columns",
    "backwards": "step 1 after step 2",
    "no time": "`float` >= 0.0",
    "endless time": "<= 1000000000",
    "many metrics": "more than 10,000 metrics",
    "bomb": "Expected|length <= 64",
    "engine": "NoEngine after Ready",
    "completed": "completed",
    "name": "length <= 128",
    "deep": "recursion|Expected|truncated",
    "reason": "no such reason",
    "summary": "validation error",
    "long": "too long",
    "notes": "more than 200 notes",
    "points": "more than 5,000 points of metric 'x'",
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_message_ends_the_process_with_a_sentence(report, hostile_file, kind):
    (reason, text), stop, notes = report[1][kind]
    before = {"long": 0, "notes": 200}.get(kind, 1)
    assert (reason, stop, notes) == ("error", None, ["last words"] * before)
    assert text.startswith("the training process sent an invalid message: ")
    assert re.search(INVALID[kind], text), text
    assert not hostile_file.exists(), "the pickle was loaded"


def test_points_of_uploaded_code_are_limited_over_all_metrics(report):
    stop, excess, points = report[2]
    assert (stop, excess) == ("EXCESS", "it reported more than 5,000 points of metrics")
    assert points <= 5000


def test_measurement_counts_in_the_time_limit(report):
    assert report[3]["usual"][:2] == [{"test_accuracy": 0.5}, None]
    summary, stop, seconds = report[3]["late"]
    assert (summary, stop) == (None, "TIME_LIMIT")
    assert 0.5 < seconds < 10


def test_uploaded_code_cannot_delay_the_start_of_the_time_limit(report):
    assert report[5] == [0, 5]


def test_measurement_may_end_while_the_worker_shuts_down(report):
    assert report[3]["drained"][:2] == [{"test_accuracy": 0.5}, None]
    summary, stop, seconds = report[3]["drained late"]
    assert (summary, stop) == (None, "DRAIN"), "the job is queued again"
    assert seconds < 8


def test_conformance_test_is_repeated_after_trouble_of_the_machine(report):
    assert report[4] == {
        "killed": ["its process was killed from outside", True],
        "disk": ["Traceback: OSError: no space", True],
        "unable": ["it cannot isolate uploaded code", True],
        "aborted": ["ends the process with status -6", False],
        "error": ["ValueError: mine", False],
    }


def test_memory_limit_covers_all_processes(endings):
    stop, exit_description, *_, used_bytes = endings[0]
    assert (stop, exit_description) == ("MEMORY", "was killed by signal 9")
    assert 250 * 2**20 < used_bytes < 650 * 2**20, "each of the two allocates up to 300 MiB beyond the shared engine"


def test_failed_allocation_in_native_code_is_recognized(endings):
    stop, exit_description, _, _, failed_to_allocate, _ = endings[5]
    assert (stop, exit_description, failed_to_allocate) == (None, "was killed by signal 6", True)


def test_hang_in_native_code_is_killed(endings):
    stop, exit_description, seconds, notes, failed_to_allocate, _ = endings[1]
    assert not failed_to_allocate
    assert (stop, exit_description, notes) == ("STALL", "was killed by signal 9", ["last words"])
    assert seconds >= STALL_SECONDS


def test_process_that_stops_within_a_message_is_killed(endings):
    stop, exit_description, _, notes, *_ = endings[3]
    assert (stop, exit_description, notes) == (None, "was killed by signal 9", ["last words"])


def test_process_that_drips_bytes_is_killed(endings):
    assert endings[6][:2] == [None, "was killed by signal 9"]


def test_process_that_writes_without_pause_obeys_its_time_limit(endings):
    stop, seconds = endings[7]
    assert stop == "TIME_LIMIT"
    assert seconds < 30


def test_process_that_survives_its_kill_does_not_block(endings):
    stop, exit_description, seconds, *_ = endings[4]
    assert (stop, exit_description) == ("STALL", "was killed but does not end: it is blocked by a device or a disk")
    assert seconds >= STALL_SECONDS + 2


def test_exit_without_a_message_is_reported(endings):
    stop, exit_description, *_ = endings[2]
    assert (stop, exit_description) == (None, "ended with status 7 and no result")
