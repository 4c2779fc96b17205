"""`diagnose`: layers and averages of a model or an optimizer, which it leaves unchanged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ko
from ko import KO, diagnose, weight_correlation
from ko.diagnostics import pairs
from tests.unit.ko.diagnostics_reference import (
    MIN_ENTROPY,
    aligned,
    cosines,
    normal,
    reference_correlation,
    reference_eigenvalue,
    reference_energy,
    reference_entropy,
    reference_rank,
    reference_temperature,
)

WEIGHTS_ONLY = ["weight_correlation", "effective_rank"]
QUANTITIES = [*WEIGHTS_ONLY, "temperature", "velocity_energy", "velocity_entropy", "lambda_max"]


def network() -> nn.Sequential:
    """A model with gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))
    model.double()(normal(7, 5)).square().sum().backward()
    return model


class TestDiagnose:
    def test_values_equal_those_of_the_functions(self) -> None:
        model = network()
        layers, averages = diagnose(model).layers, diagnose(model).averages
        assert list(layers) == list(averages) == QUANTITIES
        for name in ("0.weight", "3.weight"):  # the last layer has one row, and a norm has no rows
            p = model.get_parameter(name)
            assert p.grad is not None
            w, g = p.detach(), p.grad
            assert {quantity: values[name] for quantity, values in layers.items()} == {
                "weight_correlation": pytest.approx(reference_correlation(w.numpy())),
                "effective_rank": pytest.approx(reference_rank(w.numpy())),
                "temperature": pytest.approx(reference_temperature(g.numpy())),
                "velocity_energy": pytest.approx(reference_energy(g.numpy())),
                "velocity_entropy": pytest.approx(reference_entropy(g.numpy())),
                "lambda_max": pytest.approx(reference_eigenvalue(w.numpy(), g.numpy()), rel=3e-3),
            }
        for quantity, values in layers.items():
            assert list(values) == ["0.weight", "3.weight"]
            assert averages[quantity] == pytest.approx(np.mean(list(values.values())))
        assert averages["weight_correlation"] == pytest.approx(weight_correlation(model))

    @pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam, KO])
    def test_values_do_not_depend_on_the_optimizer(self, base: Any) -> None:
        model = network()
        expected = diagnose(model).layers
        layers = diagnose(base(model.named_parameters(), lr=0.1)).layers
        assert {quantity: layers[quantity] for quantity in expected} == expected
        assert set(layers) - set(expected) == ({"gamma_lambda_max"} if base is KO else set())

    def test_gamma_is_that_of_the_group_in_this_step(self) -> None:
        model = network()
        groups = [
            {"params": [("0.weight", model[0].weight)], "gamma": 0.5},
            {"params": [("3.weight", model[3].weight)]},
        ]
        optimizer = KO(groups, lr=0.0, base="sgd", gamma=ko.Fade(0.2, 0.1, steps=2, shape="linear"))
        for gamma in (0.2, 0.15, 0.1):
            layers = diagnose(model, optimizer).layers
            assert layers["gamma_lambda_max"] == pytest.approx(
                {
                    "0.weight": 0.5 * layers["lambda_max"]["0.weight"],
                    "3.weight": gamma * layers["lambda_max"]["3.weight"],
                }
            )
            assert diagnose(optimizer).layers == layers
            optimizer.step()

    @pytest.mark.parametrize("blocks", [False, True])
    @pytest.mark.parametrize("gamma", [1e-3, 10.0, torch.tensor(10.0)])
    def test_bounded_form_uses_the_capped_gamma(
        self, gamma: float | Tensor, blocks: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        w = nn.Parameter(aligned(20, 6))
        w.grad = aligned(20, 6, seed=3)
        c = cosines(w.detach().numpy()) * cosines(w.grad.numpy())
        capped = min(float(gamma), 0.95 / np.abs(c).sum(axis=1).max())
        if blocks:
            monkeypatch.setattr(pairs, "BLOCK_BYTES", 3 * 20 * 8)
        averages = diagnose(KO([w], gamma=gamma, bounded=True)).averages
        assert averages["gamma_lambda_max"] == pytest.approx(capped * averages["lambda_max"])

    @pytest.mark.parametrize("collision", ["hard", "none"])
    def test_no_gamma_lambda_max_without_soft_collisions(self, collision: str) -> None:
        model = network()
        assert list(diagnose(model, KO(model.parameters(), collision=collision)).layers) == QUANTITIES

    def test_layer_without_gradient_has_weight_quantities_only(self) -> None:
        model = network()
        model[3].weight.grad = None
        diagnosis = diagnose(model, KO(model.parameters()))
        assert all(list(diagnosis.layers[name]) == ["0.weight", "3.weight"] for name in WEIGHTS_ONLY)
        assert list(diagnosis.layers["lambda_max"]) == list(diagnosis.layers["gamma_lambda_max"]) == ["0.weight"]
        model.zero_grad()
        assert list(diagnose(model).averages) == WEIGHTS_ONLY
        assert diagnose([]).averages == {}

    def test_all_values_are_finite_for_degenerate_rows(self) -> None:
        for value in (math.nan, math.inf, 0.0):
            p = nn.Parameter(torch.full((4, 3), value))
            p.grad = torch.full((4, 3), value)
            averages = diagnose(KO([p], bounded=True)).averages
            assert averages == pytest.approx(dict.fromkeys(averages, 0) | {"velocity_entropy": MIN_ENTROPY})

    def test_changes_no_weights_gradients_or_generators(self) -> None:
        model = network()
        optimizer = KO(model.parameters(), collision="hard", seed=1)
        before = [(p.clone(), p.grad.clone()) for p in model.parameters() if p.grad is not None]
        rng_state = torch.get_rng_state()
        diagnose(model, optimizer)
        for (w, g), p in zip(before, model.parameters(), strict=True):
            assert p.grad is not None
            assert torch.equal(p, w)
            assert torch.equal(p.grad, g)
        assert torch.equal(torch.get_rng_state(), rng_state)
        assert not optimizer.state
        assert torch.is_grad_enabled()
