"""Devices of the device-independent tests: `@pytest.mark.parametrize("device", DEVICES)`.

Without a GPU they run on the CPU only; one test (tests/unit/ko/test_devices.py) reports that, instead of hundreds.
"""

import torch

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
