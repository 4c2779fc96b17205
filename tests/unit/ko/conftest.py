"""The default device of the tests of the optimizer."""

from collections.abc import Iterator

import pytest
import torch

from tests.devices import DEVICES
from tests.one_thread import one_thread  # noqa: F401 (an autouse fixture)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The default device of tensors and modules that a test creates."""
    torch.set_default_device(request.param)
    yield request.param
    torch.set_default_device(None)
