"""Diagnostics against their definitions in float64 numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ko
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
from tests.one_thread import one_thread  # noqa: F401 (a fixture, at work wherever it is imported)

Rows = NDArray[np.float64]

WEIGHTS_ALONE = ["weight_correlation", "effective_rank"]
QUANTITIES = [*WEIGHTS_ALONE, "temperature", "velocity_energy", "velocity_entropy", "lambda_max"]
LEAST_ENTROPY = math.log(1 / 8)  # everything in one bin


def cosines(rows: Rows) -> Rows:
    """One pair of rows at a time; a zero row has cosine 0 with every row, itself included."""
    return np.array(
        [
            [float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) if a.any() and b.any() else 0.0 for b in rows]
            for a in rows
        ]
    )


def reference_correlation(rows: Rows) -> float:
    n, c = len(rows), cosines(rows)
    return float(np.mean([abs(c[i, j]) for i in range(n) for j in range(n) if i != j]))


def reference_rank(rows: Rows) -> float:
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def reference_temperature(rows: Rows) -> float:
    mean = rows.mean(axis=0)
    return float(np.mean([np.mean((row - mean) ** 2) for row in rows]))


def reference_energy(rows: Rows) -> float:
    return float(np.mean([row @ row for row in rows]))


def reference_entropy(rows: Rows) -> float:
    """A loop over all components; each counts at the nearest multiple of 1/8, at most 8 from 0."""
    h = 1 / 8
    bins: dict[int, int] = {}
    scale = math.sqrt(reference_temperature(rows))
    for component in ((rows - rows.mean(axis=0)) / scale).flatten():
        place = max(-64, min(64, round(component / h)))
        bins[place] = bins.get(place, 0) + 1
    return -sum(n / rows.size * math.log(n / rows.size / h) for n in bins.values())


def reference_eigenvalue(w: Rows, g: Rows) -> float:
    return float(np.linalg.eigvalsh(cosines(w) * cosines(g))[-1])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def aligned(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Rows along one direction plus noise of a third of their length."""
    return normal(1, columns, seed=seed) + normal(rows, columns, seed=seed + 1) / 3


