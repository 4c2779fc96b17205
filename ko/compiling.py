"""Steps that are traced: decorators that keep functions out of `torch.compile`d graphs, and a check for values.

Only operations on tensors are compiled. The bookkeeping around them (parameter groups, state, hooks) runs as Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

F = TypeVar("F", bound=Callable[..., object])


def eager(function: F) -> F:
    """Exclude `function` and every function that it calls from compilation."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def eager_shallow(function: F) -> F:
    """Exclude `function` itself from compilation; functions that it calls may be compiled."""
    return cast(F, torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]


def has_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read; not in a compiled or traced graph, of a fake or of a meta tensor."""
    if torch.compiler.is_compiling() or tensor.device.type == "meta":
        return False
    return not isinstance(tensor, FakeTensor) and get_proxy_mode() is None
