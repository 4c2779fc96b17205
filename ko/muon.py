"""MuonAdamW: Muon for matrices and AdamW for all other parameters, as one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, DEFAULT_NS_STEPS, EPS, muon
from torch.optim.optimizer import ParamsT

from ko.inner_step import step_inside


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` for hidden matrices and `torch.optim.AdamW` for the rest, with one state dict.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalizes the momentum of a matrix.
    Convolutions are flattened to (out, in*kh*kw). A parameter group chooses with `use_muon: bool`. A group without it
    is split into tensors with ndim >= 2, which use Muon, and the others, which use AdamW. Embeddings and the output
    layer train better with AdamW: put them in a group with `use_muon=False`.

    Groups that use Muon start at `lr`, those that use AdamW at `adamw_lr`, unless the group sets its own `lr`.
    Learning-rate schedulers scale both in proportion.

    Args:
        params: tensors, (name, tensor) pairs or parameter groups.
        lr: learning rate of Muon, >= 0 (default 0.02).
        momentum: momentum of Muon, in [0, 1) (default 0.95).
        nesterov: use Nesterov momentum in Muon (default True).
        weight_decay: decoupled weight decay of both, >= 0 (default 0).
        adamw_lr: learning rate of AdamW, >= 0 (default 1e-3).
        betas: decay rates of AdamW's moment estimates, each in [0, 1) (default (0.9, 0.999)).
        eps: epsilon of AdamW, >= 0 (default 1e-8).
        ns_steps: Newton-Schulz iterations of Muon, in [1, 99] (default 5).

    Raises:
        ValueError: if an argument is out of range, or if a `use_muon` group holds a tensor with fewer than two
            dimensions.
        RuntimeError: by `step`, if a gradient is sparse or complex.
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
        options = {"lr": lr, "adamw_lr": adamw_lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        super().__init__(params, {**self._adamw.defaults, **options})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group. Without `use_muon` it becomes one or two groups, by the dimensions of its tensors."""
        n_groups = len(self.param_groups)
        try:
            for group in _split_by_dimensions(param_group):
                group.setdefault("lr", self.defaults["lr" if group["use_muon"] else "adamw_lr"])
                super().add_param_group(group)
                _check_dimensions(group)
        except Exception:
            del self.param_groups[n_groups:]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Perform a single optimization step.

        Args:
            closure: reevaluates the model and returns the loss.

        Returns:
            The loss of the closure; None without one.
        """
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
        """Restore a pickled or loaded state. The options of AdamW are in the groups, so a default AdamW is enough."""
        super().__setstate__(state)
        if "_adamw" not in vars(self):
            self._adamw = AdamW([{"params": []}])
        adamw_groups = [group for group in self.param_groups if not group["use_muon"]]
        # AdamW adds the options that a state dict of an older version lacks.
        self._adamw.__setstate__({"state": self.state, "param_groups": adamw_groups})

    def _step_muon(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None and p.numel()]
        for p in parameters:
            if p.grad.is_sparse or p.grad.is_complex():
                raise RuntimeError(f"Muon does not support sparse or complex gradients (shape {tuple(p.shape)})")
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
            if not p.is_contiguous():
                p.copy_(matrix.view(p.shape))


def _split_by_dimensions(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group itself if it sets `use_muon`, else one group of its matrices and one of its other tensors."""
    if "use_muon" in group:
        if not isinstance(group["use_muon"], bool):
            raise ValueError(f"use_muon: expected True or False, not {group['use_muon']!r}")
        return [group]
    if isinstance(group["params"], set):
        raise TypeError("params: expected an ordered collection, not a set, whose order changes between runs")
    params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    options = {name: value for name, value in group.items() if name not in ("params", "param_names")}
    by_use: dict[bool, list[Any]] = {True: [], False: []}
    for entry in params:
        tensor = entry[1] if isinstance(entry, tuple) else entry
        by_use[isinstance(tensor, Tensor) and tensor.ndim >= 2].append(entry)
    groups = [{**options, "params": entries, "use_muon": use} for use, entries in by_use.items() if entries]
    return groups or [{**options, "params": [], "use_muon": False}]


def _check_dimensions(group: dict[str, Any]) -> None:
    for p in group["params"]:
        if group["use_muon"] and p.ndim < 2:
            raise ValueError(f"use_muon: Muon needs a tensor with at least two dimensions, not shape {tuple(p.shape)}")
