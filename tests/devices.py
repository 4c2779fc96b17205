"""The devices that device-independent tests run on: `@pytest.mark.parametrize("device", DEVICES)`.

A machine without a GPU runs them on its CPU; one test (tests/unit/ko/test_devices.py) says so, instead of hundreds.
"""

import torch

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
