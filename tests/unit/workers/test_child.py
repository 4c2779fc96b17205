"""Messages that a training process sends over its pipe, from a program that starts it as a worker does."""

from __future__ import annotations

import errno
import json
import re
from typing import Any

import pytest
import torch

from service.jobs.requests import MIN_MEMORY_BYTES
from service.specs.states import Reason
from service.specs.summary import Summary
from tests.programs import run_forked
from workers import child

PROGRAM = """
import json, sys
import msgspec
from pathlib import Path
from workers.__main__ import scrub, start_forkserver
from workers.entry import train_job
from workers.messages import Assignment
from workers.process import Process

def as_json(summary):
    return summary.model_dump(mode="json")

def run_job(spec, threads=1, limit=None):
    process = Process(train_job, Assignment(spec, Path("nowhere"), threads, None, limit, Path("nowhere"), 60.0, None))
    messages, is_closed = [], False
    while not is_closed:
        received, is_closed = process.messages(1.0)
        messages += received
    return [msgspec.to_builtins(message, enc_hook=as_json) for message in messages], process.reap()

scrub()
start_forkserver()
print(json.dumps([run_job(*arguments) for arguments in json.loads(sys.argv[1])]))
"""
WIDTH = 2000
THREADS = 40
JOB = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [WIDTH, WIDTH]}},
    "optimizer": {"name": "adam", "params": {}},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def jobs() -> list[Any]:
    """The messages and exit status of each job."""
    three_steps = {"budget": {"steps": 3}}
    arguments = [
        [JOB | three_steps],
        [JOB | {"budget": {"seconds": 0.2}}],
        [JOB | three_steps | {"optimizer": {"name": "of-a-later-version", "params": {}}}],
        [JOB | three_steps | {"model": "mlp"}, THREADS, MIN_MEMORY_BYTES],
        [JOB | three_steps | {"model": {"name": "mlp", "params": {"hidden": [4000, 4000]}}}, 1, MIN_MEMORY_BYTES],
        [JOB | three_steps | {"model": "mlp"}, 1, 2**20],
    ]
    output: list[Any] = run_forked(PROGRAM, json.dumps(arguments), CUDA_VISIBLE_DEVICES="")
    return output


@pytest.mark.parametrize(("job", "total_steps"), [(0, 3), (1, None)])
def test_job_sends_total_steps_and_result(jobs: list[Any], job: int, total_steps: int | None) -> None:
    messages, status = jobs[job]
    assert status == 0
    assert [message["total_steps"] for message in messages if message["kind"] == "Started"] == [total_steps]
    assert [message["kind"] for message in messages if message["kind"] != "Points"] == ["Ready", "Started", "Result"]
    summary = Summary.model_validate(messages[-1]["summary"])
    assert summary.reason == "completed"
    assert summary.steps == (total_steps or summary.steps)
    assert total_steps or summary.train_seconds >= 0.2


def test_job_sends_memory_usage(jobs: list[Any]) -> None:
    messages, _ = jobs[0]
    memory = Summary.model_validate(messages[-1]["summary"]).memory
    assert memory is not None
    weights = 64 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * 10 + 10
    assert memory.parameter_bytes == 4 * weights
    assert memory.optimizer_state_bytes == 8 * weights + 4 * 6
    assert memory.peak_bytes is not None
    tensor_bytes = 16 * weights  # weights, gradients and two moments
    assert tensor_bytes <= memory.peak_bytes < tensor_bytes + 300 * 2**20


def test_spec_of_another_version_is_invalid_without_traceback(jobs: list[Any]) -> None:
    failure, status = jobs[2][0][-1], jobs[2][1]
    assert (failure["kind"], failure["reason"], status) == ("Failure", "invalid", 0)
    message = failure["text"]
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


def test_least_memory_limit_suffices_for_a_small_network_with_many_threads(jobs: list[Any]) -> None:
    """The limit counts neither the training engine nor the stacks of threads, which together would exceed it."""
    messages, status = jobs[3]
    assert (messages[-1]["kind"], messages[-1]["summary"]["reason"], status) == ("Result", "completed", 0)


@pytest.mark.parametrize(("job", "most"), [(4, "256 MiB"), (5, "1 MiB")])
def test_failed_allocation_ends_with_use_and_limit(jobs: list[Any], job: int, most: str) -> None:
    """With 1 MiB left, any library may fail, with an error of its own; the report needs memory, too."""
    failure, status = jobs[job][0][-1], jobs[job][1]
    assert (failure["kind"], failure["reason"], status) == ("Failure", "out_of_memory", 0)
    message = failure["text"]
    assert re.match(rf"out of memory: used [\d.,]+ [KM]iB of at most {most} \(.*; .*Error", message), message


def test_message_of_a_full_gpu_is_that_of_torch() -> None:
    assert child._describe(torch.OutOfMemoryError("CUDA out of memory")).endswith("CUDA out of memory")
