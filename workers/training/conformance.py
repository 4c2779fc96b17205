"""Conformance test of optimizers: whether one trains, resumes bit for bit and treats unusual parameters well.

Each check is a sentence about what was seen. A failed check says why an optimizer cannot be used, or what to expect of
it; measurements compare it with AdamW.
"""

from __future__ import annotations

import io
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from service.specs.catalog.declaration import Need
from workers.training import memory
from workers.training.stepping import Stepper

Outcome = Literal["pass", "warning", "fail"]
Build = Callable[[nn.Module], Optimizer]
"""Constructs the optimizer of a model, with its default parameters."""

STEPS = 5
"""Steps of the bitwise checks."""
TRAINING_STEPS = 60
"""Steps within which the losses have to fall."""
TIMED_STEPS = 30


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with a sentence about it."""

    name: str
    outcome: Outcome
    text: str


class Failed(Exception):
    """A check failed; the message says why."""

    def __init__(self, text: str, outcome: Outcome = "fail") -> None:
        super().__init__(text)
        self.outcome = outcome


@dataclass(frozen=True)
class Candidate:
    """The optimizer to check: how it is constructed, and what it needs."""

    build: Build
    needs: Sequence[Need] = ()

    def stepper(self, model: nn.Module) -> Stepper:
        """A stepper of a new optimizer of a model, ready to train."""
        stepper = Stepper(self.build(model), [p for p in model.parameters() if p.requires_grad], self.needs)
        stepper.start_training()
        return stepper


def check(candidate: Candidate) -> list[Check]:
    """Run all checks in order; only the first one if the optimizer cannot be constructed."""
    results: list[Check] = []
    for name, function in CHECKS.items():
        results.append(run(name, function, candidate))
        if name == "construct" and results[0].outcome == "fail":
            break
    return results


def run(name: str, function: Callable[[Candidate], str], candidate: Candidate) -> Check:
    """Run one check. Any exception of the optimizer fails it."""
    try:
        with _undisturbed():
            return Check(name, "pass", function(candidate))
    except Failed as failure:
        return Check(name, failure.outcome, str(failure))
    except Exception as error:  # of the optimizer
        return Check(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0])


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore the global random states afterwards, and hide warnings."""
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


# --- what the optimizers train -------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    """A small network whose weights are the same at each call."""
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def _classification(model: nn.Module, step: int) -> Tensor:
    """Cross-entropy of a batch of 32 records, whose class is the largest of their first four numbers."""
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(step % 8))
    return nn.functional.cross_entropy(model(x), x[:, :4].argmax(dim=1))


class _Quadratic(nn.Module):
    """Twelve weights in a matrix, at a distance of about 3.5 from the minimum."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3, bias=False)
        self.head = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.linspace(-1.5, 1.5, 12).view(3, 4))
            self.head.weight.fill_(0.5)

    def forward(self) -> Tensor:
        squares = (self.hidden.weight - 0.2).square().sum() + (self.head.weight - 0.1).square().sum()
        return squares / 2


def _advance(
    stepper: Stepper, model: nn.Module, steps: Iterable[int], loss: Callable[[nn.Module, int], Tensor] = _classification
) -> list[float]:
    """The losses before each of the steps. Random numbers depend on the step alone."""
    losses = []
    for step in steps:
        torch.default_generator.manual_seed(1000 + step)
        random.seed(step)
        np.random.seed(step)
        value = loss(model, step)
        losses.append(float(value.detach()))
        stepper.backward(value)
        stepper.step(value, lambda step=step: loss(model, step))  # type: ignore[misc]
    return losses


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().float() for p in model.parameters()])


def _has_equal_bits(a: Tensor, b: Tensor) -> bool:
    """Whether float32 tensors are the same, NaN included."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


# --- checks ----------------------------------------------------------------------------------------------------------


def construct(candidate: Candidate) -> str:
    """The optimizer can be constructed with its defaults, and takes a step."""
    model = network()
    _advance(candidate.stepper(model), model, [0])
    if not _weights(model).isfinite().all():
        raise Failed("the first step leads to weights that are not finite")
    return "can be constructed with its defaults, and takes a step"