def trained(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A model with gradients."""
    model(inputs).square().sum().backward()
    return model


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))
    trained(model.double(), normal(7, 5))
    return model


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
        found = layer_weight_correlations([torch.ones(3), rows, torch.ones(1, 4)])
        assert found == pytest.approx({"1": math.sqrt(2) / 3})

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

    def test_wide_layers_are_computed_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = normal(77, 3)
        expected = reference_correlation(rows.numpy())
        monkeypatch.setattr(pairs, "BLOCK_BYTES", 10 * 77 * 8)
        assert weight_correlation([rows]) == pytest.approx(expected)

    def test_records_no_autograd_graph(self) -> None:
        p = nn.Parameter(torch.randn(3, 3))
        weight_correlation([p])
        assert p.grad is None
        assert torch.is_grad_enabled()


class TestWhereTheRowsAre:
    """Rows in another dimension, from a model, a KO or its parameter groups."""

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
        found = {name: values["weight_ih_l0"] for name, values in diagnose(model).layers.items()}
        assert list(diagnose(model).layers["temperature"]) == ["weight_ih_l0", "weight_hh_l0"]
        assert found == {
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
        """With float32 Gram matrices the first would be 2."""
        one = normal(256, 1, dtype=torch.float32) * normal(1, 256, seed=1, dtype=torch.float32)
        assert float(effective_rank(one)) == pytest.approx(1, abs=1e-3)
        assert float(effective_rank(3 * torch.eye(7))) == pytest.approx(7)

    def test_zero_weights_have_rank_0(self) -> None:
        assert float(effective_rank(torch.zeros(3, 4))) == 0

    def test_non_finite_rows_count_as_zero(self) -> None:
        rows = normal(6, 4)
        spoilt, zero = rows.clone(), rows.clone()
        spoilt[2, 1], spoilt[4, 0] = math.nan, math.inf
        zero[[2, 4]] = 0
        assert torch.equal(effective_rank(spoilt), effective_rank(zero))


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
        most_at_rest = normal(256, 100) * (torch.arange(256) < 16)[:, None]
        along_one_way = normal(256, 1) * normal(1, 100, seed=1)
        assert float(velocity_entropy(most_at_rest)) < -0.5
        assert float(velocity_entropy(along_one_way)) < MAXWELLIAN - 0.1

    @pytest.mark.parametrize("scale", [1e-9, 1e9])
    def test_entropy_does_not_depend_on_scale(self, scale: float) -> None:
        rows = normal(30, 20, dtype=torch.float32)
        assert float(velocity_entropy(scale * rows)) == pytest.approx(float(velocity_entropy(rows)), abs=1e-3)

    @pytest.mark.parametrize("rows", [torch.zeros(4, 3), torch.full((4, 3), 0.1), normal(1, 300).repeat(50, 1).float()])
    def test_equal_velocities_have_temperature_0(self, rows: Tensor) -> None:
        assert float(temperature(rows)) == pytest.approx(0, abs=1e-12)
        assert float(velocity_entropy(rows)) == pytest.approx(LEAST_ENTROPY)

    @pytest.mark.parametrize("of", [temperature, velocity_energy, velocity_entropy])
    def test_non_finite_rows_are_left_out(self, of: Any) -> None:
        rows = normal(8, 5)
        spoilt = rows.clone()
        spoilt[1, 2], spoilt[5, 0] = math.nan, -math.inf
        rest = rows[[0, 2, 3, 4, 6, 7]]
        assert float(of(spoilt)) == pytest.approx(float(of(rest)))
        assert float(of(torch.full((3, 2), math.nan))) == pytest.approx(float(of(torch.zeros(3, 2))))


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
        found = float(largest_eigenvalue(w, g))
        assert found == pytest.approx(expected, rel=3e-3)
        assert found <= expected * (1 + 1e-12)  # a lower bound
        monkeypatch.setattr(pairs, "BLOCK_BYTES", 8 * 2 * len(w))  # C is not formed; two columns at a time
        assert float(largest_eigenvalue(w, g)) == pytest.approx(found, rel=1e-9)

    def test_is_n_for_equal_rows_and_1_for_orthogonal_rows(self) -> None:
        assert float(largest_eigenvalue(torch.ones(9, 3), torch.ones(9, 3))) == pytest.approx(9)
        assert float(largest_eigenvalue(torch.eye(9), torch.ones(9, 9))) == pytest.approx(1)

    def test_rows_without_a_direction_are_left_out(self) -> None:
        w, g = aligned(8, 5), aligned(8, 5, seed=4)
        rest = [0, 3, 4, 6, 7]
        expected = float(largest_eigenvalue(w[rest], g[rest]))
        w[1, 2], g[2, 0], g[5] = math.nan, math.inf, 0
        assert float(largest_eigenvalue(w, g)) == pytest.approx(expected, rel=1e-3)
        assert float(largest_eigenvalue(w, torch.zeros(8, 5, dtype=w.dtype))) == 0

    def test_stops_after_the_maximum_number_of_iterations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairs, "MAX_ITERATIONS", 5)
        monkeypatch.setattr(pairs, "TOLERANCE", 0.0)
        w, g = normal(60, 50), normal(60, 50, seed=1)
        found = float(largest_eigenvalue(w, g))
        assert 0.5 * reference_eigenvalue(w.numpy(), g.numpy()) < found < reference_eigenvalue(w.numpy(), g.numpy())


@pytest.mark.parametrize(
    "of", [effective_rank, temperature, velocity_energy, velocity_entropy, lambda rows: largest_eigenvalue(rows, rows)]
)
class TestShapesAndPrecision:
    def test_batch_of_layers_equals_single_layers(self, of: Any) -> None:
        layers = torch.stack((normal(9, 4), aligned(9, 4), torch.zeros(9, 4, dtype=torch.float64)))
        assert of(layers).tolist() == pytest.approx([float(of(layer)) for layer in layers], rel=1e-3)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_computed_in_float32(self, of: Any, dtype: torch.dtype) -> None:
        rows = aligned(300, 40).to(dtype)
        assert float(of(rows)) == pytest.approx(float(of(rows.float())), rel=1e-6)


class TestDiagnose:
    def test_values_equal_those_of_the_functions(self) -> None:
        model = network()
        found, averages = diagnose(model).layers, diagnose(model).averages
        assert list(found) == list(averages) == QUANTITIES
        for name in ("0.weight", "3.weight"):  # the last one has one row, a norm has none
            p = model.get_parameter(name)
            assert p.grad is not None
            w, g = p.detach(), p.grad
            assert {quantity: values[name] for quantity, values in found.items()} == {
                "weight_correlation": pytest.approx(reference_correlation(w.numpy())),
                "effective_rank": pytest.approx(reference_rank(w.numpy())),
                "temperature": pytest.approx(reference_temperature(g.numpy())),
                "velocity_energy": pytest.approx(reference_energy(g.numpy())),
                "velocity_entropy": pytest.approx(reference_entropy(g.numpy())),
                "lambda_max": pytest.approx(reference_eigenvalue(w.numpy(), g.numpy()), rel=3e-3),
            }
        for quantity, values in found.items():
            assert list(values) == ["0.weight", "3.weight"]
            assert averages[quantity] == pytest.approx(np.mean(list(values.values())))
        assert averages["weight_correlation"] == pytest.approx(weight_correlation(model))

    @pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam, KO])
    def test_values_do_not_depend_on_the_optimizer(self, base: Any) -> None:
        model = network()
        expected = diagnose(model).layers
        found = diagnose(base(model.named_parameters(), lr=0.1)).layers
        assert {quantity: found[quantity] for quantity in expected} == expected
        assert set(found) - set(expected) == ({"gamma_lambda_max"} if base is KO else set())

    def test_gamma_is_that_of_the_group_in_this_step(self) -> None:
        model = network()
        groups = [
            {"params": [("0.weight", model[0].weight)], "gamma": 0.5},
            {"params": [("3.weight", model[3].weight)]},
        ]
        optimizer = KO(groups, lr=0.0, base="sgd", gamma=ko.Fade(0.2, 0.1, steps=2, shape="linear"))
        for gamma in (0.2, 0.15, 0.1):
            found = diagnose(model, optimizer).layers
            assert found["gamma_lambda_max"] == pytest.approx(
                {"0.weight": 0.5 * found["lambda_max"]["0.weight"], "3.weight": gamma * found["lambda_max"]["3.weight"]}
            )
            assert diagnose(optimizer).layers == found
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
        found = diagnose(KO([w], gamma=gamma, bounded=True)).averages
        assert found["gamma_lambda_max"] == pytest.approx(capped * found["lambda_max"])

    @pytest.mark.parametrize("collision", ["hard", "none"])
    def test_no_gamma_lambda_max_without_soft_collisions(self, collision: str) -> None:
        model = network()
        assert list(diagnose(model, KO(model.parameters(), collision=collision)).layers) == QUANTITIES

    def test_layer_without_gradient_has_weight_quantities_only(self) -> None:
        model = network()
        model[3].weight.grad = None
        found = diagnose(model, KO(model.parameters()))
        assert all(list(found.layers[name]) == ["0.weight", "3.weight"] for name in WEIGHTS_ALONE)
        assert list(found.layers["lambda_max"]) == list(found.layers["gamma_lambda_max"]) == ["0.weight"]
        model.zero_grad()
        assert list(diagnose(model).averages) == WEIGHTS_ALONE
        assert diagnose([]).averages == {}

    def test_all_values_are_finite_for_degenerate_rows(self) -> None:
        for value in (math.nan, math.inf, 0.0):
            p = nn.Parameter(torch.full((4, 3), value))
            p.grad = torch.full((4, 3), value)
            found = diagnose(KO([p], bounded=True)).averages
            assert found == pytest.approx(dict.fromkeys(found, 0) | {"velocity_entropy": LEAST_ENTROPY})

    def test_changes_no_weights_gradients_or_generators(self) -> None:
        model = network()
        optimizer = KO(model.parameters(), collision="hard", seed=1)
        before = [(p.clone(), p.grad.clone()) for p in model.parameters() if p.grad is not None]
        random = torch.get_rng_state()
        diagnose(model, optimizer)
        for (w, g), p in zip(before, model.parameters(), strict=True):
            assert p.grad is not None
            assert torch.equal(p, w)
            assert torch.equal(p.grad, g)
        assert torch.equal(torch.get_rng_state(), random)
        assert not optimizer.state
        assert torch.is_grad_enabled()
