"""Summaries of jobs with uploaded code: what of them is believed."""

import pytest

from service.specs.states import Reason
from service.specs.summary import Summary
from workers.measurement import without_test


def summary(**changes):
    known = {"metrics": {"val_loss": 0.5, "test_loss": 0.1, "best_test_loss": 0.1}, "best_step": 8, "target": None}
    return Summary(
        reason=Reason.COMPLETED, steps=10, epochs=1.0, train_seconds=1.0, total_seconds=1.0, parameters=1,
        **known | changes,
    )  # fmt: skip


def test_test_metrics_are_not_believed():
    assert without_test(summary(), 10).metrics == {"val_loss": 0.5}


@pytest.mark.parametrize(
    ("best_step", "steps", "last_step", "believed"),
    [(8, 10, 10, 8), (10, 10, 10, 10), (0, 10, 10, 0), (11, 10, 20, None), (11, 20, 10, None), (None, 10, 10, None)],
)
def test_best_step_is_one_that_the_run_has_reached(best_step, steps, last_step, believed):
    reported = summary(best_step=best_step).model_copy(update={"steps": steps})
    assert without_test(reported, last_step).best_step == believed
