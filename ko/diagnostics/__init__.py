"""What a network's weights and gradients say about its neurons: how alike they are, how they move, how they collide."""

from ko.diagnostics.diagnosis import Diagnosis, diagnose, layer_weight_correlations, weight_correlation
from ko.diagnostics.pairs import largest_eigenvalue
from ko.diagnostics.spread import MAXWELLIAN, effective_rank, temperature, velocity_energy, velocity_entropy

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
