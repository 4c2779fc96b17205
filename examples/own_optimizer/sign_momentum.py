"""An optimizer of your own: copy this file, change its step, upload it."""

import torch
from torch.optim import Optimizer

# The search space that comparisons use with "space": "default".
SPACE = {"lr": {"log_uniform": [1e-4, 1e-2]}, "beta": {"choice": [0.8, 0.9, 0.95]}}


class SignMomentum(Optimizer):
    """Sign descent on an average of the gradients.

    Args:
        lr: Learning rate.
        beta: Decay of the average.
        weight_decay: Decoupled weight decay.
    """

    # Every parameter after the first one needs a default; types come from annotations.
    def __init__(self, params, lr: float = 1e-3, beta: float = 0.9, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # what is kept here is saved with checkpoints
                if not state:
                    state["average"] = torch.zeros_like(p)
                state["average"].lerp_(p.grad, 1 - group["beta"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(state["average"].sign(), alpha=-group["lr"])
