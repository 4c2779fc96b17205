"""KO, the kinetics-inspired optimizer (arXiv 2505.14777), for PyTorch."""
