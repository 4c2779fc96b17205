"""Jobs on a real GPU, through the whole service (`make gpu`); skipped without a GPU."""

import os
import signal
from collections.abc import Sequence
from uuid import UUID

import pytest
import torch
from sqlalchemy import func, select

from service.config import settings
from service.storage import database
from service.storage.tables import Checkpoint, Worker
from tests.acceptance.lab import FAST, JOB, Lab, running_worker
from tests.real_data import DATA_DIR, real
from tests.waiting import until

if not torch.cuda.is_available():
    pytest.skip("no CUDA device; run `make gpu` on a machine with one", allow_module_level=True)

DIGITS = JOB | {"model": {"name": "mlp", "params": {"hidden": [256, 256]}}, "budget": {"epochs": 20}}
KO = {"name": "ko", "params": {"base": "adam", "lr": 1e-3}}
IN_SECONDS = {"samples_per_second", "diagnostics_seconds"}


@pytest.fixture(scope="module")
def worker(schema):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATA_DIR", str(DATA_DIR))
        settings.cache_clear()
        with running_worker(FAST | {"KOTRAIN_LEASE_SECONDS": "5", "KOTRAIN_CHECKPOINT_SECONDS": "1"}) as worker:
            yield worker
    settings.cache_clear()


@pytest.fixture(scope="module")
def worker_row(worker):
    """The columns with which the worker registered."""
    (row,) = until(_workers)
    return {column.key: getattr(row, column.key) for column in Worker.__table__.columns if column.key != "heartbeat_at"}


@pytest.fixture
def lab(worker_row, api):
    with database.transaction() as session:  # the fixture `empty` deletes the worker's row
        session.merge(Worker(**worker_row, heartbeat_at=database.NOW))
    return Lab(api)


def _workers() -> Sequence[Worker]:
    with database.transaction() as session:
        return session.scalars(select(Worker)).all()


def _checkpoints(job_id: str) -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).where(Checkpoint.job_id == UUID(job_id)))


def curves(lab, job_id: str) -> dict:
    """All curves except those in seconds."""
    return {
        name: (curve["steps"], curve["values"]) for name, curve in lab.metrics(job_id).items() if name not in IN_SECONDS
    }


def test_worker_reports_its_gpu(lab):
    (worker,) = _workers()
    gpu, *_ = worker.devices
    assert (gpu["kind"], gpu["name"]) == ("cuda", torch.cuda.get_device_name())
    assert gpu["memory_bytes"] == torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize("optimizer", ["adam", "muon", KO], ids=["adam", "muon", "ko"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_trains_in_each_precision(lab, optimizer, precision):
    job = lab.ended(lab.submit(DIGITS, optimizer=optimizer, precision=precision))
    assert job["status"] == "succeeded", job["message"]
    assert job["environment"]["device_kind"] == "cuda"
    assert job["environment"]["device_name"] == torch.cuda.get_device_name()
    assert job["summary"]["metrics"]["test_accuracy"] > 0.9
    assert job["summary"]["memory"]["peak_bytes"] > 2**20


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equal_jobs_have_bit_identical_curves(lab, precision):
    first, second = (lab.submit(DIGITS, optimizer=KO, precision=precision) for _ in range(2))
    assert lab.ended(first)["status"] == lab.ended(second)["status"] == "succeeded"
    assert curves(lab, first) == curves(lab, second)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_job_resumes_bit_identically_after_its_process_dies(lab, worker, precision):
    long = DIGITS | {"optimizer": KO, "precision": precision, "budget": {"epochs": 200}}
    job_id = lab.submit(long)
    until(lambda: _checkpoints(job_id), 120)
    child = worker.child()
    os.kill(child, signal.SIGKILL)
    until(lambda: lab.show(job_id)["status"] in ("succeeded", "failed"), 300)
    job = lab.show(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2), job["message"]
    uninterrupted = lab.submit(long, tags={"uninterrupted": "yes"})
    until(lambda: lab.show(uninterrupted)["status"] in ("succeeded", "failed"), 300)
    assert curves(lab, job_id) == curves(lab, uninterrupted)


def test_cancel_frees_the_gpu(lab, worker):
    free, _ = torch.cuda.mem_get_info()
    job_id = lab.submit(DIGITS, optimizer="adam", budget={"steps": 10_000_000})
    lab.wait_until_training(job_id)
    assert torch.cuda.mem_get_info()[0] < free
    lab.api.post(f"/v1/jobs/{job_id}/cancel")
    assert lab.ended(job_id)["status"] == "cancelled"
    until(lambda: torch.cuda.mem_get_info()[0] >= free - 2**20, 20)


def test_fails_out_of_memory_on_full_gpu(lab):
    free, _ = torch.cuda.mem_get_info()
    occupied = torch.empty(free - 3 * 2**30 // 2, dtype=torch.uint8, device="cuda")
    wide = {"name": "mlp", "params": {"hidden": [12_000, 12_000]}}
    job = lab.ended(lab.submit(DIGITS, optimizer="adam", model=wide))
    assert (job["status"], job["reason"]) == ("failed", "out_of_memory")
    assert "memory" in job["message"]
    del occupied
    torch.cuda.empty_cache()


@pytest.mark.parametrize(
    ("dataset", "model", "fields", "expected"),
    [
        ("mnist", "resnet18", {"precision": "bf16", "budget": {"epochs": 2}, "batch_size": 256}, 0.95),
        ("snips", "transformer", {"precision": "fp16", "budget": {"epochs": 4}}, 0.8),
    ],
)
def test_learns_real_data(lab, dataset, model, fields, expected):
    real(dataset)
    job_id = lab.submit(fields | {"dataset": dataset, "model": model, "optimizer": KO})
    until(lambda: lab.show(job_id)["status"] in ("succeeded", "failed"), 300)
    job = lab.show(job_id)
    assert job["status"] == "succeeded", job["message"]
    assert job["summary"]["metrics"]["test_accuracy"] > expected
