"""A worker's host: slots, GPUs and the memory of a job."""

import pytest

from service.config import settings
from service.jobs.memory import JobMemory, default_slots, machine_bytes
from workers import process
from workers.host import Host
from workers.messages import Machine

GPU = {"kind": "cuda", "name": "a GPU", "memory_bytes": 2**34}


@pytest.fixture
def two_gpus(monkeypatch):
    """Describe a machine with two GPUs; the real one may have none."""
    monkeypatch.setattr(process, "describe_machine", lambda: Machine("2.14.1", [GPU, GPU]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("KOTRAIN_SLOTS", raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def test_slots_spread_over_gpus(two_gpus):
    host = Host()
    assert (host.slots, host.has_cuda, host.idle_slots, host.torch) == (2, True, 2, "2.14.1")
    with host.slot(on_gpu=True) as first, host.slot(on_gpu=True) as second, host.slot(on_gpu=False) as cpu:
        assert {first, second} == {"0", "1"}
        assert cpu is None
        assert host.idle_slots == -1
    with host.slot(on_gpu=True) as reused:
        assert reused == "0"


@pytest.mark.parametrize("visible", ["2,3", "GPU-5f,MIG-7a"])
def test_uses_visible_gpus_only(two_gpus, visible):
    two_gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
    host = Host()
    with host.slot(on_gpu=True) as first, host.slot(on_gpu=True) as second:
        assert [first, second] == visible.split(",")


def test_slots_share_memory(two_gpus):
    two_gpus.setenv("KOTRAIN_SLOTS", "4")
    settings.cache_clear()
    host = Host()
    host.engine_bytes = 2**28
    limit_bytes = host.job_memory.limit_bytes
    assert 4 * limit_bytes + 2**28 == pytest.approx(0.8 * host.devices[-1]["memory_bytes"], abs=4)


def test_too_many_slots_are_refused_with_the_number_that_fits():
    most = int(0.8 * machine_bytes() - 2**29) // 2**28
    assert JobMemory(most, None).refusal is None
    text, remedy = JobMemory(most + 1, None).refusal
    assert "of the training engine; a job needs at least 256 MiB" in text
    assert remedy == f"set KOTRAIN_SLOTS to at most {most}"
    assert "more memory" in JobMemory(1, None, engine_bytes=machine_bytes()).refusal[1]


def test_limits_that_add_up_to_more_than_the_memory_are_a_warning():
    assert JobMemory(2, machine_bytes() // 4).warning is None
    assert "2 jobs of" in JobMemory(2, machine_bytes() // 2).warning


def test_slots_by_default_leave_memory_to_each_job():
    assert default_slots(2) == 2
    assert JobMemory(default_slots(100_000), None).limit_bytes >= 2**29
