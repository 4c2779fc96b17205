"""The tables that the command line prints of comparisons and leaderboards."""

import io
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from kotrain import tables
from kotrain.tables import HOLM, SPENDING
from service.comparisons.answers import GroupView
from service.comparisons.boards import Leaderboard
from service.jobs.schemas import EventView, History
from tests.unit.service.reports.studies import study


def printed(table):
    out = io.StringIO()
    Console(file=out, width=240).print(table)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def group(mean, sd) -> GroupView:
    return study().answer.tasks[0].groups[0].model_copy(update={"mean": mean, "sd": sd})


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (0.96951, 0.00212, "0.9695 ± 0.0021"),
        (103273.42, 19941.21, "103,273 ± 19,941"),
        (74000.0, 17727.5998, "74,000 ± 17,728"),
        (0.9, None, "0.9000"),
        (103273.42, None, "103,273"),
        (None, None, "-"),
    ],
)
def test_mean_and_sd_have_significant_digits(mean, sd, text):
    assert tables.spread(group(mean, sd)) == text


def test_intervals_have_significant_digits():
    assert tables.interval((0.91234, 0.95)) == "0.9123 .. 0.9500"
    assert tables.signed_interval((-15470.3, 87654.2)) == "-15,470 .. +87,654"
    assert tables.interval(None) == tables.signed_interval(None) == "-"


@pytest.mark.parametrize(("p", "text"), [(None, "-"), (0.00001, "< 0.001"), (0.0099, "0.010"), (0.25, "0.25")])
def test_p_value_is_never_zero(p, text):
    assert tables.p_value(p) == text


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC", "2026-07-01 22:30:00 UTC"), ("CET-1CEST", "2026-07-02 00:30:00 CEST")]
)
def test_times_are_local_and_name_their_zone(monkeypatch, zone, shown):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
        event = EventView(seq=1, at=at, attempt=0, status="queued", reason=None, message=None)
        assert printed(tables.history(History(events=[event])))[1].startswith(shown)
        assert '"2026-07-01T22:30:00Z"' in event.model_dump_json()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_heading_of_p_names_adjustment():
    answer = study().answer
    sequential = answer.model_copy(update={"plan": answer.plan.model_copy(update={"nominal_p": [0.003, 0.04]})})
    for printed_answer, name, other in ((answer, HOLM, SPENDING), (sequential, SPENDING, HOLM)):
        heads = [line for line in printed(tables.verdict(printed_answer)) if line.startswith("a b n")]
        assert heads
        assert all(name in line and other not in line for line in heads)


def test_leaderboard_has_no_p_value_of_zero():
    standing = {
        "rank": 1, "label": "adam", "optimizer": {}, "n": 3, "mean": 0.9, "sd": 0.01, "interval": None, "best": 0.9,
        "diverged": 0, "behind_first": -0.1, "interval_behind": None, "p_behind": 1e-9, "cannot_say": None,
    }  # fmt: skip
    board = {"setting": {"batch_size": 64}, "runs": 3, "standings": [standing]}
    document = {"dataset": "digits", "model": "mlp", "metric": "test_accuracy", "boards": [board]}
    text = "\n".join(printed(tables.leaderboard(Leaderboard.model_validate(document))))
    assert "< 0.001" in text
    assert "0.0000" not in text
