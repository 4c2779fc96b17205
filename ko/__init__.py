"""KO, the kinetics-inspired optimizer (arXiv 2505.14777), for PyTorch: `from ko import KO`."""

from ko.diagnostics import layer_weight_correlations, weight_correlation
from ko.muon import MuonAdamW
from ko.optimizer import KO

__all__ = ["KO", "MuonAdamW", "layer_weight_correlations", "weight_correlation"]
