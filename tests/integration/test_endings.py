"""The status of a job after the end of its process."""

import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage import database
from tests.integration.job_calls import claim, do, load, submit
from workers import ending, supervisor
from workers.ending import Interruption, Outcome
from workers.heartbeat import AttemptState, HeartbeatThread


def summary(reason):
    return Summary(
        reason=reason, steps=3, epochs=1.0, train_seconds=1.0, total_seconds=1.5, parameters=100, metrics={},
        best_step=None, target=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "status", "reason", "failures", "message"),
    [
        ({"summary": summary(Reason.COMPLETED)}, "succeeded", "completed", 0, None),
        ({"summary": summary(Reason.COMPLETED), "stop": Interruption.CANCEL}, "succeeded", "completed", 0, None),
        ({"summary": summary(Reason.CANCELLED), "stop": Interruption.CANCEL}, "cancelled", "cancelled", 0, "running"),
        ({"summary": summary(Reason.CANCELLED), "stop": Interruption.DRAIN}, "queued", None, 0, "shutting down"),
        (
            {"stop": Interruption.DRAIN, "exit_description": "was killed by signal 9"},
            "queued",
            None,
            0,
            "shutting down",
        ),
        ({"stop": Interruption.DRAIN, "failure": (Reason.ERROR, "a defect")}, "failed", "error", 0, "a defect"),
        ({"stop": Interruption.DRAIN, "failure": (Reason.CHILD_LOST, "EIO")}, "queued", "child_lost", 1, "EIO"),
        ({"stop": Interruption.CANCEL, "failure": (Reason.ERROR, "a defect")}, "cancelled", "cancelled", 0, "running"),
        ({"stop": Interruption.TIME_LIMIT}, "failed", "timed_out", 0, "time limit of 5 s"),
        ({"stop": Interruption.MEMORY, "memory_bytes": 2**28}, "failed", "out_of_memory", 0, "256 MiB"),
        ({"stop": Interruption.STALL}, "queued", "child_lost", 1, "no output"),
        ({"failure": (Reason.INVALID, "no such thing")}, "failed", "invalid", 0, "no such thing"),
        ({"unable": "its data is not here"}, "queued", None, 0, "its data is not here"),
        ({"killed_for_memory": True}, "queued", "out_of_memory", 1, "the kernel killed"),
        (
            {"failed_to_allocate": True, "used_bytes": 2**27, "memory_bytes": 2**28},
            "failed",
            "out_of_memory",
            0,
            "used 128 MiB of at most 256 MiB",
        ),
        ({"exit_description": "was killed by signal 11"}, "queued", "child_lost", 1, "was killed by signal 11"),
    ],
)
def test_outcome_of_the_process_decides_the_status_of_the_job(users, outcome, status, reason, failures, message):
    job_id = submit(time_limit_seconds=5)
    claimed = claim()
    assert do(ending._end_attempt, claimed, AttemptState(claimed), Outcome(**outcome))
    job = load(job_id)
    assert (job.status, job.reason, job.failures) == (status, reason, failures)
    assert message is None or message in job.message


@pytest.mark.parametrize("reported", [{"summary": summary(Reason.COMPLETED)}, {"failure": (Reason.ERROR, "a defect")}])
def test_failures_after_the_end_change_nothing(users, monkeypatch, reported):
    """For example an error when the local copy of a checkpoint is removed."""

    def run(claim, host, state, outcome):
        for name, value in reported.items():
            setattr(outcome, name, value)
        raise OSError("Read-only file system")

    monkeypatch.setattr(supervisor, "_run", run)
    host = SimpleNamespace(id="w1", draining=threading.Event(), job_ended=threading.Event())
    job_id = submit()
    assert not supervisor.supervise(claim(), host, HeartbeatThread("w1")), "the machine counts as healthy"
    assert load(job_id).status == ("succeeded" if "summary" in reported else "failed")


def test_idle_transaction_loses_its_locks_after_a_minute(schema):
    """This covers connections other than a worker's, which have a shorter limit of their own."""
    with database.engine().connect() as connection:
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
