import math

import numpy as np
import pytest
import torch
from torch import nn

from ko import layer_weight_correlations, weight_correlation
from ko.diagnostics import _CHUNK_ROWS


def reference(rows: np.ndarray) -> float:
    """Mean over i != j of |cos(w_i, w_j)|, a pair at a time."""
    pairs = [
        abs(float(a @ b)) / (np.linalg.norm(a) * np.linalg.norm(b)) if a.any() and b.any() else 0.0
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j
    ]
    return float(np.mean(pairs))


def test_layers_equal_the_reference_and_are_averaged() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 6), nn.Linear(6, 1)).double()
    with torch.no_grad():
        model[2].weight[3] = 0  # type: ignore[index]
    expected = {
        "0.weight": reference(model[0].weight.detach().flatten(1).numpy()),
        "2.weight": reference(model[2].weight.detach().numpy()),
    }
    assert layer_weight_correlations(model) == pytest.approx(expected)
    assert weight_correlation(model) == pytest.approx(np.mean(list(expected.values())))


def test_tensors_may_be_given_instead_of_a_model() -> None:
    rows = torch.tensor([[1.0, 0], [1, 1], [0, 2]])
    assert layer_weight_correlations([torch.ones(3), rows, torch.ones(1, 4)]) == pytest.approx({"1": math.sqrt(2) / 3})


def test_condensed_and_orthogonal_rows() -> None:
    direction = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    assert weight_correlation([direction * torch.tensor([[1.0], [-2], [0.5]])]) == pytest.approx(1)
    assert weight_correlation([torch.eye(4)]) == pytest.approx(0, abs=1e-6)


def test_embeddings_are_not_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 4), nn.EmbeddingBag(50, 4), nn.Linear(4, 3))
    assert list(layer_weight_correlations(model)) == ["2.weight"]


def test_without_a_layer_it_is_nan() -> None:
    assert math.isnan(weight_correlation(nn.LayerNorm(4)))
    assert layer_weight_correlations([]) == {}


def test_wide_layers_are_computed_in_chunks() -> None:
    rows = torch.randn(_CHUNK_ROWS + 77, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    units = rows / rows.norm(dim=1, keepdim=True)
    cosines = (units @ units.T).abs().fill_diagonal_(0)
    assert weight_correlation([rows]) == pytest.approx(float(cosines.sum()) / (len(rows) * (len(rows) - 1)))


def test_nothing_is_left_on_the_tape() -> None:
    p = nn.Parameter(torch.randn(3, 3))
    weight_correlation([p])
    assert p.grad is None
    assert torch.is_grad_enabled()
