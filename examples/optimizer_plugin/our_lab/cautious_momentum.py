"""Momentum that moves only where it agrees with the gradient."""

import torch
from torch.optim import Optimizer

# The search space that comparisons use with "space": "default".
SPACE = {"lr": {"log_uniform": [1e-3, 1.0]}}


class CautiousMomentum(Optimizer):
    """SGD with cautious momentum (Liang et al. 2024, arXiv 2411.16085).

    Args:
        lr: Learning rate.
        momentum: Decay of the momentum.
    """

    def __init__(self, params, lr: float = 0.05, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                agrees = (momentum * p.grad > 0).to(p.dtype)
                # The mean of the mask keeps the length of the step.
                p.sub_(momentum * agrees / agrees.mean().clamp(min=1e-3), alpha=group["lr"])
