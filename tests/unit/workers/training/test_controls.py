"""The controls: their formulas against a few lines of torch, and their effect on a base optimizer."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ko import param_groups
from service.specs.catalog.models import MODELS
from service.specs.catalog.optimizer_params import STRENGTHS, ControlOptions
from service.specs.catalog.optimizers import OPTIMIZERS, Control
from service.specs.training import TrainSpec
from workers.training import controls, datasets, models, optimizers
from workers.training.run import Run

BASES: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
CONTROLS = get_args(ControlOptions.model_fields["control"].annotation)


def drawing(seed: int) -> controls.Draw:
    return lambda shape: torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def no_draw(shape: torch.Size) -> Tensor:
    raise AssertionError("this control draws no random numbers")


def test_catalog_and_module_have_same_controls() -> None:
    assert set(CONTROLS) == set(controls.CONTROLS)
    assert set(CONTROLS) - set(STRENGTHS) == {"centralization"}


class TestMathematics:
    def test_noise_has_norm_of_collision_and_random_direction(self) -> None:
        torch.manual_seed(0)
        w, g = torch.randn(2, 32, 16)
        unit_w, unit_g = (t / t.norm(dim=1, keepdim=True) for t in (w, g))
        change = -0.1 * ((unit_w @ unit_w.T) * (unit_g @ unit_g.T)) @ g
        added = controls.noise(w, g, 0.1, drawing(1))
        torch.testing.assert_close(added.norm(), change.norm(), rtol=1e-4, atol=0)
        assert abs(torch.cosine_similarity(added.flatten(), change.flatten(), dim=0)) < 0.2
        torch.testing.assert_close(added / added.norm(), (normal := drawing(1)(w.shape)) / normal.norm())

    def test_orthogonality_is_gradient_of_its_penalty(self) -> None:
        torch.manual_seed(0)
        w = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
        unit = w / w.norm(dim=1, keepdim=True)
        (0.3 * ((unit @ unit.T) ** 2).sum()).backward()  # the diagonal is always 1
        torch.testing.assert_close(controls.orthogonality(w.detach(), torch.zeros(7, 5), 0.3, no_draw), w.grad)

    def test_orthogonality_is_zero_for_orthogonal_and_zero_rows(self) -> None:
        w = torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.0]))
        assert not controls.orthogonality(w, w, 1.0, no_draw).any()

    def test_centralized_rows_have_mean_zero(self) -> None:
        g = torch.randn(7, 5, dtype=torch.float64)
        centralized = g + controls.centralization(g, g, 0.0, no_draw)
        torch.testing.assert_close(centralized, g - g.mean(1, keepdim=True))


# --- on a base optimizer ---------------------------------------------------------------------------------------------


def model_with_gradients(name: str = "mlp") -> nn.Module:
    choice = MODELS[name]()
    inputs = datasets.Inputs((20,), 7, 50) if choice.reads == "text" else datasets.Inputs((1, 8, 8), 10)
    model = models.build(choice, inputs, seed=0)
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=draw)
    return model


def control_on(model: nn.Module, *, seed: int = 0, **params: Any) -> Optimizer:
    choice = Control.model_validate({"name": "control", "params": params})
    return optimizers.build(choice, model, seed, total_steps=None)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


@pytest.mark.parametrize("base", BASES)
class TestBase:
    def test_receives_its_parameters(self, base: str) -> None:
        optimizer = control_on(model_with_gradients(), base=base, lr=0.3, weight_decay=0.2)
        assert type(optimizer) is BASES[base]
        assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.3, 0.2)}

    @pytest.mark.parametrize("control", STRENGTHS)
    def test_control_of_strength_zero_equals_base(self, base: str, control: str) -> None:
        controlled, alone = model_with_gradients(), model_with_gradients()
        control_on(controlled, base=base, control=control, strength=0.0).step()
        optimizers.build(OPTIMIZERS[base](), alone, 0, None).step()
        assert equal(weights(controlled), weights(alone))

    def test_steps_along_changed_gradients(self, base: str) -> None:
        controlled, by_hand = model_with_gradients(), model_with_gradients()
        control_on(controlled, base=base, control="centralization").step()
        for p in by_hand.parameters():
            if p.ndim > 1:
                p.grad -= p.grad.mean(1, keepdim=True)
        optimizers.build(OPTIMIZERS[base](), by_hand, 0, None).step()
        for ours, theirs in zip(weights(controlled), weights(by_hand), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("name", ["cnn", "textcnn", "lstm", "transformer"])
def test_changes_exactly_the_layers_that_collide(name: str, control: str) -> None:
    model = model_with_gradients(name)
    collide = {p for g in param_groups(model) if g.get("collision") != "none" for _, p in g["params"]}
    before = {p: p.grad.clone() for p in model.parameters()}
    control_on(model, control=control).step()
    assert {p for p, gradient in before.items() if not torch.equal(p.grad, gradient)} == collide
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_treats_gates_as_separate_layers() -> None:
    model = model_with_gradients("lstm")
    p = dict(model.named_parameters())["lstm.weight_hh_l0"]
    gradient = p.grad.clone()
    expected = [controls.orthogonality(gate, gate, 1.0, no_draw) for gate in p.detach().clone().chunk(4)]
    control_on(model, control="orthogonality", strength=1.0).step()
    torch.testing.assert_close(p.grad - gradient, torch.cat(expected))


def test_ignores_parameters_without_gradient() -> None:
    model = model_with_gradients()
    first, *_ = model.parameters()
    first.grad = None
    control_on(model, control="orthogonality").step()
    assert first.grad is None


class TestNoise:
    def gradients(self, seed: int = 0, steps: int = 1) -> list[Tensor]:
        """The noise that the last step, at a learning rate near 0, adds to the gradients of the matrices."""
        model = model_with_gradients()
        optimizer = control_on(model, seed=seed, lr=1e-30)
        for _ in range(steps):
            before = [p.grad.clone() for p in model.parameters()]
            optimizer.step()
            added = [p.grad - g for p, g in zip(model.parameters(), before, strict=True) if p.ndim > 1]
            for p, g in zip(model.parameters(), before, strict=True):
                p.grad = g
        return added

    def test_depends_on_seed_only(self) -> None:
        assert equal(self.gradients(), self.gradients())
        for ours, others in zip(self.gradients(seed=3), self.gradients(seed=4), strict=True):
            assert abs(torch.cosine_similarity(ours.flatten(), others.flatten(), dim=0)) < 0.1

    def test_differs_between_steps_and_layers(self) -> None:
        first, second = self.gradients(steps=1), self.gradients(steps=2)
        for ours, others in [*zip(first, second, strict=True), (first[0], first[1][: len(first[0]), :64])]:
            assert abs(torch.cosine_similarity(ours.flatten(), others.flatten(), dim=0)) < 0.1

    def test_is_normally_distributed(self) -> None:
        (_, added, _) = self.gradients()  # (256, 256)
        normal = (added / added.square().mean().sqrt()).flatten()
        assert abs(float(normal.mean())) < 0.02
        assert float(normal.pow(4).mean()) == pytest.approx(3, abs=0.15)

    def test_continues_from_state_dict(self) -> None:
        model = model_with_gradients()
        optimizer = control_on(model, seed=5)
        optimizer.step()
        optimizer_state, model_state = deepcopy((optimizer.state_dict(), model.state_dict()))
        gradients = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        resumed = model_with_gradients()
        resumed.load_state_dict(model_state)
        for p, gradient in zip(resumed.parameters(), gradients, strict=True):
            p.grad = gradient
        other = control_on(resumed, seed=5)
        other.load_state_dict(optimizer_state)
        other.step()
        assert equal(weights(model), weights(resumed))

    def test_does_not_count_steps_skipped_by_scaler(self) -> None:
        model = model_with_gradients()
        optimizer, scaler = control_on(model), torch.amp.GradScaler("cpu")
        scaler.scale(torch.ones(()))
        next(model.parameters()).grad[0, 0] = float("inf")
        before = weights(model)
        scaler.step(optimizer)
        scaler.update()
        assert equal(weights(model), before)
        assert optimizer.param_groups[0]["control_step"] == 0


@pytest.mark.parametrize("schedule", ["cosine", {"name": "step", "params": {"milestones": [0.5]}}])
@pytest.mark.parametrize("control", CONTROLS)
def test_run_follows_schedule_and_is_reproducible(spec: Callable[..., TrainSpec], control: str, schedule: Any) -> None:
    def train(**fields: Any) -> tuple[list[Tensor], list[float]]:
        rates: list[float] = []
        optimizer = {"name": "control", "params": {"control": control, "base": "sgd"}}
        run = Run(
            spec(optimizer=optimizer, schedule=schedule, budget={"steps": 4}, log_every_steps=1, **fields),
            lambda step, metrics: rates.extend([metrics["lr"]] if "lr" in metrics else []),
            Path("nowhere"),
        )
        run.execute(lambda: None)
        return weights(run.model), rates

    (first, rates), (second, _), (other, _) = train(), train(), train(seed=1)
    assert equal(first, second)
    assert not equal(first, other)
    assert rates[0] == 0.1
    assert rates[-1] < 0.05
