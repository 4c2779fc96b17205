"""Diagnostics of a network's neurons: how alike their weights are, how their gradients vary, how strongly KO acts."""

from ko.diagnostics.diagnosis import Diagnosis, diagnose, layer_weight_correlations, weight_correlation
from ko.diagnostics.pairs import largest_eigenvalue
from ko.diagnostics.rank import effective_rank
from ko.diagnostics.velocities import MAXWELLIAN, temperature, velocity_energy, velocity_entropy

__all__ = [
    "MAXWELLIAN",
    "Diagnosis",
    "diagnose",
    "effective_rank",
    "largest_eigenvalue",
    "layer_weight_correlations",
    "temperature",
    "velocity_energy",
    "velocity_entropy",
    "weight_correlation",
]
