"""Learning-rate schedules: factors over steps and seconds, warm-up and milestones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from service.specs.catalog.schedules import Constant, Cosine, DecayParams, Linear, ScheduleParams, Step, StepParams
from workers.training.progress import Progress
from workers.training.schedules import build, factor


def factors(choice: Any, progress: Progress, seconds: Sequence[float]) -> list[float]:
    """The factor of the first step, and those after steps that end at these seconds."""
    values = [factor(choice, progress)]
    for elapsed in seconds:
        progress.count_step(elapsed)
        values.append(factor(choice, progress))
    return values


@pytest.mark.parametrize(
    ("choice", "expected"),
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
class TestFactors:
    def test_over_four_steps(self, choice: Any, expected: list[float]) -> None:
        progress = Progress(4, total_steps=4, warmup_steps=choice.params.warmup_steps)
        assert factors(choice, progress, seconds=[7, 8, 9]) == pytest.approx(expected, abs=1e-6)

    def test_over_four_seconds_with_steps_of_one_second(self, choice: Any, expected: list[float]) -> None:
        progress = Progress(4, total_steps=None, warmup_steps=choice.params.warmup_steps)
        assert factors(choice, progress, seconds=[1, 2, 3]) == pytest.approx(expected, abs=1e-6)


def test_uneven_steps_follow_their_seconds() -> None:
    assert factors(Linear(), Progress(0.5, None), [0.05, 0.3, 0.45, 0.6]) == pytest.approx([1, 0.9, 0.4, 0.1, 0])
    halving = Step(params=StepParams(milestones=(0.25, 0.5), factor=0.5))
    assert factors(halving, Progress(0.5, None), [0.1, 0.125, 0.2, 0.4]) == [1, 1, 0.5, 0.5, 0.25]


def test_decays_over_seconds_after_warmup() -> None:
    linear = Linear(params=DecayParams(warmup_steps=2))
    assert factors(linear, Progress(10, None, 2), [5, 6, 8, 9]) == pytest.approx([0.5, 1, 1, 0.5, 0.25])


def test_warmup_can_exceed_budget_of_seconds() -> None:
    linear = Linear(params=DecayParams(warmup_steps=2, final_fraction=0.3))
    assert factors(linear, Progress(1, None, 2), [0.9, 1.1]) == pytest.approx([0.5, 1, 0.3])


def test_milestone_is_rounded_up_in_floating_point() -> None:
    """In floating point, 0.55 * 100 exceeds 55, so the milestone comes a step later, as always with engine 2."""
    progress = Progress(100, total_steps=100)
    values = factors(Step(params=StepParams(milestones=(0.55,), factor=0.5)), progress, [0.0] * 56)
    assert values == [1.0] * 56 + [0.5]


def test_scales_each_parameter_group() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups: list[dict[str, Any]] = [{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    progress = Progress(4, total_steps=4)
    schedule = build(Linear(), optimizer, progress)
    assert schedule is not None
    optimizer.step()
    progress.count_step(0.0)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 0.075])
