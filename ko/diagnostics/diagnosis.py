"""All diagnostics of a network at once, layer by layer."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ko.collisions import BOUND, unit_rows
from ko.diagnostics.layers import Layer, Layers, layers_of
from ko.diagnostics.pairs import largest_of, pairs
from ko.diagnostics.spread import effective_rank, gas
from ko.options import strength


class Diagnosis(NamedTuple):
    """What `diagnose` found."""

    layers: dict[str, dict[str, float]]
    """Quantity -> layer -> value."""

    @property
    def averages(self) -> dict[str, float]:
        """Quantity -> mean over the layers that have it."""
        return {name: math.fsum(values.values()) / len(values) for name, values in self.layers.items()}


def weight_correlation(source: Layers) -> float:
    """Mean over the layers of the mean over i != j of |cos(w_i, w_j)|, in [0, 1]; NaN if there is no layer.

    See `layer_weight_correlations` for what a layer is. 1 means that all neurons of a layer point one way (they are
    condensed), 0 that they are orthogonal.
    """
    found = layer_weight_correlations(source)
    return math.fsum(found.values()) / len(found) if found else math.nan


@torch.no_grad()
def layer_weight_correlations(source: Layers) -> dict[str, float]:
    """Mean over i != j of |cos(w_i, w_j)| for each layer, by parameter name (by position if tensors are given).

    A layer is a tensor with at least two dimensions and two rows, flattened to (N, D): the head is one, biases are
    not. A model, an optimizer or parameter groups say more of their tensors (see `ko.param_groups`): rows in another
    dimension, stacked matrices (the mean over them is meant), and embeddings, whose rows are words and not neurons and
    which are not layers. Zero rows have cosine 0, and so have rows that are not finite.

    Args:
        source: a model, an optimizer, or tensors or parameter groups.
    """
    return {layer.name: float(pairs(unit_rows(layer.weights)).correlation.mean()) for layer in layers_of(source)}


@torch.no_grad()
def diagnose(source: Layers, optimizer: Optimizer | None = None) -> Diagnosis:
    """All diagnostics of each layer, from weights and the gradients that are in place; to be called before a step.

    | quantity | of |
    |---|---|
    | `weight_correlation` | see `layer_weight_correlations` |
    | `effective_rank` | the weights: see `ko.effective_rank` |
    | `temperature`, `velocity_energy`, `velocity_entropy` | the gradients: see the functions of these names |
    | `lambda_max` | C of a soft collision, whatever the optimizer: see `ko.largest_eigenvalue` |
    | `gamma_lambda_max` | where KO collides softly: the same times gamma of this step, as capped in the bounded form |

    A parameter that stacks several matrices has the mean over them, of the last two the largest. A parameter without a
    gradient has the first two alone. Rows that are not finite are treated as each quantity says, so that every value is
    finite unless its square overflows float32. Where KO collides in random batches, C is still that of all rows.

    Neither weights nor gradients nor torch's random numbers are touched. Costs, of a layer (N, D): 4 N^2 D flops for
    the pairs, 2 N D min(N, D) in float64 and an eigenvalue problem of size min(N, D); for lambda_max 2 N^2 a round, or
    4 N D^2 where C is larger than 64 MiB, in up to 100 rounds. Sharded parameters are gathered: call it on all
    processes.

    Args:
        source: whose layers: a model (the same layers for every optimizer), an optimizer, or parameter groups.
        optimizer: whose gamma, if it is a KO; `source` itself where that is an optimizer.
    """
    gammas = _gammas(source if isinstance(source, Optimizer) else optimizer)
    found: dict[str, dict[str, float]] = {}
    for layer in layers_of(source):
        for name, value in _quantities(layer, *gammas.get(layer.parameter, (None, False))).items():
            found.setdefault(name, {})[layer.name] = float(value)
    return Diagnosis(found)


def _quantities(layer: Layer, gamma: float | Tensor | None, bounded: bool) -> dict[str, Tensor]:
    """Quantity -> scalar; what several of them need (directions, pairs, moments) is computed once."""
    w, g = layer.weights, layer.gradients
    w_unit = unit_rows(w)
    if g is None:
        return {"weight_correlation": pairs(w_unit).correlation.mean(), "effective_rank": effective_rank(w).mean()}
    g_unit, velocities = unit_rows(g), gas(g)
    met = pairs(w_unit, g_unit, sums=gamma is not None and bounded)
    lambda_max = largest_of(w_unit, g_unit, met.c)
    found = {
        "weight_correlation": met.correlation.mean(),
        "effective_rank": effective_rank(w).mean(),
        "temperature": velocities.temperature.mean(),
        "velocity_energy": velocities.energy.mean(),
        "velocity_entropy": velocities.entropy().mean(),
        "lambda_max": lambda_max.max(),
    }
    if gamma is not None:
        if met.largest_sum is not None:
            gamma = (BOUND / met.largest_sum).minimum(torch.as_tensor(gamma).to(met.largest_sum))
        found["gamma_lambda_max"] = (gamma * lambda_max).max()
    return found


def _gammas(optimizer: Optimizer | None) -> dict[Tensor, tuple[float | Tensor, bool]]:
    """Of each parameter that KO collides softly, gamma in this step and whether it is bounded."""
    groups = [] if optimizer is None else optimizer.param_groups
    return {
        p: (strength(group, "gamma", number), group["bounded"])
        for number, group in enumerate(groups)
        if group.get("collision") == "soft"
        for p in group["params"]
    }
