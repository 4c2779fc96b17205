"""Diagnostics of all layers of a network, computed together."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ko.collisions import BOUND, unit_rows
from ko.diagnostics.layers import Layer, Layers, layers_of
from ko.diagnostics.pairs import lambda_max_of, pairs
from ko.diagnostics.rank import effective_rank
from ko.diagnostics.velocities import gas
from ko.options import current_strength


class Diagnosis(NamedTuple):
    """Result of `diagnose`."""

    layers: dict[str, dict[str, float]]
    """Quantity -> layer -> value."""

    @property
    def averages(self) -> dict[str, float]:
        """Quantity -> mean over the layers that have it."""
        return {name: math.fsum(values.values()) / len(values) for name, values in self.layers.items()}


def weight_correlation(source: Layers) -> float:
    """Mean over all layers of the mean over i != j of |cos(w_i, w_j)|, in [0, 1]; NaN without layers.

    It is 1 if the neurons of each layer are parallel, and 0 if they are orthogonal.

    Args:
        source: a model, an optimizer, tensors or parameter groups; `layer_weight_correlations` defines their layers.
    """
    correlations = layer_weight_correlations(source)
    return math.fsum(correlations.values()) / len(correlations) if correlations else math.nan


@torch.no_grad()
def layer_weight_correlations(source: Layers) -> dict[str, float]:
    """Mean over i != j of |cos(w_i, w_j)| for each layer.

    A layer is a tensor with at least two dimensions and two rows, flattened to (N, D); this includes the head, but no
    biases. In a model, an optimizer or parameter groups (see `ko.param_groups`), rows may be in another dimension,
    stacked matrices are averaged, and embeddings, whose rows are words and not neurons, are not layers. Rows that are
    zero or not finite have cosine 0.

    Args:
        source: a model, an optimizer, tensors or parameter groups.

    Returns:
        Parameter name -> value; for tensors without a name, position -> value.
    """
    return {layer.name: float(pairs(unit_rows(layer.weights)).correlation.mean()) for layer in layers_of(source)}


@torch.no_grad()
def diagnose(source: Layers, optimizer: Optimizer | None = None) -> Diagnosis:
    """Compute all diagnostics of each layer from its weights and its current gradients; call it before `step`.

    | quantity | definition |
    |---|---|
    | `weight_correlation` | see `layer_weight_correlations` |
    | `effective_rank` | of the weights, see `ko.effective_rank` |
    | `temperature`, `velocity_energy`, `velocity_entropy` | of the gradients, see the functions of these names |
    | `lambda_max` | of C, for every optimizer, see `ko.largest_eigenvalue` |
    | `gamma_lambda_max` | only for soft collisions: lambda_max times the gamma of this step, capped if bounded |

    For a parameter that stacks several matrices, the last two quantities are the maximum over them and the others the
    mean. A parameter without a gradient has only the first two. Rows that are not finite are handled as each quantity
    defines, so that every value is finite unless its square overflows float32. With random groups, C is still that of
    all rows.

    Weights, gradients and torch's random number generators are not changed. Cost for a layer (N, D): 4 N^2 D flops for
    the pairs, 2 N D min(N, D) flops in float64 and an eigenvalue problem of size min(N, D); for lambda_max 2 N^2 flops
    per iteration, or 4 N D^2 if C is larger than 64 MiB, in up to 100 iterations. Sharded parameters are gathered, so
    call it on all processes.

    Args:
        source: the layers: a model (the same layers for every optimizer), an optimizer, tensors or parameter groups.
        optimizer: the KO whose gamma is used (default None: `source`, if it is an optimizer).

    Returns:
        The values by quantity and layer.
    """
    gammas = _gammas(source if isinstance(source, Optimizer) else optimizer)
    values: dict[str, dict[str, float]] = {}
    for layer in layers_of(source):
        for name, value in _quantities(layer, *gammas.get(layer.parameter, (None, False))).items():
            values.setdefault(name, {})[layer.name] = float(value)
    return Diagnosis(values)


def _quantities(layer: Layer, gamma: float | Tensor | None, bounded: bool) -> dict[str, Tensor]:
    """Quantity -> scalar; intermediate results that several quantities need are computed once."""
    w, g = layer.weights, layer.gradients
    w_unit = unit_rows(w)
    if g is None:
        return {"weight_correlation": pairs(w_unit).correlation.mean(), "effective_rank": effective_rank(w).mean()}
    g_unit, velocities = unit_rows(g), gas(g)
    over_pairs = pairs(w_unit, g_unit, sums=gamma is not None and bounded)
    lambda_max = lambda_max_of(w_unit, g_unit, over_pairs.c)
    quantities = {
        "weight_correlation": over_pairs.correlation.mean(),
        "effective_rank": effective_rank(w).mean(),
        "temperature": velocities.temperature.mean(),
        "velocity_energy": velocities.energy.mean(),
        "velocity_entropy": velocities.entropy().mean(),
        "lambda_max": lambda_max.max(),
    }
    if gamma is not None:
        if over_pairs.largest_sum is not None:
            gamma = (BOUND / over_pairs.largest_sum).minimum(torch.as_tensor(gamma).to(over_pairs.largest_sum))
        quantities["gamma_lambda_max"] = (gamma * lambda_max).max()
    return quantities


def _gammas(optimizer: Optimizer | None) -> dict[Tensor, tuple[float | Tensor, bool]]:
    """Parameter -> gamma in this step and whether it is bounded, for the parameters with soft collisions."""
    groups = [] if optimizer is None else optimizer.param_groups
    return {
        p: (current_strength(group, "gamma", number), group["bounded"])
        for number, group in enumerate(groups)
        if group.get("collision") == "soft"
        for p in group["params"]
    }
