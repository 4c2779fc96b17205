"""Limit torch to one thread in every test of a module or folder that imports this: results and timings do not depend
on the number of cores, and tests that run in parallel do not compete for them.
"""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Limit torch to one thread during the test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
