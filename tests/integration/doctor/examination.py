"""How tests look at what the doctor finds."""

from service.operations.doctor import checks
from service.operations.doctor.findings import Level

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


CPU, GPU = {"kind": "cpu", "name": "2 cores"}, {"kind": "cuda", "name": "A100"}


def look(check):
    """(level, text) of what a check finds."""
    found = checks.examine([check])
    assert all(one.remedy for one in found if one.level is Level.ERROR), "an error needs a remedy"
    return [(one.level.value, one.text) for one in found]


def says(check, level, *words):
    """Whether a check finds just one thing worse than ok, of this level and with these words."""
    bad = [(found, what) for found, what in look(check) if found != "ok"]
    assert [found for found, _ in bad] == [level], bad
    assert all(word in bad[0][1] for word in words), bad
    return True


def is_well(check):
    return {level for level, _ in look(check)} == {"ok"}
