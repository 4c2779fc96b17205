"""What a child says over its pipe, in a program that starts it as a worker does."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
import torch

from service.specs.outcome import Summary
from service.specs.states import Reason
from tests.programs import run_program
from workers import child
from workers.training.failures import DataReadError

PROGRAM = """
import json, sys
from pathlib import Path
from workers.__main__ import scrub, start_forkserver
from workers.entry import train_job
from workers.messages import Assignment
from workers.process import Process, describe_machine

def said(spec):
    process = Process(train_job, Assignment(spec, Path("nowhere"), 1, None, None, Path("nowhere"), 60.0, None))
    messages, gone = [], False
    while not gone:
        received, gone = process.messages(1.0)
        messages += received
    return messages, process.reap()

scrub()
start_forkserver()
print(json.dumps({
    "machine": describe_machine(),
    "torch is here": "torch" in sys.modules,
    "jobs": [said(spec) for spec in json.loads(sys.argv[1])],
}))
"""
WIDTH = 2000
JOB = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [WIDTH, WIDTH]}},
    "optimizer": "adam",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    specs = [JOB | {"budget": {"steps": 3}}, JOB | {"budget": {"seconds": 0.2}}]
    answer: dict[str, Any] = run_program(PROGRAM, json.dumps(specs), CUDA_VISIBLE_DEVICES="")
    return answer


def test_a_worker_learns_of_torch_without_loading_it(found: dict[str, Any]) -> None:
    assert found["machine"] == [torch.__version__, []]
    assert not found["torch is here"]


@pytest.mark.parametrize(("job", "total_steps"), [(0, 3), (1, None)])
def test_a_job_says_how_many_steps_it_has_and_how_it_ended(
    found: dict[str, Any], job: int, total_steps: int | None
) -> None:
    messages, status = found["jobs"][job]
    assert status == 0
    assert [message[2] for message in messages if message[0] == "started"] == [total_steps]
    assert [message[0] for message in messages if message[0] != "points"] == ["started", "result"]
    summary = Summary.model_validate(messages[-1][1])
    assert summary.reason == "completed"
    assert summary.steps == (total_steps or summary.steps)
    assert total_steps or summary.train_seconds >= 0.2


def test_a_job_says_what_it_kept_in_memory(found: dict[str, Any]) -> None:
    messages, _ = found["jobs"][0]
    memory = Summary.model_validate(messages[-1][1]).memory
    assert memory is not None
    weights = 64 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * 10 + 10
    assert memory.parameter_bytes == 4 * weights
    assert memory.optimizer_state_bytes == 8 * weights + 4 * 6
    assert memory.peak_bytes is not None
    kept = 16 * weights  # with gradients
    assert kept <= memory.peak_bytes < kept + 300 * 2**20


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
        (DataReadError("a process that reads the data was lost"), Reason.CHILD_LOST),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("a defect"), Reason.ERROR),
    ],
)
def test_whose_fault_an_error_is(error: BaseException, reason: Reason) -> None:
    assert child._reason_of(error) is reason


def test_too_little_memory_is_one_sentence_with_the_limit() -> None:
    said = child._describe(MemoryError("cannot allocate memory for array"), 2**28)
    assert said == (
        "out of memory: MemoryError: cannot allocate memory for array (limit 268 MB: memory_limit_bytes of the "
        "job, KOTRAIN_JOB_MEMORY_BYTES of the worker)"
    )
    assert child._describe(torch.OutOfMemoryError("CUDA out of memory"), None).endswith("CUDA out of memory")
