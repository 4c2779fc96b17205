"""Where the real data sets lie, for tests that read them: KOTRAIN_DATA_DIR, or `../shared/data` beside the checkout."""

import os
from pathlib import Path

import pytest

from service.datasets.layouts import Layout, fetch_command, locate

DATA_DIR = Path(os.environ.get("KOTRAIN_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


def real(name: str) -> Layout:
    """Where the set's real files lie; skips the test where they do not."""
    layout = locate(name, DATA_DIR)
    if layout is None:
        pytest.skip(f"no {name} under {DATA_DIR}: set KOTRAIN_DATA_DIR, or `{fetch_command(name)}`")
    return layout
