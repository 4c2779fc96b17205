import pytest

from service.config import settings
from workers import process
from workers.host import Host

GPU = {"kind": "cuda", "name": "a GPU", "memory_bytes": 2**34}


@pytest.fixture
def two_gpus(monkeypatch):
    """This machine may have none: what a look at them would find is given."""
    monkeypatch.setattr(process, "describe_machine", lambda: process.Machine("2.14.1", [GPU, GPU]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("KOTRAIN_SLOTS", raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def test_jobs_spread_over_the_gpus(two_gpus):
    host = Host()
    assert (host.slots, host.has_cuda, host.idle_slots, host.torch) == (2, True, 2, "2.14.1")
    with host.slot(on_gpu=True) as first, host.slot(on_gpu=True) as second, host.slot(on_gpu=False) as none:
        assert {first, second} == {"0", "1"}
        assert none is None
        assert host.idle_slots == -1
    with host.slot(on_gpu=True) as again:
        assert again == "0"


@pytest.mark.parametrize("visible", ["2,3", "GPU-5f,MIG-7a"])
def test_the_gpus_given_to_the_worker_are_the_only_ones_it_hands_on(two_gpus, visible):
    two_gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
    host = Host()
    with host.slot(on_gpu=True) as first, host.slot(on_gpu=True) as second:
        assert [first, second] == visible.split(",")


def test_slots_share_the_memory(two_gpus):
    two_gpus.setenv("KOTRAIN_SLOTS", "4")
    settings.cache_clear()
    host = Host()
    assert host.job_memory_bytes == pytest.approx(0.2 * host.devices[-1]["memory_bytes"], abs=1)