def takes_a_step(candidate: Candidate) -> str:
    """The optimizer can be constructed, and takes a step, whatever the weights are afterwards."""
    model = network()
    _advance(candidate.stepper(model), model, [0])
    return "takes a step"


def quadratic(candidate: Candidate) -> str:
    """Steps lower a quadratic function."""
    model = _Quadratic()
    try:
        losses = _advance(candidate.stepper(model), model, range(TRAINING_STEPS), lambda model, _: model())
    except Exception as error:
        raise Failed(f"fails on a quadratic function: {type(error).__name__}", "warning") from error
    return _fallen(losses[0], losses[-1], "a quadratic function")


def training(candidate: Candidate) -> str:
    """Steps lower the loss of a network."""
    model = network()
    stepper = candidate.stepper(model)
    before = _weights(model)
    losses = _advance(stepper, model, range(TRAINING_STEPS))
    if torch.equal(_weights(model), before):
        raise Failed(f"{TRAINING_STEPS} steps do not change any weight")
    return _fallen(sum(losses[:8]) / 8, sum(losses[-8:]) / 8, "the loss of a network")


def _fallen(first: float, last: float, what: str) -> str:
    if last < first:
        return f"{TRAINING_STEPS} steps lower {what} ({first:.4g} to {last:.4g})"
    raise Failed(f"{TRAINING_STEPS} steps do not lower {what} ({first:.4g} to {last:.4g})", "warning")


def evaluation(candidate: Candidate) -> str:
    """The weights to evaluate are finite, and training continues afterwards with those before."""
    model = network()
    stepper = candidate.stepper(model)
    _advance(stepper, model, range(STEPS))
    before = _weights(model)
    with stepper.evaluation_mode():
        if not _weights(model).isfinite().all():
            raise Failed("the weights to evaluate are not finite")
    _advance(stepper, model, [STEPS])
    if _has_equal_bits(_weights(model), before):
        raise Failed("does not train after an evaluation", "warning")
    return "trains, is evaluated and trains again"


def repeatability(candidate: Candidate) -> str:
    """Two equal runs are bitwise identical."""
    ends = []
    for _ in range(2):
        model = network()
        _advance(candidate.stepper(model), model, range(STEPS))
        ends.append(_weights(model))
    if not _has_equal_bits(*ends):
        raise Failed("two equal runs give different weights")
    return "two equal runs are bitwise identical"


def resume(candidate: Candidate) -> str:
    """A run that continues from its saved state is bitwise identical to one that was not interrupted."""
    model = network()
    stepper = candidate.stepper(model)
    _advance(stepper, model, range(STEPS))
    file = io.BytesIO()
    torch.save((model.state_dict(), stepper.optimizer.state_dict()), file)
    _advance(stepper, model, range(STEPS, 2 * STEPS))
    file.seek(0)
    try:
        weights, state = torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        raise Failed(
            "its state cannot be loaded: it holds objects other than numbers and tensors", "warning"
        ) from error
    other = network()
    resumed = candidate.stepper(other)
    other.load_state_dict(weights)
    resumed.optimizer.load_state_dict(state)
    _advance(resumed, other, range(STEPS, 2 * STEPS))
    if not _has_equal_bits(_weights(other), _weights(model)):
        raise Failed("a run that continues from its saved state ends with other weights", "warning")
    return "a run that continues from its saved state is bitwise identical"


def random_state(candidate: Candidate) -> str:
    """The optimizer draws no numbers from the global generators."""
    model = network()
    stepper = candidate.stepper(model)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    for step in range(2):
        loss = _classification(model, step)
        stepper.backward(loss)
        stepper.step(loss, lambda step=step: _classification(model, step))  # type: ignore[misc]
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    names = ("torch's", "Python's", "numpy's")
    changed = [
        name
        for name, old, new in zip(names, before, after, strict=True)
        if not (torch.equal(old, new) if isinstance(old, Tensor) and isinstance(new, Tensor) else old == new)
    ]
    if changed:
        raise Failed(f"draws numbers from {' and '.join(changed)} global generator", "warning")
    return "draws no numbers from global generators"


