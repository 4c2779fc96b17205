"""The KO optimizer: collides the gradients before each step of a base optimizer."""

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
from ko.compiling import eager, eager_shallow, has_values
from ko.distributed import seed_of_first_rank
from ko.inner_step import inner_group, outer_group, step_inside
from ko.layers import Layer, collided, layer_of
from ko.options import (
    OPTIONS,
    RNG_STATE,
    STRENGTHS,
    Strength,
    check_names,
    check_options,
    check_same,
    check_schedules,
    check_shapes,
    collision_strength,
    current_strength,
    draws_numbers,
    with_python_numbers,
)

# State of torch's optimizers that has the shape of its parameter.
_SHAPED_AS_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum"}

_GROUPS_ONLY = ("row_dim", "blocks", "skip_idle")

# Options that the base does not see. `foreach` is an option of the base as well.
_HIDDEN = {*OPTIONS, *RNG_STATE} - {"foreach"}


class KO(Optimizer):
    r"""Kinetics-inspired neural optimizer: collides the gradients of neurons, then steps a base optimizer.

    .. math::
        \tilde g = g + Q(W, g), \qquad W \leftarrow \mathrm{Base}(W, \tilde g)

    Each row of a parameter (an output neuron; convolutions are flattened to (out, in*kh*kw)) is a particle with its
    weights as position and its gradient as velocity. The collision operator Q is

    - soft: :math:`Q = -\gamma C g` with :math:`C_{ij} = \cos(w_i, w_j) \cos(g_i, g_j)`;
    - hard: elastic collisions of random pairs, with probability
      :math:`\mathrm{rate} \cdot |g_i - g_j| / M \cdot \exp(-|w_i - w_j|)` (see `ko.collisions.hard`).

    Tensors with fewer than two dimensions or fewer than two rows do not collide. `ko.param_groups(model)` also handles
    embeddings, transposed and grouped convolutions, and stacked matrices. Source: Feng et al. 2025, arXiv 2505.14777.

    `p.grad` is not changed: the base optimizer sees the collided gradients, which exist only during the step. They take
    as much memory as the gradients of the collided parameters, plus at most 256 MiB for copies. A soft collision of an
    (N, D) layer costs 6 N^2 D flops and at most 64 MiB for the N x N matrix; with `group_size`, 6 N D group_size flops.
    A hard collision costs a few passes over the layer.

    Unscale and clip gradients before the step. The L2 penalty of the base is added after the collision; decoupled
    weight decay is not affected. With `maximize` the negated gradients collide. A row with a NaN or an infinity does
    not collide, and the base sees it as it would without KO. The step and state-dict hooks of KO serve the base as
    well: each is called once.

    Args:
        params: tensors, (name, tensor) pairs, or parameter groups (see `ko.param_groups`). A group may set `collision`,
            `gamma`, `bounded`, `rate`, `group_size`, `row_dim`, `blocks`, `skip_idle` and options of the base.
        lr: learning rate of the base, a float or, if the base supports it, a 0-d tensor (default 1e-3 for every base).
        base: "sgd", "adam" (default), "adamw", "nadamw" (NAdam with decoupled weight decay), "radam", "rmsprop",
            "adagrad", "muon" (`MuonAdamW`), or an Optimizer class whose `step` needs no closure.
        collision: "soft" (default), "hard" or "none".
        gamma: strength of soft collisions, >= 0 (default 0.1): a float, a 0-d tensor, or a function of the number of
            completed steps, such as `ko.Fade`. A state dict holds the current value of a function.
        bounded: in soft collisions use min(gamma, 0.95 / max_i sum_j |C_ij|), which is below 1 / lambda_max(C)
            (default False, the form of the paper).
        rate: rate of hard collisions, >= 0 (default 0.5); same types as `gamma`.
        group_size: rows per random group in soft collisions, >= 2 (random batch method); None (default): all rows.
        seed: seed of hard collisions and random groups, in [0, 2^64), equal on all processes. None (default):
            `torch.initial_seed()`, that of rank 0 in a process group: the first step that draws numbers is a collective
            call then. The random numbers are a function of the seed, the step and the position of the parameter;
            torch's generators are not used.
        foreach: collide layers of one shape in one batch, and pass `foreach` to the base if it has this option. None
            (default): in one batch on GPUs and for small layers.
        **base_options: options of the base (betas, momentum, weight_decay, ...).

    Raises:
        ValueError, TypeError: if an argument is out of range (the message names it), if the base is unknown or needs a
            closure, if FullyShardedDataParallel (FSDP1) has flattened a parameter, or by the checks of the base. FSDP2
            is supported: each collided parameter and its gradient are gathered.
        RuntimeError: by `step`, if a collided parameter has a sparse or complex gradient; nothing is changed then.
    """

    base: Optimizer
    """The base optimizer; it uses the `param_groups` and the `state` of this optimizer."""

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
        self._given = {"base": base, "seed": seed}
        accepted = inspect.signature(base_class).parameters
        check_names(base_options, accepted)
        misplaced = base_options.keys() & set(_GROUPS_ONLY) - accepted.keys()
        if base_options.get("differentiable"):
            raise ValueError("differentiable: KO changes gradients outside of the graph; use False")
        if misplaced:
            raise ValueError(f"{min(misplaced)}: this option depends on the tensors; set it in a parameter group")
        options: dict[str, Any] = {"collision": collision, "gamma": gamma, "bounded": bounded, "rate": rate}
        options |= {"group_size": group_size, "row_dim": 0, "blocks": 1, "skip_idle": False}
        if foreach is not None:
            options["foreach"] = foreach
            if "foreach" in accepted:
                base_options["foreach"] = foreach
        check_options(options)
        check_schedules(options)
        options = with_python_numbers(options)
        options["collision_seed"] = torch.initial_seed() if seed is None else _checked_seed(seed)
        self._is_seed_shared = seed is not None  # or from rank 0, which is asked when numbers are first drawn
        options["collision_step"] = 0
        self._shares: dict[Tensor, Tensor] = {}  # share of candidate pairs that collided in the last step
        super().__init__(params, options)
        build: Callable[..., Optimizer] = base_class  # the constructor of Optimizer itself has no lr
        groups = [inner_group(group, _HIDDEN) for group in self.param_groups]
        self.base = build(groups, lr=lr, **{**implied, **base_options})
        self.defaults = {**self.base.defaults, **options}
        self.state = self.base.state
        self._take_groups_of_base(self.base.param_groups, self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; the base "muon" may split it in two.

        Args:
            param_group: dict with "params" and the options of the group.

        Raises:
            ValueError, TypeError: as the constructor; no group is added then.
        """
        number = len(self.param_groups)
        where = f" of parameter group {number}"
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group: expected a dict, not {type(param_group).__name__}")
        param_group = dict(param_group)
        for name in self._given.keys() & param_group.keys():  # wrappers pass on all arguments of KO in a group
            check_same(name, param_group.pop(name), self._given[name], where)
        if param_group.get("differentiable"):
            raise ValueError(f"differentiable{where}: KO changes gradients outside of the graph; use False")
        check_names(param_group, {"params", "param_names", *self.defaults}, where)
        check_options(param_group, where)
        check_schedules(param_group, where)
        given = with_python_numbers({name: value for name, value in param_group.items() if name not in RNG_STATE})
        if "base" not in vars(self):  # called by torch's constructor, before the base is built
            super().add_param_group(given)
        else:
            rng_state = {name: self.param_groups[0][name] for name in RNG_STATE}
            options = {name: self.defaults[name] for name in OPTIONS if name in self.defaults}
            added = {**options, **given, **rng_state}
            self.base.add_param_group(inner_group(added, _HIDDEN))
            self._take_groups_of_base(self.base.param_groups[number:], [added])
        try:
            for group in self.param_groups[number:]:
                check_shapes(group, where)
        except ValueError:
            del self.param_groups[number:]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @eager_shallow  # the functions of tensors, collisions and base step, are compiled
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Perform a single optimization step: collide the gradients, then step the base.

        Args:
            closure: reevaluates the model and returns the loss.

        Returns:
            The loss of the closure; None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            gradients, self._shares = collided(self._layers())
            original = {p: p.grad for p in gradients}
            try:
                _set_gradients(gradients)
                step_inside(self.base, self.param_groups, self.state, _HIDDEN)
            finally:
                _set_gradients(original)
        if not self._is_state_initialization():
            for group in self.param_groups:
                group["collision_step"] += 1
        return loss

    def collision_shares(self) -> dict[Tensor, float]:
        """Parameter -> share of candidate pairs that collided in the last step, in [0, 1], for hard collisions."""
        return {p: float(share) for p, share in self._shares.items()}

    def train(self) -> None:
        """Set the base to training mode if it has one (schedule-free optimizers)."""
        self._set_mode("train")

    def eval(self) -> None:
        """Set the base to evaluation mode if it has one (schedule-free optimizers)."""
        self._set_mode("eval")

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer, in the format of torch, with all that the base saves.

        A strength that is a function is saved as its current value.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        self._share_state_with_base()
        saved = self.base.state_dict()
        for number, group in enumerate(saved["param_groups"]):
            group.update({name: current_strength(group, name, number) for name in STRENGTHS if callable(group[name])})
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            changed = post_hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer. Strengths that are functions in this optimizer remain functions.

        Args:
            state_dict: result of `state_dict`; options that an older version did not save keep their values.

        Raises:
            ValueError: if the number of groups or parameters differs, if `row_dim` or `blocks` do not fit, or, for
                bases of torch and `MuonAdamW`, if the state has another shape; nothing is changed then.
        """
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        original = self.param_groups, self.state
        self._share_state_with_base()
        try:
            self.base.load_state_dict(state_dict)
            self._check_shapes(self.base.state)
            self.param_groups, self.state = self.base.param_groups, self.base.state
            self._complete_groups(original[0])
        except Exception:
            self.param_groups, self.state = original
            self._share_state_with_base()
            raise
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle and deepcopy: that of torch, and the class and attributes of the base, without hooks."""
        attributes = {name: value for name, value in vars(self.base).items() if not name.startswith("_")}
        attributes |= self.base.__getstate__()
        own = {"base": (type(self.base), attributes), "seed_is_shared": self._is_seed_shared}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state that `__getstate__` returned."""
        own = ("base", "seed_is_shared")
        super().__setstate__({name: value for name, value in state.items() if name not in own})
        self._is_seed_shared = state.get("seed_is_shared", True)
        base_class, attributes = state["base"]
        self.base = base_class.__new__(base_class)
        self.base.__setstate__(attributes)
        self._shares = {}
        self._given = {"base": base_class, "seed": None}
        self._share_state_with_base()

    @eager
    def _layers(self) -> list[Layer]:
        """The layers that collide in this step.

        Raises:
            ValueError: if an option of a group has been set out of range.
            RuntimeError: if a gradient is sparse or complex.
        """
        if not self._is_seed_shared and any(map(draws_numbers, self.param_groups)):
            seed = seed_of_first_rank(self.param_groups[0]["collision_seed"])
            for group in self.param_groups:
                group["collision_seed"] = seed
            self._is_seed_shared = True
        layers, position = [], 0
        for number, group in enumerate(self.param_groups):
            check_options(group, f" of parameter group {number}")
            check_shapes(group, f" of parameter group {number}")
            strength = collision_strength(group, number)
            for p in group["params"]:
                layers.append(layer_of(p, group, number, position, strength))
                position += 1
        return [layer for layer in layers if layer is not None]

    @eager
    def _is_state_initialization(self) -> bool:
        """Whether this step had zero gradients and zero learning rates; such a step is not counted.

        torch.distributed.checkpoint makes such a step to create the state of an optimizer, each time it is saved.
        """
        rates = [group.get("lr", 1.0) for group in self.param_groups]  # a few optimizers have no lr
        if any((isinstance(lr, Tensor) and lr.device.type != "cpu") or float(lr) != 0 for lr in rates):
            return False
        gradients = (p.grad for group in self.param_groups for p in group["params"] if p.grad is not None)
        return not any(has_values(gradient) and bool(gradient.any()) for gradient in gradients)

    def _take_groups_of_base(self, groups: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
        """Use the groups of the base, into which it may have split `own`, and add the options of KO to them."""
        owner = {p: group for group in own for p in group["params"]} if len(own) > 1 else {}
        for group in groups:
            options = owner.get(group["params"][0], own[0]) if group["params"] else own[0]
            renamed = outer_group(group, _HIDDEN)
            group.clear()
            group.update(renamed | {name: options[name] for name in options if name in _HIDDEN})
        self.param_groups = self.base.param_groups

    def _complete_groups(self, before: list[dict[str, Any]]) -> None:
        """Add options that a loaded state dict lacks, and restore functions, of which it holds only the value."""
        for number, (group, own) in enumerate(zip(self.param_groups, before, strict=True)):
            for name in _HIDDEN:
                group.setdefault(name, own[name])
            group.update({name: own[name] for name in STRENGTHS if callable(own[name])})
            check_options(group, f" of parameter group {number}")
            check_shapes(group, f" of parameter group {number}")

    def _check_shapes(self, state: dict[Any, Any]) -> None:
        """Check that loaded moments have the shape of their parameter, for bases whose state names are known."""
        if not type(self.base).__module__.startswith(("torch.optim.", "ko.")):
            return
        for p, values in state.items():
            for name in _SHAPED_AS_PARAMETER & values.keys() if isinstance(p, Tensor) else ():
                value = values[name]
                if isinstance(value, Tensor) and value.shape != p.shape:
                    raise ValueError(
                        f"state: {name} has shape {tuple(value.shape)}, its parameter {tuple(p.shape)}; load the state "
                        "of an optimizer of the same model, with the parameters in the same order"
                    )

    def _share_state_with_base(self) -> None:
        self.base.param_groups, self.base.state = self.param_groups, self.state

    def _set_mode(self, mode: str) -> None:
        set_mode = getattr(self.base, mode, None)
        if set_mode is not None:
            self._share_state_with_base()
            set_mode()


@eager
def _set_gradients(gradients: Mapping[Tensor, Tensor | None]) -> None:
    for p, gradient in gradients.items():
        p.grad = gradient


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an integer in [0, 2^64) or None, not {seed!r}")
    return int(seed)
