"""KO: a collision of the gradients before each step of a base optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ko.bases import resolve
from ko.compiling import eager, eager_outside
from ko.inner import inner_group, outer_group, step_inside
from ko.layers import Layer, collided, layer_of
from ko.options import (
    CLOCK,
    OPTIONS,
    STRENGTHS,
    Strength,
    check,
    check_functions,
    check_names,
    check_tensors,
    force_of,
    plain,
    strength,
)
from ko.sharding import shared_seed

# What the optimizers of torch keep for each element of a parameter.
_SHAPED_AS_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum"}

_GROUPS_ONLY = ("row_dim", "blocks", "skip_idle")

# Options that the base knows nothing of; `foreach` is its own as well.
_HIDDEN = {*OPTIONS, *CLOCK} - {"foreach"}


class KO(Optimizer):
    r"""The kinetics-inspired optimizer: neurons collide, then a base optimizer moves them.

    `p.grad` is left as it was found: the base sees the collided gradients, which live only for the step. They take the
    memory of the collided parameters' gradients, once, and what is stacked or gathered meanwhile 256 MiB at a time.

    One step is :math:`\tilde g = g + Q(W, g)`, :math:`W \leftarrow \mathrm{Base}(W, \tilde g)`. Rows of a parameter
    (output neurons; convolutions are flattened to (out, in*kh*kw)) are particles, with weights as positions and
    gradients as velocities. Tensors with fewer than two dimensions or one row are not collided;
    `ko.param_groups(model)` tells what else a model knows of its rows. Source: arXiv 2505.14777; the formulas are in
    `ko.collisions`.

    A soft collision of an (N, D) layer costs 6 N^2 D flops and at most 64 MiB for the N x N matrix; with `group_size`,
    6 N D group_size flops. A hard one costs a few passes over the layer.

    Rows with a NaN or an infinity pass through as they are and touch no other row; NaN then reaches the base, as it
    would without KO. Unscale and clip gradients before the step. The base's L2 penalty enters after the collision;
    decoupled decay is untouched. With `maximize` the negated gradients collide. The base's step and state hooks are
    KO's own: each hook is called once.

    Args:
        params: tensors, (name, tensor) pairs, or groups (see `ko.param_groups`); a group may set `collision`, `gamma`,
            `bounded`, `rate`, `group_size`, `row_dim`, `blocks`, `skip_idle` and the base's options.
        lr: learning rate of the base (default 1e-3, whatever the base); a float, or a 0-d tensor where the base takes
            one.
        base: "sgd", "adam" (default), "adamw", "nadamw" (NAdam with decoupled decay), "radam", "rmsprop", "adagrad",
            "muon" (`MuonAdamW`), or an Optimizer class that works without a closure.
        collision: "soft" (default), "hard" or "none".
        gamma: strength of a soft collision, >= 0 (default 0.1): a float, a 0-d tensor, or a function of the number of
            steps done, such as `ko.Fade`, which a state dict holds the latest value of.
        bounded: cap gamma below 1 / lambda_max(C) in soft collisions (default False, the printed form).
        rate: rate of hard collisions, >= 0 (default 0.5); as gamma.
        group_size: rows that meet at a time in a soft collision, >= 2 (random batch); None (default): all.
        seed: of hard collisions and random batches, in [0, 2^64), equal on all processes; None (default) takes
            `torch.initial_seed()`, of rank 0 where processes train together. The random numbers are a function of
            seed, step and the parameter's position; torch's generators are not used.
        foreach: collide layers of one shape together, and the base's own option of this name; None (default): where it
            pays, on GPUs and for small layers.
        **base_options: the base's own (betas, momentum, weight_decay, ...).

    Raises:
        ValueError, TypeError: an argument out of its range, named by the message; an unknown base or one that needs a
            closure; parameters flattened by the first FSDP (FSDP2 is served, by gathering each collided parameter and
            its gradient); a state of another shape; what the base itself refuses.
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
        gamma: Strength = 0.1,
        bounded: bool = False,
        rate: Strength = 0.5,
        group_size: int | None = None,
        seed: int | None = None,
        foreach: bool | None = None,
        **base_options: Any,
    ) -> None:
        base_class, implied = resolve(base)
        accepted = inspect.signature(base_class).parameters
        check_names(base_options, accepted)
        misplaced = base_options.keys() & set(_GROUPS_ONLY) - accepted.keys()
        if misplaced:
            raise ValueError(f"{min(misplaced)}: this says where a group's rows are; set it in a parameter group")
        options: dict[str, Any] = {"collision": collision, "gamma": gamma, "bounded": bounded, "rate": rate}
        options |= {"group_size": group_size, "row_dim": 0, "blocks": 1, "skip_idle": False}
        if foreach is not None:
            options["foreach"] = foreach
            if "foreach" in accepted:
                base_options["foreach"] = foreach
        check(options)
        check_functions(options)
        options = plain(options)
        options["collision_seed"] = shared_seed() if seed is None else _checked_seed(seed)
        options["collision_step"] = 0
        self._shares: dict[Tensor, Tensor] = {}  # of each parameter's candidate pairs, those that collided last
        super().__init__(params, options)
        build: Callable[..., Optimizer] = base_class  # Optimizer itself has no lr
        groups = [inner_group(group, _HIDDEN) for group in self.param_groups]
        self.base = build(groups, lr=lr, **{**implied, **base_options})
        self.defaults = {**self.base.defaults, **options}
        self.state = self.base.state
        self._adopt(self.base.param_groups, self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which takes part from the next step on; a Muon base may split it in two."""
        number = len(self.param_groups)
        where = f" of parameter group {number}"
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group: expected a dict, not {type(param_group).__name__}")
        check_names(param_group, {"params", "param_names", *self.defaults}, where)
        check(param_group, where)
        check_functions(param_group, where)
        given = plain({name: value for name, value in param_group.items() if name not in CLOCK})
        if "base" not in vars(self):  # torch's constructor, before there is a base
            super().add_param_group(given)
        else:
            clock = {name: self.param_groups[0][name] for name in CLOCK}
            options = {name: self.defaults[name] for name in OPTIONS if name in self.defaults}
            added = {**options, **given, **clock}
            self.base.add_param_group(inner_group(added, _HIDDEN))
            self._adopt(self.base.param_groups[number:], [added])
        try:
            for group in self.param_groups[number:]:
                check_tensors(group, where)
        except ValueError:
            del self.param_groups[number:]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @eager_outside  # what is tensors only, the collisions and the base's step, is compiled
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Collide the gradients and make one base step; a closure is evaluated first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            gradients, self._shares = collided(self._layers())
            found = {p: p.grad for p in gradients}
            try:
                _set_gradients(gradients)
                step_inside(self.base, self.param_groups, self.state, _HIDDEN)
            finally:
                _set_gradients(found)
        if not self._is_idle():
            for group in self.param_groups:
                group["collision_step"] += 1
        return loss

    def collision_shares(self) -> dict[Tensor, float]:
        """Of each parameter's candidate pairs, the share that collided in the last step; parameters with hard ones."""
        return {p: float(share) for p, share in self._shares.items()}

    def train(self) -> None:
        """Switch to training, for a base that has such a mode (schedule-free optimizers); else nothing."""
        self._switch("train")

    def eval(self) -> None:
        """Switch to evaluation, for a base that has such a mode (schedule-free optimizers); else nothing."""
        self._switch("eval")

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with what the base saves; a strength that is a function becomes its value in this step."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        self._hand_over()
        saved = self.base.state_dict()
        for number, group in enumerate(saved["param_groups"]):
            group.update({name: strength(group, name, number) for name in STRENGTHS if callable(group[name])})
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; strengths that this optimizer has as functions stay functions.

        Raises:
            ValueError: another number of groups or parameters, rows that do not fit, or, where the base is torch's or
                ours, a state of another shape; nothing is changed then.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        found = self.param_groups, self.state
        self._hand_over()
        try:
            self.base.load_state_dict(state_dict)
            self._check_shapes(self.base.state)
            self.param_groups, self.state = self.base.param_groups, self.base.state
            self._complete_groups(found[0])
        except Exception:
            self.param_groups, self.state = found
            self._hand_over()
            raise
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: torch's part, the base's class and its attributes, but no hooks."""
        attributes = {name: value for name, value in vars(self.base).items() if not name.startswith("_")}
        attributes |= self.base.__getstate__()
        return {**super().__getstate__(), "base": (type(self.base), attributes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` kept."""
        super().__setstate__({name: value for name, value in state.items() if name != "base"})
        base_class, attributes = state["base"]
        self.base = base_class.__new__(base_class)
        self.base.__setstate__(attributes)
        self._shares = {}
        self._hand_over()

    @eager
    def _layers(self) -> list[Layer]:
        """The layers that collide in this step.

        Raises:
            ValueError: an option that was set to something out of its range.
            RuntimeError: a sparse or complex gradient.
        """
        layers, position = [], 0
        for number, group in enumerate(self.param_groups):
            check(group, f" of parameter group {number}")
            check_tensors(group, f" of parameter group {number}")
            force = force_of(group, number)
            for p in group["params"]:
                layers.append(layer_of(p, group, number, position, force))
                position += 1
        return [layer for layer in layers if layer is not None]

    @eager
    def _is_idle(self) -> bool:
        """Whether this was no step: nothing to learn from and no rate to do it at.

        So does torch.distributed.checkpoint make an optimizer without state show it, each time it is saved.
        """
        rates = [group.get("lr", 1.0) for group in self.param_groups]  # a few optimizers have none
        if any((isinstance(lr, Tensor) and lr.device.type != "cpu") or float(lr) != 0 for lr in rates):
            return False
        gradients = (p.grad for group in self.param_groups for p in group["params"] if p.grad is not None)
        return not any(bool(gradient.any()) for gradient in gradients)

    def _adopt(self, groups: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
        """Give the base's `groups`, into which it may have split our `own`, the options that are ours."""
        owner = {p: group for group in own for p in group["params"]} if len(own) > 1 else {}
        for group in groups:
            options = owner.get(group["params"][0], own[0]) if group["params"] else own[0]
            seen = outer_group(group, _HIDDEN)
            group.clear()
            group.update(seen | {name: options[name] for name in options if name in _HIDDEN})
        self.param_groups = self.base.param_groups

    def _complete_groups(self, before: list[dict[str, Any]]) -> None:
        """Give loaded groups the options they lack, and the functions that a state dict cannot hold."""
        for number, (group, own) in enumerate(zip(self.param_groups, before, strict=True)):
            for name in _HIDDEN:
                group.setdefault(name, own[name])
            group.update({name: own[name] for name in STRENGTHS if callable(own[name])})
            check(group, f" of parameter group {number}")
            check_tensors(group, f" of parameter group {number}")

    def _check_shapes(self, state: dict[Any, Any]) -> None:
        """Refuse a loaded state whose moments have not the shape of their parameter, where their names are known."""
        if not type(self.base).__module__.startswith(("torch.optim.", "ko.")):
            return
        for p, values in state.items():
            for name in _SHAPED_AS_PARAMETER & values.keys() if isinstance(p, Tensor) else ():
                found = values[name]
                if isinstance(found, Tensor) and found.shape != p.shape:
                    raise ValueError(
                        f"state: {name} has shape {tuple(found.shape)}, its parameter {tuple(p.shape)}; load the state "
                        "of an optimizer of the same model, with its parameters in the same order"
                    )

    def _hand_over(self) -> None:
        self.base.param_groups, self.base.state = self.param_groups, self.state

    def _switch(self, mode: str) -> None:
        switch = getattr(self.base, mode, None)
        if switch is not None:
            self._hand_over()
            switch()


@eager
def _set_gradients(gradients: Mapping[Tensor, Tensor | None]) -> None:
    for p, gradient in gradients.items():
        p.grad = gradient


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an integer in [0, 2^64) or None, not {seed!r}")
    return int(seed)
