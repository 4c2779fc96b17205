"""Muon for matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, DEFAULT_NS_STEPS, EPS, muon
from torch.optim.optimizer import ParamsT

from ko.inner import step_inside


class MuonAdamW(Optimizer):
    """torch's Muon for hidden matrices and torch's AdamW for the rest, in one optimizer with one state dict.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalizes the momentum of a matrix.
    Convolutions are flattened to (out, in*kh*kw). A parameter group says `use_muon: bool`; a group that does not is
    split in two by its tensors, ndim >= 2 to Muon and the rest to AdamW. Embeddings and the output layer are better
    trained by AdamW, which only their group can say.

    Each group's `lr` is its own: Muon's groups start at `lr`, AdamW's at `adamw_lr`, unless the group sets one.
    Learning-rate schedulers therefore scale both in proportion.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: learning rate of Muon's groups, >= 0 (default 0.02).
        momentum: Muon's momentum, in [0, 1) (default 0.95).
        nesterov: use Nesterov momentum in Muon (default True).
        weight_decay: decoupled weight decay of both, >= 0 (default 0).
        adamw_lr: learning rate of AdamW's groups, >= 0 (default 1e-3).
        betas: AdamW's decay rates (default (0.9, 0.999)).
        eps: AdamW's epsilon (default 1e-8).
        ns_steps: Newton-Schulz iterations (default 5).

    Raises:
        ValueError: an argument out of its range, or a `use_muon` group with a tensor of fewer than two dimensions.
        RuntimeError: a step with a sparse or complex gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        adamw_lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        ns_steps: int = DEFAULT_NS_STEPS,
    ) -> None:
        for name, value in {"lr": lr, "adamw_lr": adamw_lr, "weight_decay": weight_decay}.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"{name}: Tensor lr must be 1-element, not of shape {tuple(value.shape)}")
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, not {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), not {momentum}")
        if not 1 <= ns_steps < 100:
            raise ValueError(f"ns_steps: expected an integer in [1, 99], not {ns_steps}")
        self._adamw = AdamW([{"params": []}], lr=adamw_lr, betas=betas, eps=eps, weight_decay=weight_decay)
        own = {"lr": lr, "adamw_lr": adamw_lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        super().__init__(params, {**self._adamw.defaults, **own})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; without `use_muon` it becomes one or two groups, by the number of dimensions of its tensors."""
        known = len(self.param_groups)
        try:
            for group in _by_dimensions(param_group):
                group.setdefault("lr", self.defaults["lr" if group["use_muon"] else "adamw_lr"])
                super().add_param_group(group)
                _check_dimensions(group)
        except Exception:
            del self.param_groups[known:]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step; a closure is evaluated first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["use_muon"]:
                self._step_muon(group)
        step_inside(self._adamw, [group for group in self.param_groups if not group["use_muon"]], self.state)
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or loaded state; AdamW's options live in the groups, so a bare one serves."""
        super().__setstate__(state)
        if "_adamw" not in vars(self):
            self._adamw = AdamW([{"params": []}])
        others = [group for group in self.param_groups if not group["use_muon"]]
        self._adamw.__setstate__({"state": self.state, "param_groups": others})  # it completes what an old state lacks

    def _step_muon(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None and p.numel()]
        for p in parameters:
            if p.grad.is_sparse or p.grad.is_complex():
                raise RuntimeError(f"MuonAdamW: Muon takes no sparse or complex gradient (shape {tuple(p.shape)})")
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        matrices = [p.flatten(1) for p in parameters]  # (N, D); a view unless p is in channels-last order
        muon(
            matrices,
            [p.grad.flatten(1) for p in parameters],
            [self.state[p]["momentum_buffer"].flatten(1) for p in parameters],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            ns_coefficients=(DEFAULT_A, DEFAULT_B, DEFAULT_C),
            eps=EPS,
            ns_steps=group["ns_steps"],
            adjust_lr_fn=None,
            has_complex=False,
        )
        for p, matrix in zip(parameters, matrices, strict=True):
            if matrix.data_ptr() != p.data_ptr():
                p.copy_(matrix.view(p.shape))


def _by_dimensions(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group itself if it says `use_muon`, else its matrices and its other tensors as groups of their own."""
    if "use_muon" in group:
        if not isinstance(group["use_muon"], bool):
            raise ValueError(f"use_muon: expected True or False, not {group['use_muon']!r}")
        return [group]
    if isinstance(group["params"], set):
        raise TypeError("params: expected an ordered collection, since the order of a set changes between runs")
    params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    rest = {name: value for name, value in group.items() if name not in ("params", "param_names")}
    parts: dict[bool, list[Any]] = {True: [], False: []}
    for entry in params:
        tensor = entry[1] if isinstance(entry, tuple) else entry
        parts[isinstance(tensor, Tensor) and tensor.ndim >= 2].append(entry)
    groups = [{**rest, "params": part, "use_muon": is_muon} for is_muon, part in parts.items() if part]
    return groups or [{**rest, "params": [], "use_muon": False}]


def _check_dimensions(group: dict[str, Any]) -> None:
    for p in group["params"]:
        if group["use_muon"] and p.ndim < 2:
            raise ValueError(f"use_muon: Muon needs at least two dimensions, not shape {tuple(p.shape)}")
