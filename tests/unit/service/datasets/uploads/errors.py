"""The error of an upload that is rejected."""

from pathlib import Path

import pytest

from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import rows_for_test
from service.errors import Invalid

LIMIT = 10**8


def error_of(path: Path, form: Form, limit: int = LIMIT) -> str:
    """The message of the error, after the query parameter if it concerns one; fail if the file is accepted."""
    with pytest.raises(Invalid) as caught:
        rows_for_test(read(path, form, limit))
    (error,) = caught.value.errors
    return f"{error.pointer}: {error.detail}" if error.pointer else error.detail
