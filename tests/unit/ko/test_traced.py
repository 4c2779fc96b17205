"""Steps on tensors without values: fake and meta tensors, graphs of `make_fx`, and tools that are built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.fx.experimental.proxy_tensor import make_fx

from ko import KO

FORMS: dict[str, dict[str, Any]] = {
    "soft": {},
    "bounded": {"bounded": True},
    "random batch": {"group_size": 4, "seed": 3},
    "hard": {"collision": "hard", "seed": 3},
    "none": {"collision": "none"},
    "muon": {"base": "muon"},
}
pytestmark = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 6))


def steps(parameters: Sequence[nn.Parameter], options: dict[str, Any]) -> KO:
    """Two steps with gradients that depend on the parameters."""
    optimizer = KO(parameters, lr=0.01, **options)
    for _ in range(2):
        for p in parameters:
            p.grad = (p.detach() * 3).sin()
        optimizer.step()
    return optimizer


def test_fake_tensors(options: dict[str, Any]) -> None:
    with FakeTensorMode():
        steps(list(model().parameters()), options)


def test_meta_tensors(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        steps(list(model().parameters()), options)


def test_state_of_a_meta_model(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        of_meta = model()
    state = get_optimizer_state_dict(of_meta, KO(of_meta.parameters(), lr=0.01, **options))
    assert set(state["state"]) == {name for name, _ in of_meta.named_parameters()}


def test_traced_graph_computes_the_same_step(options: dict[str, Any]) -> None:
    """Up to the order of additions: a graph keeps all candidate pairs of hard collisions."""
    values = [p.detach() for p in model().parameters()]

    def stepped(*tensors: Tensor) -> list[Tensor]:
        parameters = [nn.Parameter(tensor.clone()) for tensor in tensors]
        steps(parameters, options)
        return [p.detach() for p in parameters]

    graph = make_fx(stepped, tracing_mode="fake")(*values)
    with torch.no_grad():  # a graph does not record it
        torch.testing.assert_close(graph(*values), stepped(*values))


def test_memory_tracker(options: dict[str, Any]) -> None:
    tracked = model()
    optimizer = KO(tracked.parameters(), lr=0.01, **options)
    tracker = MemTracker()
    tracker.track_external(tracked, optimizer)
    with tracker:
        for p in tracked.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert sum(tracker.get_tracker_snapshot("peak")[torch.device("cpu")].values()) > 0
