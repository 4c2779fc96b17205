"""Messages that a training process sends over its pipe, from a program that starts it as a worker does."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
import torch

from service.specs.states import Reason
from service.specs.summary import Summary
from tests.programs import run_forked
from workers import child

PROGRAM = """
import json, sys
from pathlib import Path
from workers.__main__ import scrub, start_forkserver
from workers.entry import train_job
from workers.messages import Assignment
from workers.process import Process

def run_job(spec):
    process = Process(train_job, Assignment(spec, Path("nowhere"), 1, None, None, Path("nowhere"), 60.0, None))
    messages, is_closed = [], False
    while not is_closed:
        received, is_closed = process.messages(1.0)
        messages += received
    return messages, process.reap()

scrub()
start_forkserver()
print(json.dumps([run_job(spec) for spec in json.loads(sys.argv[1])]))
"""
WIDTH = 2000
JOB = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [WIDTH, WIDTH]}},
    "optimizer": "adam",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def jobs() -> list[Any]:
    """The messages and exit status of each job."""
    specs = [
        JOB | {"budget": {"steps": 3}},
        JOB | {"budget": {"seconds": 0.2}},
        JOB | {"optimizer": "of-a-later-version", "budget": {"steps": 3}},
    ]
    output: list[Any] = run_forked(PROGRAM, json.dumps(specs), CUDA_VISIBLE_DEVICES="")
    return output


@pytest.mark.parametrize(("job", "total_steps"), [(0, 3), (1, None)])
def test_job_sends_total_steps_and_result(jobs: list[Any], job: int, total_steps: int | None) -> None:
    messages, status = jobs[job]
    assert status == 0
    assert [message[2] for message in messages if message[0] == "started"] == [total_steps]
    assert [message[0] for message in messages if message[0] != "points"] == ["started", "result"]
    summary = Summary.model_validate(messages[-1][1])
    assert summary.reason == "completed"
    assert summary.steps == (total_steps or summary.steps)
    assert total_steps or summary.train_seconds >= 0.2


def test_job_sends_memory_usage(jobs: list[Any]) -> None:
    messages, _ = jobs[0]
    memory = Summary.model_validate(messages[-1][1]).memory
    assert memory is not None
    weights = 64 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * 10 + 10
    assert memory.parameter_bytes == 4 * weights
    assert memory.optimizer_state_bytes == 8 * weights + 4 * 6
    assert memory.peak_bytes is not None
    tensor_bytes = 16 * weights  # weights, gradients and two moments
    assert tensor_bytes <= memory.peak_bytes < tensor_bytes + 300 * 2**20


def test_spec_of_another_version_is_invalid_without_traceback(jobs: list[Any]) -> None:
    (kind, reason, message), status = jobs[2][0][-1], jobs[2][1]
    assert (kind, reason, status) == ("failure", "invalid", 0)
    assert "of-a-later-version" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "the disk broke"), Reason.CHILD_LOST),
        (OSError(errno.ENOSPC, "no room"), Reason.CHILD_LOST),
        (torch.AcceleratorError("an uncorrectable memory error"), Reason.CHILD_LOST),
        (torch.OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "no memory"), Reason.OUT_OF_MEMORY),
        (PermissionError(errno.EACCES, "not yours"), Reason.ERROR),
        (FileNotFoundError(errno.ENOENT, "no such file"), Reason.CHILD_LOST),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("a defect"), Reason.ERROR),
    ],
)
def test_reason_of_error(error: BaseException, reason: Reason) -> None:
    assert child._reason_of(error) is reason


def test_out_of_memory_message_states_limit() -> None:
    message = child._describe(MemoryError("cannot allocate memory for array"), 2**28)
    assert message == (
        "out of memory: MemoryError: cannot allocate memory for array (limit 256 MiB: memory_limit_bytes of the "
        "job, KOTRAIN_JOB_MEMORY_BYTES of the worker)"
    )
    assert child._describe(torch.OutOfMemoryError("CUDA out of memory"), None).endswith("CUDA out of memory")