def frozen(candidate: Candidate) -> str:
    """Parameters that are frozen or have no gradient do not change."""
    model = network()
    weight = next(model.parameters()).requires_grad_(False)
    unused = nn.Parameter(torch.ones(3, 3))
    model.register_parameter("unused", unused)
    before = weight.detach().clone()
    _advance(candidate.stepper(model), model, range(STEPS))
    if not _weights(model).isfinite().all():
        raise Failed(f"weights become infinite or NaN within {STEPS} steps", "warning")
    if not torch.equal(weight, before):
        raise Failed("changes a frozen parameter", "warning")
    if not torch.equal(unused.detach(), torch.ones(3, 3)):
        raise Failed("changes a parameter without a gradient", "warning")
    return "leaves frozen parameters and parameters without a gradient unchanged"


def empty(candidate: Candidate) -> str:
    """Empty parameters are accepted."""
    model = network()
    no_elements = nn.Parameter(torch.empty(0, 4))
    model.register_parameter("no_elements", no_elements)

    def loss(model: nn.Module, step: int) -> Tensor:
        return _classification(model, step) + no_elements.sum()

    try:
        _advance(candidate.stepper(model), model, range(2), loss)
    except Exception as error:
        raise Failed(f"fails with an empty parameter: {type(error).__name__}", "warning") from error
    return "accepts empty parameters"


def half(candidate: Candidate) -> str:
    """Parameters in bfloat16 stay in bfloat16 and finite."""
    model = network().to(torch.bfloat16)

    def loss(model: nn.Module, step: int) -> Tensor:
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)
        return nn.functional.cross_entropy(model(x).float(), x[:, :4].argmax(dim=1))

    try:
        _advance(candidate.stepper(model), model, range(STEPS), loss)
    except Exception as error:
        raise Failed(f"fails with weights in bfloat16: {type(error).__name__}", "warning") from error
    if not _weights(model).isfinite().all():
        raise Failed("weights in bfloat16 become infinite or NaN", "warning")
    return "trains weights in bfloat16"


def _power(factor: float, step: int) -> float:
    return float(factor**step)


def schedule(candidate: Candidate) -> str:
    """A scheduler changes the learning rate that the steps use."""
    ends = []
    for factor in (1.0, 0.5):
        model = network()
        stepper = candidate.stepper(model)
        try:
            scheduler = LambdaLR(stepper.optimizer, partial(_power, factor))
        except KeyError:
            raise Failed("has no learning rate that a scheduler could change", "warning") from None
        for step in range(2 * STEPS):
            _advance(stepper, model, [step])
            scheduler.step()
        ends.append(_weights(model))
    if _has_equal_bits(*ends):
        raise Failed("schedules of the learning rate have no effect within ten steps", "warning")
    return "follows schedules of the learning rate"


def cost(candidate: Candidate) -> str:
    """Time of a step and size of the state, compared with AdamW."""
    seconds, size = _cost(candidate)
    usual_seconds, usual_size = _cost(Candidate(lambda model: AdamW(model.parameters())))
    return (
        f"a step takes {seconds / usual_seconds:.1f} times as long as AdamW's, "
        f"the state {size / usual_size:.1f} times as many bytes"
    )


def _cost(candidate: Candidate) -> tuple[float, int]:
    """Median seconds of a step, and bytes of the state, on a network with layers of 256."""
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    stepper = candidate.stepper(model)
    x = torch.randn(8, 64)

    def loss() -> Tensor:
        value: Tensor = model(x).square().mean()
        return value

    seconds = []
    for _ in range(TIMED_STEPS):
        value = loss()
        stepper.backward(value)
        started = time.perf_counter()
        stepper.step(value, loss)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[TIMED_STEPS // 2], memory.of_state(stepper.optimizer)


CHECKS: dict[str, Callable[[Candidate], str]] = {
    "construct": construct,
    "training": training,
    "quadratic": quadratic,
    "evaluation": evaluation,
    "repeatability": repeatability,
    "resume": resume,
    "random_state": random_state,
    "frozen": frozen,
    "empty": empty,
    "half": half,
    "schedule": schedule,
    "cost": cost,
}
