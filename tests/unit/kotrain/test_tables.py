"""What the command line prints of comparisons."""

import io

import pytest
from rich.console import Console

from kotrain import tables
from kotrain.tables import HOLM, SPENDING
from service.comparisons.answers import GroupView
from service.comparisons.boards import Leaderboard
from tests.unit.service.reports.studies import study


def printed(table):
    out = io.StringIO()
    Console(file=out, width=240).print(table)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def group(mean, sd) -> GroupView:
    return study().answer.tasks[0].groups[0].model_copy(update={"mean": mean, "sd": sd})


@pytest.mark.parametrize(
    ("mean", "sd", "said"),
    [
        (0.96951, 0.00212, "0.9695 ± 0.0021"),
        (103273.42, 19941.21, "103,273 ± 19,941"),
        (74000.0, 17727.5998, "74,000 ± 17,728"),
        (0.9, None, "0.9000"),
        (103273.42, None, "103,273"),
        (None, None, "-"),
    ],
)
def test_numbers_have_the_digits_that_say_something(mean, sd, said):
    assert tables.spread(group(mean, sd)) == said


def test_intervals_likewise():
    assert tables.interval((0.91234, 0.95)) == "0.9123 .. 0.9500"
    assert tables.signed_interval((-15470.3, 87654.2)) == "-15,470 .. +87,654"
    assert tables.interval(None) == tables.signed_interval(None) == "-"


@pytest.mark.parametrize(("p", "said"), [(None, "-"), (0.00001, "< 0.001"), (0.0099, "0.010"), (0.25, "0.25")])
def test_a_p_is_never_zero(p, said):
    assert tables.p_value(p) == said


def test_the_name_of_p_says_how_it_was_adjusted():
    answer = study().answer
    looked = answer.model_copy(update={"plan": answer.plan.model_copy(update={"nominal_p": [0.003, 0.04]})})
    for one, name, other in ((answer, HOLM, SPENDING), (looked, SPENDING, HOLM)):
        heads = [line for line in printed(tables.verdict(one)) if line.startswith("a b n")]
        assert heads
        assert all(name in line and other not in line for line in heads)


def test_the_leaderboard_has_no_p_of_zero():
    standing = {
        "rank": 1, "label": "adam", "optimizer": {}, "n": 3, "mean": 0.9, "sd": 0.01, "interval": None, "best": 0.9,
        "diverged": 0, "behind_first": -0.1, "interval_behind": None, "p_behind": 1e-9, "cannot_say": None,
    }  # fmt: skip
    board = {"setting": {"batch_size": 64}, "runs": 3, "standings": [standing]}
    found = {"dataset": "digits", "model": "mlp", "metric": "test_accuracy", "boards": [board]}
    text = "\n".join(printed(tables.leaderboard(Leaderboard.model_validate(found))))
    assert "< 0.001" in text
    assert "0.0000" not in text
