"""Sign descent, as a user would upload it."""

import torch
from torch.optim import Optimizer

SPACE = {"lr": {"log_uniform": [1e-4, 1e-2]}}


class SignDescent(Optimizer):
    """Sign descent with an average of the gradients."""

    def __init__(self, params, lr: float = 1e-3, beta: float = 0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["average"] = torch.zeros_like(p)
                state["average"].lerp_(p.grad, 1 - group["beta"])
                p.add_(state["average"].sign(), alpha=-group["lr"])
