"""KO, the kinetics-inspired neural optimizer (arXiv 2505.14777), for PyTorch: `from ko import KO`."""

from ko.diagnostics import (
    Diagnosis,
    diagnose,
    effective_rank,
    largest_eigenvalue,
    layer_weight_correlations,
    temperature,
    velocity_energy,
    velocity_entropy,
    weight_correlation,
)
from ko.muon import MuonAdamW
from ko.optimizer import KO
from ko.particles import param_groups
from ko.schedules import Fade

__all__ = [
    "KO",
    "Diagnosis",
    "Fade",
    "MuonAdamW",
    "diagnose",
    "effective_rank",
    "largest_eigenvalue",
    "layer_weight_correlations",
    "param_groups",
    "temperature",
    "velocity_energy",
    "velocity_entropy",
    "weight_correlation",
]
