"""Invariants of the results of `service.stats`."""

import math
import re

import numpy as np
import pytest


def _numbers(value):
    if isinstance(value, bool | np.bool_ | str | None):
        return []
    if isinstance(value, int | float | np.number):
        return [float(value)]
    return [number for part in value for number in _numbers(part)]


def _check(result):
    """No number is NaN or infinite, and there is a reason if and only if a field is None."""
    fields = vars(result)
    assert all(math.isfinite(number) for value in fields.values() for number in _numbers(value)), result
    reasons = [value for name, value in fields.items() if name.endswith("cannot_say") and value is not None]
    assert all(re.fullmatch(r"[a-z0-9].*[^.]", reason) for reason in reasons)  # clauses, to follow "because" or a colon
    assert bool(reasons) == any(value is None for name, value in fields.items() if not name.endswith("cannot_say"))


@pytest.fixture(scope="session")
def check_invariants():
    """Check the invariants of a result; session-scoped, as hypothesis requires."""
    return _check
