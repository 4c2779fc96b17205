"""Runs the doctor's checks and summarizes their findings."""

from service.operations.doctor import checks
from service.operations.doctor.findings import Level

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


CPU, GPU = {"kind": "cpu", "name": "2 cores"}, {"kind": "cuda", "name": "A100"}


def examine(check):
    """Return (level, text) of each finding of a check."""
    findings = checks.examine([check])
    assert all(finding.remedy for finding in findings if finding.level is Level.ERROR), "an error needs a remedy"
    return [(finding.level.value, finding.text) for finding in findings]


def finds(check, level, *words):
    """Assert that a check has a single finding other than ok, of this level and with these words."""
    problems = [(found_level, text) for found_level, text in examine(check) if found_level != "ok"]
    assert [found_level for found_level, _ in problems] == [level], problems
    assert all(word in problems[0][1] for word in words), problems
    return True


def is_ok(check):
    return {level for level, _ in examine(check)} == {"ok"}
