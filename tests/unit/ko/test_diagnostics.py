"""Quantities of the diagnostics agree with float64 numpy references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ko import (
    KO,
    diagnose,
    effective_rank,
    largest_eigenvalue,
    layer_weight_correlations,
    param_groups,
    temperature,
    velocity_energy,
    velocity_entropy,
    weight_correlation,
)
from ko.diagnostics import MAXWELLIAN, pairs
from tests.unit.ko.diagnostics_reference import (
    MIN_ENTROPY,
    aligned,
    normal,
    reference_correlation,
    reference_eigenvalue,
    reference_energy,
    reference_entropy,
    reference_rank,
    reference_temperature,
)


class TestWeightCorrelation:
    def test_layers_equal_the_reference_and_are_averaged(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 6), nn.Linear(6, 1)).double()
        with torch.no_grad():
            model[2].weight[3] = 0  # type: ignore[index]
        expected = {
            "0.weight": reference_correlation(model[0].weight.detach().flatten(1).numpy()),
            "2.weight": reference_correlation(model[2].weight.detach().numpy()),
        }
        assert layer_weight_correlations(model) == pytest.approx(expected)
        assert weight_correlation(model) == pytest.approx(np.mean(list(expected.values())))

    def test_accepts_tensors_instead_of_a_model(self) -> None:
        rows = torch.tensor([[1.0, 0], [1, 1], [0, 2]])
        correlations = layer_weight_correlations([torch.ones(3), rows, torch.ones(1, 4)])
        assert correlations == pytest.approx({"1": math.sqrt(2) / 3})

    def test_condensed_and_orthogonal_rows(self) -> None:
        direction = normal(1, 9)
        assert weight_correlation([direction * torch.tensor([[1.0], [-2], [0.5]])]) == pytest.approx(1)
        assert weight_correlation([torch.eye(4)]) == pytest.approx(0, abs=1e-6)

    def test_embeddings_are_not_layers(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(50, 4), nn.EmbeddingBag(50, 4), nn.Linear(4, 3))
        assert list(layer_weight_correlations(model)) == ["2.weight"]

    def test_nan_without_layers(self) -> None:
        assert math.isnan(weight_correlation(nn.LayerNorm(4)))
        assert layer_weight_correlations([]) == {}

    def test_computes_wide_layers_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = normal(77, 3)
        expected = reference_correlation(rows.numpy())
        monkeypatch.setattr(pairs, "BLOCK_BYTES", 10 * 77 * 8)
        assert weight_correlation([rows]) == pytest.approx(expected)

    def test_records_no_autograd_graph(self) -> None:
        p = nn.Parameter(torch.randn(3, 3))
        weight_correlation([p])
        assert p.grad is None
        assert torch.is_grad_enabled()


class TestRowLayouts:
    """Layers whose rows are not in dimension 0, from a model, a KO or its parameter groups."""

    def test_transposed_convolutions_have_rows_in_dimension_1(self) -> None:
        torch.manual_seed(0)
        model = nn.ConvTranspose2d(3, 4, 2).double()
        rows = model.weight.detach().transpose(0, 1).flatten(1)  # (4 output channels, 3 * 2 * 2)
        expected = {"weight": pytest.approx(reference_correlation(rows.numpy()))}
        groups = param_groups(model)
        for source in (model, groups, KO(groups), KO(groups, base="sgd").param_groups):
            assert layer_weight_correlations(source) == expected
        assert layer_weight_correlations([model.weight])["0"] != pytest.approx(reference_correlation(rows.numpy()))

    def test_gates_are_averaged_and_lambda_max_is_the_maximum(self) -> None:
        torch.manual_seed(0)
        model = nn.LSTM(3, 5).double()
        outputs, _ = model(normal(6, 2, 3))
        outputs.square().sum().backward()
        w, g = model.weight_ih_l0.detach(), model.weight_ih_l0.grad
        assert g is not None
        gates = [(a.numpy(), b.numpy()) for a, b in zip(w.split(5), g.split(5), strict=True)]
        layers = {name: values["weight_ih_l0"] for name, values in diagnose(model).layers.items()}
        assert list(diagnose(model).layers["temperature"]) == ["weight_ih_l0", "weight_hh_l0"]
        assert layers == {
            "weight_correlation": pytest.approx(np.mean([reference_correlation(w) for w, _ in gates])),
            "effective_rank": pytest.approx(np.mean([reference_rank(w) for w, _ in gates])),
            "temperature": pytest.approx(np.mean([reference_temperature(g) for _, g in gates])),
            "velocity_energy": pytest.approx(np.mean([reference_energy(g) for _, g in gates])),
            "velocity_entropy": pytest.approx(np.mean([reference_entropy(g) for _, g in gates])),
            "lambda_max": pytest.approx(max(reference_eigenvalue(*gate) for gate in gates), rel=3e-3),
        }

    def test_groups_without_collisions_are_not_layers(self) -> None:
        words, rows = nn.Parameter(normal(9, 4)), nn.Parameter(normal(5, 4))
        optimizer = KO([{"params": [("words", words)], "collision": "none"}, {"params": [("head", rows)]}])
        assert list(layer_weight_correlations(optimizer)) == ["head"]

    def test_optimizer_without_collisions_has_layers(self) -> None:
        rows = [nn.Parameter(normal(5, 4)), nn.Parameter(normal(3, 4))]
        assert list(layer_weight_correlations(KO(rows, collision="none"))) == ["0", "1"]
        assert list(layer_weight_correlations(torch.optim.SGD(rows))) == ["0", "1"]

    def test_tensors_without_rows_of_real_numbers_are_not_layers(self) -> None:
        tensors = [torch.ones(4), torch.ones(1, 4), torch.ones(0, 4), torch.ones(3, 2, dtype=torch.long)]
        tensors += [torch.ones(3, 2, dtype=torch.complex64), torch.eye(3).to_sparse(), torch.eye(3)]
        assert list(layer_weight_correlations(tensors)) == ["6"]


class TestEffectiveRank:
    @pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 4), (3, 1)])
    def test_equals_the_reference(self, shape: tuple[int, int]) -> None:
        rows = normal(*shape)
        assert float(effective_rank(rows)) == pytest.approx(reference_rank(rows.numpy()))
        assert float(effective_rank(rows.float())) == pytest.approx(reference_rank(rows.float().double().numpy()))

    def test_parallel_rows_have_rank_1_and_orthogonal_rows_full_rank(self) -> None:
        """Float32 Gram matrices would give rank 2 for the parallel rows."""
        parallel = normal(256, 1, dtype=torch.float32) * normal(1, 256, seed=1, dtype=torch.float32)
        assert float(effective_rank(parallel)) == pytest.approx(1, abs=1e-3)
        assert float(effective_rank(3 * torch.eye(7))) == pytest.approx(7)

    def test_zero_weights_have_rank_0(self) -> None:
        assert float(effective_rank(torch.zeros(3, 4))) == 0

    def test_non_finite_rows_count_as_zero(self) -> None:
        rows = normal(6, 4)
        non_finite, zero = rows.clone(), rows.clone()
        non_finite[2, 1], non_finite[4, 0] = math.nan, math.inf
        zero[[2, 4]] = 0
        assert torch.equal(effective_rank(non_finite), effective_rank(zero))


class TestVelocities:
    @pytest.mark.parametrize("rows", [normal(40, 9), aligned(8, 30), normal(6, 5) * normal(6, 1, seed=2).exp()])
    def test_equal_the_reference(self, rows: Tensor) -> None:
        assert float(temperature(rows)) == pytest.approx(reference_temperature(rows.numpy()))
        assert float(velocity_energy(rows)) == pytest.approx(reference_energy(rows.numpy()))
        assert float(velocity_entropy(rows)) == pytest.approx(reference_entropy(rows.numpy()))

    def test_energy_is_temperature_plus_squared_mean_velocity(self) -> None:
        rows = aligned(50, 7)
        assert float(velocity_energy(rows)) == pytest.approx(float(7 * temperature(rows) + rows.mean(0).square().sum()))

    def test_maxwellian_has_the_maximal_entropy(self) -> None:
        gas = normal(2000, 100)
        assert float(velocity_entropy(gas)) == pytest.approx(MAXWELLIAN, abs=2e-3)
        uniform = torch.rand(2000, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert float(velocity_entropy(uniform)) == pytest.approx(math.log(math.sqrt(12)), abs=5e-2)

    def test_condensed_velocities_have_a_lower_entropy(self) -> None:
        mostly_zero = normal(256, 100) * (torch.arange(256) < 16)[:, None]
        parallel = normal(256, 1) * normal(1, 100, seed=1)
        assert float(velocity_entropy(mostly_zero)) < -0.5
        assert float(velocity_entropy(parallel)) < MAXWELLIAN - 0.1

    @pytest.mark.parametrize("scale", [1e-9, 1e9])
    def test_entropy_does_not_depend_on_scale(self, scale: float) -> None:
        rows = normal(30, 20, dtype=torch.float32)
        assert float(velocity_entropy(scale * rows)) == pytest.approx(float(velocity_entropy(rows)), abs=1e-3)

    @pytest.mark.parametrize("rows", [torch.zeros(4, 3), torch.full((4, 3), 0.1), normal(1, 300).repeat(50, 1).float()])
    def test_equal_velocities_have_temperature_0(self, rows: Tensor) -> None:
        assert float(temperature(rows)) == pytest.approx(0, abs=1e-12)
        assert float(velocity_entropy(rows)) == pytest.approx(MIN_ENTROPY)

    @pytest.mark.parametrize("quantity", [temperature, velocity_energy, velocity_entropy])
    def test_ignore_non_finite_rows(self, quantity: Any) -> None:
        rows = normal(8, 5)
        non_finite = rows.clone()
        non_finite[1, 2], non_finite[5, 0] = math.nan, -math.inf
        finite = rows[[0, 2, 3, 4, 6, 7]]
        assert float(quantity(non_finite)) == pytest.approx(float(quantity(finite)))
        assert float(quantity(torch.full((3, 2), math.nan))) == pytest.approx(float(quantity(torch.zeros(3, 2))))


class TestLargestEigenvalue:
    @pytest.mark.parametrize(
        ("w", "g"),
        [
            (normal(12, 7), normal(12, 7, seed=3)),
            (aligned(20, 6), aligned(20, 6, seed=5)),
            (aligned(20, 6) * normal(20, 1, seed=9).sign(), aligned(20, 6, seed=5)),  # no vector of one sign
            (normal(5, 1), normal(5, 1, seed=1)),
        ],
    )
    def test_equals_the_reference(self, w: Tensor, g: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = reference_eigenvalue(w.numpy(), g.numpy())
        eigenvalue = float(largest_eigenvalue(w, g))
        assert eigenvalue == pytest.approx(expected, rel=3e-3)
        assert eigenvalue <= expected * (1 + 1e-12)  # a lower bound
        monkeypatch.setattr(pairs, "BLOCK_BYTES", 8 * 2 * len(w))  # C is not formed; two columns at a time
        assert float(largest_eigenvalue(w, g)) == pytest.approx(eigenvalue, rel=1e-9)

    def test_is_n_for_equal_rows_and_1_for_orthogonal_rows(self) -> None:
        assert float(largest_eigenvalue(torch.ones(9, 3), torch.ones(9, 3))) == pytest.approx(9)
        assert float(largest_eigenvalue(torch.eye(9), torch.ones(9, 9))) == pytest.approx(1)

    def test_ignores_rows_without_a_direction(self) -> None:
        w, g = aligned(8, 5), aligned(8, 5, seed=4)
        finite = [0, 3, 4, 6, 7]
        expected = float(largest_eigenvalue(w[finite], g[finite]))
        w[1, 2], g[2, 0], g[5] = math.nan, math.inf, 0
        assert float(largest_eigenvalue(w, g)) == pytest.approx(expected, rel=1e-3)
        assert float(largest_eigenvalue(w, torch.zeros(8, 5, dtype=w.dtype))) == 0

    def test_stops_after_the_maximum_number_of_iterations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairs, "MAX_ITERATIONS", 5)
        monkeypatch.setattr(pairs, "TOLERANCE", 0.0)
        w, g = normal(60, 50), normal(60, 50, seed=1)
        eigenvalue = float(largest_eigenvalue(w, g))
        assert (
            0.5 * reference_eigenvalue(w.numpy(), g.numpy()) < eigenvalue < reference_eigenvalue(w.numpy(), g.numpy())
        )


@pytest.mark.parametrize(
    "quantity",
    [effective_rank, temperature, velocity_energy, velocity_entropy, lambda rows: largest_eigenvalue(rows, rows)],
)
class TestShapesAndPrecision:
    def test_batch_of_layers_equals_single_layers(self, quantity: Any) -> None:
        layers = torch.stack((normal(9, 4), aligned(9, 4), torch.zeros(9, 4, dtype=torch.float64)))
        assert quantity(layers).tolist() == pytest.approx([float(quantity(layer)) for layer in layers], rel=1e-3)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_computed_in_float32(self, quantity: Any, dtype: torch.dtype) -> None:
        rows = aligned(300, 40).to(dtype)
        assert float(quantity(rows)) == pytest.approx(float(quantity(rows.float())), rel=1e-6)
