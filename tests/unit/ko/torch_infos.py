"""torch's test tables of its optimizers, as tables of KO: KO has the inputs and errors of its base.

Omitted, because not applicable:

- `capturable` and `fused` on a CPU: the tables have them for GPUs only, where they are inputs of KO as well. A separate
  test checks that KO passes `fused` to the base.
- `differentiable`: KO detaches the gradients that it collides; torch's tables leave it out of the inputs as well.
- `ns_coefficients` and `adjust_lr_fn` of Muon, and its error for tensors that are not 2-D, with `base="muon"`, which is
  `MuonAdamW`: it lacks these options and accepts any tensor. They are tested with the class `Muon` as a base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    optim_db,
)

from ko import KO, bases

# torch's test support freezes the backend flags of the whole process, which would affect other tests.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

ENTRIES = {info.optim_cls: info for info in optim_db}

# High rates, so that pairs collide although rows of tiny tensors are far apart.
FORMS: dict[str, dict[str, Any]] = {
    "soft": {"collision": "soft", "gamma": 0.1},
    "bounded": {"collision": "soft", "gamma": 2.0, "bounded": True},
    "hard": {"collision": "hard", "rate": 20.0},
    "random_batch": {"collision": "soft", "gamma": 0.1, "group_size": 2},
}

# The classes of torch that KO has no name for and that step without a closure and with dense gradients.
OTHERS = [
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.Muon,
    torch.optim.Rprop,
]


class Case(NamedTuple):
    """KO with one base and one collision form."""

    base: str | type[torch.optim.Optimizer]
    form: str
    torch_info: OptimizerInfo  # of the base
    info: OptimizerInfo  # of KO on it

    def inputs(self, device: str) -> list[dict[str, Any]]:
        """Keyword arguments of KO, one dict per input of the base; tensors are copied."""
        return [dict(entry.kwargs) for entry in self.info.optim_inputs_func(device=device)]

    def build(self, params: Any, **options: Any) -> KO:
        """KO in this form with the defaults of the base, except for `options`."""
        return KO(params, **{"base": self.base, "seed": 5, **FORMS[self.form], **options})

    def base_alone(self, params: Any, **options: Any) -> torch.optim.Optimizer:
        """The base without KO, with the default learning rate of KO."""
        base_class, implied = bases.resolve(self.base)
        build: Callable[..., torch.optim.Optimizer] = base_class
        return build(params, **{"lr": 1e-3, **implied, **options})

    def parameters(self, device: str, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
        """Two matrices of one shape, a channels-last convolution and a bias; for Muon matrices only."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(5, 3), (5, 3), (6, 4)] if self.base is torch.optim.Muon else [(5, 3), (5, 3), (6, 2, 2, 1), (5,)]
        tensors = [torch.randn(shape, generator=generator, dtype=dtype).to(device) for shape in shapes]
        return [
            nn.Parameter(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)  # the memory order of a network
            for x in tensors
        ]


