"""Location of the real data sets: KOTRAIN_DATA_DIR, or `../shared/data` beside the checkout."""

import os
from pathlib import Path

import pytest

from service.datasets.layouts import Located, fetch_command, locate

DATA_DIR = Path(os.environ.get("KOTRAIN_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


def real(name: str) -> Located:
    """Return the location of a data set's real files; skip the test if they are missing."""
    located = locate(name, DATA_DIR)
    if located is None:
        pytest.skip(f"no {name} under {DATA_DIR}: set KOTRAIN_DATA_DIR, or `{fetch_command(name)}`")
    return located
