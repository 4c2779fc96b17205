"""KO: a collision of the gradients before each step of a base optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ko import collisions, counter
from ko.bases import resolve
from ko.inner import step_inside

COLLISIONS = ("soft", "hard", "none")


class KO(Optimizer):
    r"""The kinetics-inspired optimizer: neurons collide, then a base optimizer moves them.

    `p.grad` is left as it was found: the base sees the collided gradients, which live only for the step (their memory
    is that of the collided parameters' gradients, once).

    One step is :math:`\tilde g = g + Q(W, g)`, :math:`W \leftarrow \mathrm{Base}(W, \tilde g)`. Rows of a parameter
    (output neurons; convolutions are flattened to (out, in*kh*kw)) are particles, with weights as positions and
    gradients as velocities. Tensors with fewer than two dimensions or one row are not collided. Source: arXiv
    2505.14777; the formulas are in `ko.collisions`.

    A soft collision of an (N, D) layer costs 6 N^2 D flops and an N x N matrix: give embeddings a group with
    `collision="none"`. A hard one costs a few passes over the layer.

    Clip gradients before the step. The base's L2 penalty enters after the collision; decoupled decay is untouched. With
    `maximize` the negated gradients collide. The base's step and state hooks are KO's own: each hook is called once.

    Args:
        params: tensors, (name, tensor) pairs, or groups; a group may set `collision`, `gamma`, `bounded`, `rate` and
            the base's options.
        lr: learning rate of the base (default 1e-3).
        base: "sgd", "adam" (default), "adamw", "nadamw" (NAdam with decoupled decay), "radam", "rmsprop", "adagrad",
            "muon" (`MuonAdamW`), or an Optimizer class that works without a closure.
        collision: "soft" (default), "hard" or "none".
        gamma: strength of a soft collision, >= 0 (default 0.1).
        bounded: cap gamma below 1 / lambda_max(C) in soft collisions (default False, the printed form).
        rate: rate of hard collisions, >= 0 (default 0.5).
        seed: of hard collisions, in [0, 2^64); None (default) takes `torch.initial_seed()`. The random numbers are a
            function of seed, step and the parameter's position; torch's generators are not used.
        **base_options: the base's own (betas, momentum, weight_decay, ...).

    Raises:
        ValueError, TypeError: an argument out of its range, named by the message; an unknown base or one that needs a
            closure; what the base itself refuses.
        RuntimeError: a step with a sparse or complex gradient on a collided parameter; nothing is changed then.
    """

    base: Optimizer
    """The base optimizer; it works on this optimizer's `param_groups` and `state`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        base: str | type[Optimizer] = "adam",
        *,
        collision: str = "soft",
        gamma: float = 0.1,
        bounded: bool = False,
        rate: float = 0.5,
        seed: int | None = None,
        **base_options: Any,
    ) -> None:
        base_class, implied = resolve(base)
        options = {"collision": collision, "gamma": gamma, "bounded": bounded, "rate": rate}
        options["collision_seed"] = torch.initial_seed() if seed is None else _checked_seed(seed)
        options["collision_step"] = 0
        _check(options)
        super().__init__(params, options)
        build: Callable[..., Optimizer] = base_class  # Optimizer itself has no lr
        self.base = build(self.param_groups, lr=lr, **{**implied, **base_options})
        self.defaults = {**self.base.defaults, **options}
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which takes part from the next step on; a Muon base may split it in two."""
        _check(param_group)
        if "base" not in vars(self):  # torch's constructor, before there is a base
            super().add_param_group(param_group)
            return
        clock = {name: self.param_groups[0][name] for name in ("collision_seed", "collision_step")}
        options = {name: self.defaults[name] for name in ("collision", "gamma", "bounded", "rate")}
        self.base.add_param_group({**options, **param_group, **clock})
        self.param_groups = self.base.param_groups

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Collide the gradients and make one base step; a closure is evaluated first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        collided = [(p, p.grad, _collide(p, group, index)) for group, index, p in self._colliding()]
        try:
            for p, _, gradient in collided:
                p.grad = gradient
            step_inside(self.base, self.param_groups, self.state)
        finally:
            for p, found, _ in collided:
                p.grad = found
        for group in self.param_groups:
            group["collision_step"] += 1
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: torch's part, the base's class and its attributes, but no hooks."""
        attributes = {name: value for name, value in vars(self.base).items() if not name.startswith("_")}
        attributes |= self.base.__getstate__()
        return {**super().__getstate__(), "base": (type(self.base), attributes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or loaded state; groups saved without KO's options take this optimizer's defaults."""
        base = state.get("base")
        super().__setstate__({name: value for name, value in state.items() if name != "base"})
        if base is not None:
            base_class, attributes = base
            self.base = base_class.__new__(base_class)
            self.base.__setstate__(attributes)
        for group in self.param_groups:
            for name in ("collision", "gamma", "bounded", "rate", "collision_seed", "collision_step"):
                group.setdefault(name, self.defaults[name])
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups})

    def _colliding(self) -> Iterator[tuple[dict[str, Any], int, Tensor]]:
        """The parameters that collide in this step: group, position among all parameters, parameter."""
        index = -1
        for number, group in enumerate(self.param_groups):
            acts = _acts(group)
            for p in group["params"]:
                index += 1
                if not acts or p.ndim < 2 or p.grad is None or len(p) < 2 or not p.numel():
                    continue
                if p.grad.layout != torch.strided or p.grad.is_complex():
                    kind = "complex" if p.grad.is_complex() else "sparse"
                    raise RuntimeError(
                        f"KO cannot collide the {kind} gradient of parameter {index} (group {number}, shape "
                        f'{tuple(p.shape)}); put it in a group with collision="none"'
                    )
                yield group, index, p


def _acts(group: Mapping[str, Any]) -> bool:
    """Whether the group's collision changes anything at all."""
    return bool({"soft": group["gamma"], "hard": group["rate"], "none": 0}[group["collision"]] > 0)


def _collide(p: Tensor, group: Mapping[str, Any], index: int) -> Tensor:
    """The gradient of `p` after the group's collision, a new tensor of the gradient's shape."""
    assert p.grad is not None
    weights, gradients = p.flatten(1), p.grad.flatten(1)  # (N, D)
    maximize = group.get("maximize", False)
    if maximize:
        gradients = -gradients
    if group["collision"] == "soft":
        collided = collisions.soft(weights, gradients, group["gamma"], group["bounded"])
    else:
        key = counter.key(group["collision_seed"], group["collision_step"], index)
        collided = collisions.hard(weights, gradients, group["rate"], key)
    return (-collided if maximize else collided).view(p.grad.shape)


def _check(options: Mapping[str, Any]) -> None:
    """Refuse collision options out of their range, by name."""
    if "collision" in options and options["collision"] not in COLLISIONS:
        raise ValueError(f"collision: {options['collision']!r} is not one of {', '.join(COLLISIONS)}")
    for name in ("gamma", "rate"):
        value = options.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number >= 0, not {value!r}")
    if not isinstance(options.get("bounded", False), bool):
        raise ValueError(f"bounded: expected True or False, not {options['bounded']!r}")


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an integer in [0, 2^64) or None, not {seed!r}")
    return seed