def _case(base: str | type[torch.optim.Optimizer], form: str) -> Case:
    entry = ENTRIES[torch.optim.Muon if base == "muon" else bases.resolve(base)[0]]
    older = ENTRIES[torch.optim.AdamW] if base == "muon" else entry  # its AdamW half has older state dicts

    def inputs(device: str, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
        own = {"base": base, "seed": 5, **FORMS[form]}
        return [
            OptimizerInput(params=item.params, kwargs={**own, **item.kwargs}, desc=item.desc)
            for item in entry.optim_inputs_func(device=device)
            if base != "muon" or not item.kwargs.keys() & {"ns_coefficients", "adjust_lr_fn"}
        ]

    def error_inputs(device: str, dtype: torch.dtype) -> list[ErrorOptimizerInput]:
        errors = entry.optim_error_inputs_func(device, dtype)
        for error in errors:
            error.optimizer_error_input.kwargs.update({"base": base, **FORMS[form]})
        return [e for e in errors if base != "muon" or not _of_muon_alone(e)] + own_errors(device, base)

    info = OptimizerInfo(
        KO,
        optim_inputs_func=inputs,
        optim_error_inputs_func=error_inputs,
        scheduler_inputs=entry.scheduler_inputs,
        supported_impls=("foreach",),
        not_og_supported_flags=(*older.not_og_supported_flags, "group_size", "row_dim", "blocks"),
        supports_sparse=False,
        supports_complex=False,
        supports_fused_on=entry.supports_fused_on,
    )
    return Case(base, form, entry, info)


def _of_muon_alone(error: ErrorOptimizerInput) -> bool:
    return error.optimizer_error_input.desc in {
        "only support 2D parameters",
        "unsupported adjust_lr_fn",
        "does not support complex parameters",  # MuonAdamW rejects them with its own message
    }


def own_errors(device: str, base: Any) -> list[ErrorOptimizerInput]:
    """Errors of KO itself, in addition to those in tests/unit/ko/test_optimizer.py."""

    def matrix(**options: Any) -> list[dict[str, Any]]:
        p = nn.Parameter(torch.ones(4, 4, device=device))
        p.grad = torch.ones_like(p)
        return [{"params": [p], **options}]

    flattened, sparse = matrix(), matrix()
    flattened[0]["params"][0]._is_flat_param = True
    sparse[0]["params"][0].grad = torch.ones(4, 4, device=device).to_sparse()
    at_construction: list[tuple[Any, dict[str, Any], str]] = [
        (None, {"gamma": torch.ones(2)}, r"gamma: expected one real number"),
        (None, {"gamma": torch.tensor(-1.0)}, r"gamma: expected a finite number >= 0"),
        (None, {"gamma": lambda step: -1.0}, r"gamma: expected a finite number >= 0"),
        (None, {"group_size": 1}, r"group_size: expected an integer >= 2"),
        (None, {"foreach": 1}, r"foreach: expected True, False or None"),
        (None, {"seed": True}, r"seed: expected an integer"),
        (matrix(row_dim=-1), {}, r"row_dim of parameter group 0: expected"),
        (matrix(row_dim=2), {}, r"row_dim of parameter group 0: 2 is not a dimension"),
        (matrix(blocks=0), {}, r"blocks of parameter group 0: expected"),
        (matrix(blocks=3), {}, r"blocks of parameter group 0: shape \(4, 4\)"),
        (flattened, {}, r"params of parameter group 0: FullyShardedDataParallel has flattened"),
    ]
    at_step: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (sparse, {}, RuntimeError, r"KO cannot collide the sparse gradient of parameter 0 \(group 0"),
    ]
    construction_errors = [
        (OptimizerErrorEnum.CONSTRUCTION_ERROR, *entry[:2], ValueError, entry[2]) for entry in at_construction
    ]
    return [
        ErrorOptimizerInput(
            OptimizerInput(params=params, kwargs={"base": base, **kwargs}, desc=message),
            error_on=when,
            error_type=error,
            error_regex=message,
        )
        for when, params, kwargs, error, message in [
            *construction_errors,
            *((OptimizerErrorEnum.STEP_ERROR, *e) for e in at_step),
        ]
    ]


def _name(base: Any) -> str:
    return base if isinstance(base, str) else base.__name__


CASES = {f"{base}-{form}": _case(base, form) for base in bases.BASES for form in FORMS}
CASES |= {f"{base.__name__}-soft": _case(base, "soft") for base in OTHERS}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
"""Every base in every form."""

_SOFT = {_name(case.base): case for case in CASES.values() if case.form == "soft"}
every_base = pytest.mark.parametrize("case", _SOFT.values(), ids=_SOFT.keys())
"""Every base in the soft form, for tests that do not depend on the form."""


def set_gradients(params: list[nn.Parameter], step: int) -> None:
    """Set gradients that are a function of the step, of the size of the parameters."""
    generator = torch.Generator().manual_seed(step)
    for p in params:
        gradient = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
        p.grad = torch.empty_like(p).copy_(gradient)


def advance(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    """Make steps with the gradients of `set_gradients`."""
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def values(params: list[nn.Parameter]) -> list[Tensor]:
    """Copies of the values of the parameters."""
    return [p.detach().clone() for p in params]
