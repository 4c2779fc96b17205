"""Reading a file that has to be refused."""

from pathlib import Path

import pytest

from service.datasets.uploads.formats import Form, read
from service.datasets.uploads.records import rows_for_test
from service.errors import Invalid

LIMIT = 10**8


def refused(path: Path, form: Form, limit: int = LIMIT) -> str:
    """The sentence that says what is wrong, with the name of the query's parameter where it is one's."""
    with pytest.raises(Invalid) as caught:
        rows_for_test(read(path, form, limit))
    (error,) = caught.value.errors
    return f"{error.pointer}: {error.detail}" if error.pointer else error.detail
