import pytest
import torch

from tests.devices import DEVICES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine: KO is tested on its CPU")
def test_a_gpu_takes_part() -> None:
    assert "cuda" in DEVICES
