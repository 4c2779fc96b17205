"""One thread of torch for every test of a module or folder that imports this: numbers and timings do not depend on
how many cores there are, and tests beside each other do not fight for them.
"""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
