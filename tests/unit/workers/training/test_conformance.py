"""Each check of the conformance test passes for AdamW, and finds the fault that it is made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from workers.training.conformance import CHECKS, Candidate, check


class Faulty(SGD):
    """SGD whose faults are chosen by name."""

    fault = ""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1, momentum=0.9)
        self.calls = 0
        self.was_evaluated = False

    def train(self) -> None:
        pass

    def eval(self) -> None:
        self.was_evaluated = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        for group in self.param_groups:
            for p in group["params"]:
                self._change(p)
        return super().step(closure)

    def _change(self, p: nn.Parameter) -> None:
        match self.fault:
            case "infinite":
                p.fill_(torch.inf)
            case "ascends":
                if p.grad is not None:
                    p.grad.neg_()
            case "idle":
                p.grad = None
            case "stops after an evaluation":
                if self.was_evaluated:
                    p.grad = None
            case "counts outside of its state":
                p.mul_(1 - 0.01 * self.calls)
            case "draws":
                p.add_(1e-6 * torch.randn(()))
            case "needs gradients":
                if p.grad is not None:
                    p.mul_(1 - 1e-3)
                else:
                    p.add_(1)
            case "reads the first element":
                p.flatten()[0].item()
            case "needs float32":
                p.flatten()[0].numpy() if p.numel() else None
            case "ignores its learning rate":
                for group in self.param_groups:
                    group["lr"] = 0.1


FAULTS = {
    "construct": ("infinite", "fail"),
    "training": ("idle", "fail"),
    "quadratic": ("ascends", "warning"),
    "evaluation": ("stops after an evaluation", "warning"),
    "repeatability": ("differs", "fail"),
    "resume": ("counts outside of its state", "warning"),
    "random_state": ("draws", "warning"),
    "frozen": ("needs gradients", "warning"),
    "empty": ("reads the first element", "warning"),
    "half": ("needs float32", "warning"),
    "schedule": ("ignores its learning rate", "warning"),
}


def candidate(fault: str) -> Candidate:
    made = iter(range(1000))

    def build(model: nn.Module) -> Optimizer:
        kind: Callable[..., Optimizer] = type("Faulty", (Faulty,), {"fault": fault})
        optimizer = kind(model.parameters())
        if fault == "differs":
            optimizer.param_groups[0]["lr"] = 0.1 + 0.01 * next(made)
        return optimizer

    return Candidate(build, ("modes",))


def test_adamw_passes_every_check() -> None:
    results = check(Candidate(lambda model: AdamW(model.parameters())))
    assert [result.name for result in results] == list(CHECKS)
    assert {result.outcome for result in results} == {"pass"}, results


def test_sgd_without_faults_passes_every_check() -> None:
    assert {result.outcome for result in check(candidate(""))} == {"pass"}


@pytest.mark.parametrize("name", FAULTS)
def test_check_finds_its_fault(name: str) -> None:
    fault, outcome = FAULTS[name]
    results = {result.name: result for result in check(candidate(fault))}
    assert results[name].outcome == outcome
    assert results[name].text


def test_states_of_random_numbers_are_restored() -> None:
    before = torch.get_rng_state()
    check(candidate("draws"))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_made_is_reported_alone() -> None:
    (result,) = check(Candidate(lambda model: AdamW(model.parameters(), lr=-1)))
    assert (result.name, result.outcome) == ("construct", "fail")
    assert "Invalid learning rate: -1" in result.text
