"""KO, the kinetics-inspired optimizer (arXiv 2505.14777), for PyTorch: `from ko import KO`."""

from ko.diagnostics import layer_weight_correlations, weight_correlation
from ko.fading import Fade
from ko.muon import MuonAdamW
from ko.optimizer import KO
from ko.particles import param_groups

__all__ = ["KO", "Fade", "MuonAdamW", "layer_weight_correlations", "param_groups", "weight_correlation"]
