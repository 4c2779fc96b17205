"""Location of the real data sets: KOTRAIN_DATA_DIR, or `../shared/data` beside the checkout."""

import os
from pathlib import Path
from typing import Any

import pytest

from service.datasets.layouts import Located, Part, fetch_command, locate
from workers.training.datasets import BUILDERS

DATA_DIR = Path(os.environ.get("KOTRAIN_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


def real(name: str) -> Located:
    """Return the location of a data set's real files; skip the test if they are missing."""
    located = locate(name, DATA_DIR)
    if located is None:
        pytest.skip(f"no {name} under {DATA_DIR}: set KOTRAIN_DATA_DIR, or `{fetch_command(name)}`")
    return located


def read(name: str, located: Located, part: Part) -> Any:
    """The records of a part, read by the reader of the located layout."""
    readers: Any = BUILDERS[name]
    return readers.readers[located.layout.form](located.files(part), part)
