"""Controls for KO: simple alternatives to a collision. Only if KO beats them can its physics explain its results.

Each control returns a tensor that is added to the gradient of a layer before the base optimizer's step, where KO's
collision acts. Shapes: N rows (neurons), D columns, as in `ko.collisions`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ko import collisions, rng
from ko.diagnostics.layers import layers_of
from ko.particles import as_matrices, from_matrices

Draw = Callable[[torch.Size], Tensor]
"""Draws standard normal numbers of a shape."""
Control = Callable[[Tensor, Tensor, float, Draw], Tensor]
"""Weights (N, D), their gradient (N, D), strength, source of noise -> summand of the gradient, (N, D) or (N, 1)."""


def noise(weights: Tensor, gradient: Tensor, gamma: float, draw: Draw) -> Tensor:
    """Gaussian noise, (N, D), with the norm of the change that a soft collision of this gamma makes to the gradient."""
    change = collisions.soft(weights, gradient, gamma) - gradient
    normal = draw(weights.shape)
    length: Tensor = change.norm() / normal.norm()
    return normal * length


def orthogonality(weights: Tensor, gradient: Tensor, penalty: float, draw: Draw) -> Tensor:
    """Gradient, (N, D), of `penalty * sum over i != j of cos(w_i, w_j)^2`, which drives the rows apart.

    This is the soft orthogonality of Bansal, Chen and Wang (NeurIPS 2018), applied to directions, so that the lengths
    of the rows do not change. A zero row, which has no direction, has a zero gradient.
    """
    lengths: Tensor = weights.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    unit = weights / lengths
    cosines = (unit @ unit.T).fill_diagonal_(0)  # (N, N)
    pull = 4 * penalty * cosines @ unit
    return (pull - (pull * unit).sum(dim=1, keepdim=True) * unit) / lengths


def centralization(weights: Tensor, gradient: Tensor, strength: float, draw: Draw) -> Tensor:
    """Minus the mean of each gradient row, (N, 1) (Yong et al., ECCV 2020); `strength` is ignored."""
    return -gradient.mean(dim=1, keepdim=True)


CONTROLS: dict[str, Control] = {"noise": noise, "orthogonality": orthogonality, "centralization": centralization}


def attach(optimizer: Optimizer, model: nn.Module, control: str, strength: float, seed: int) -> None:
    """Apply a control to the gradients of `model`'s layers before each step of `optimizer`.

    The layers are those to which KO applies collisions. Like KO's random numbers, the noise is a function of seed, step
    and layer, the same on every device up to rounding, and uses no generator of torch. The number of steps is stored in
    the optimizer's groups as `control_step`, so that a loaded state dict continues at its step. A copy of the optimizer
    has no control, because hooks are not copied.
    """
    add, layers = CONTROLS[control], layers_of(model)

    @torch.no_grad()
    def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        step = optimizer.param_groups[0]["control_step"]
        for position, layer in enumerate(layers):
            p, rows = layer.parameter, (layer.row_dim, layer.blocks)
            if p.grad is None:
                continue
            g = as_matrices(p.grad, *rows)  # (B, N, D)
            changed = [
                gradient + add(weights, gradient, strength, partial(_normal, (seed, step, position, block), p.device))
                for block, (weights, gradient) in enumerate(zip(as_matrices(p, *rows), g, strict=True))
            ]
            p.grad.copy_(from_matrices(torch.stack(changed), p.grad, *rows))
        for group in optimizer.param_groups:
            group["control_step"] += 1

    for group in optimizer.param_groups:
        group["control_step"] = 0
    optimizer.register_step_pre_hook(before_step)


def _normal(key: tuple[int, ...], device: torch.device, shape: torch.Size) -> Tensor:
    pairs = torch.arange((shape.numel() + 1) // 2, device=device)
    return rng.normal(rng.bits(rng.key(*key), pairs))[: shape.numel()].view(shape)
