from __future__ import annotations

from typing import Any

import pytest
import torch

from service.catalog import Constant, Cosine, DecayParams, Linear, Schedule, ScheduleParams, Step, StepParams
from workers.training.schedules import build, factor


@pytest.mark.parametrize(
    ("choice", "factors"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Constant(params=ScheduleParams(warmup_steps=2)), [0.5, 1, 1, 1]),
        (Cosine(), [1, 0.853553, 0.5, 0.146447]),
        (Cosine(params=DecayParams(final_fraction=0.5)), [1, 0.926777, 0.75, 0.573223]),
        (Linear(), [1, 0.75, 0.5, 0.25]),
        (Linear(params=DecayParams(warmup_steps=2, final_fraction=0.2)), [0.5, 1, 1, 0.6]),
        (Step(), [1, 1, 0.1, 0.01]),
        (Step(params=StepParams(milestones=(0.25,), factor=0.5)), [1, 0.5, 0.5, 0.5]),
        (Cosine(params=DecayParams(warmup_steps=8)), [0.125, 0.25, 0.375, 0.5]),
    ],
)
def test_factors_of_four_steps(choice: Schedule, factors: list[float]) -> None:
    assert [factor(choice, done, 4) for done in range(4)] == pytest.approx(factors, abs=1e-6)


def test_every_group_is_scaled() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups: list[dict[str, Any]] = [{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule = build(Linear(), optimizer, 4)
    assert schedule is not None
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 0.075])
