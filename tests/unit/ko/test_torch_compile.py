"""`torch.compile` of KO's step: it equals the eager step, and changes between steps do not recompile it.

These tests use the "eager" backend, which covers Dynamo. Inductor would take minutes for all forms, so it compiles only
the random numbers, whose 64-bit products it must not fold.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from ko import Fade, collisions, rng
from ko.collisions import LayerBatch
from tests.devices import DEVICES
from tests.unit.ko.torch_infos import CASES, FORMS, set_gradients, values

pytestmark = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """Reset the compiled code before and after each test."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def change(group: dict[str, Any]) -> None:
    """Change the options that schedulers change between steps."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].mul_(0.9)
    for name in ("gamma", "rate"):
        if not callable(group[name]):
            group[name] *= 0.9


# Each form on a different kind of base; strengths that fade stay above 0.
COMPILED: list[tuple[str, dict[str, Any]]] = [
    ("adam-hard", {}),
    ("adamw-soft", {"gamma": Fade(0.5, end=0.1, steps=9)}),
    ("sgd-bounded", {"momentum": 0.9}),
    ("muon-random_batch", {}),
]


@pytest.mark.filterwarnings("ignore:.*record_function.*:UserWarning")
@pytest.mark.parametrize(("name", "options"), COMPILED, ids=[name for name, _ in COMPILED])
def test_can_be_compiled(name: str, options: dict[str, Any], device: str) -> None:
    case, compiles = CASES[name], CompileCounter()
    runs = []
    for _ in range(2):
        params = case.parameters(device)
        # A change of a tensor lr does not recompile torch's optimizers; Muon rounds with it in bfloat16.
        lr: Any = 0.01 if case.base == "muon" else torch.tensor(0.01)
        runs.append((params, case.build(params, lr=lr, **options)))
    compiled = torch.compile(runs[0][1].step, backend=compiles)
    steps = (compiled, runs[1][1].step)
    frames = []
    for step in range(5):
        for (params, optimizer), advance in zip(runs, steps, strict=True):
            set_gradients(params, step)
            advance()
            for group in optimizer.param_groups:
                change(group)
        frames.append(compiles.frame_count)
        torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-5, atol=1e-5)
    assert frames[0] >= 2  # the collisions and the base's step
    assert frames[1:] == [frames[1]] * 4  # SGD's momentum exists from the second step
    assert not counters["recompile_limit"]
    for group, other in zip(runs[0][1].param_groups, runs[1][1].param_groups, strict=True):
        assert (group["collision_step"], other["collision_step"]) == (5, 5)


@pytest.mark.parametrize("form", FORMS)
def test_collide_is_one_graph(form: str, device: str) -> None:
    compiles = CompileCounter()
    compiled = torch.compile(collisions.collide, fullgraph=True, backend=compiles)
    options = FORMS[form]
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        w, g = torch.randn(2, 1, 7, 5, generator=generator).to(device)
        is_hard = options["collision"] == "hard"
        batch = LayerBatch(
            w,
            g,
            torch.tensor((options["rate"] if is_hard else options["gamma"]) / (step + 1), dtype=torch.float64),
            torch.tensor([step + 3]),
            is_hard,
            options.get("bounded", False),
            options.get("group_size"),
        )
        torch.testing.assert_close(compiled([batch]), collisions.collide([batch]))
    assert compiles.frame_count == 1


def test_compiled_step_accepts_a_closure(device: str) -> None:
    case = CASES["sgd-soft"]
    results = []
    for backend in (None, "eager"):
        params = case.parameters(device)
        optimizer = case.build(params)
        step = optimizer.step if backend is None else torch.compile(optimizer.step, backend=backend)

        def closure(params: list[Any] = params) -> torch.Tensor:
            set_gradients(params, 0)
            return torch.tensor(3.0)

        assert float(step(closure)) == 3.0
        results.append(values(params))
    torch.testing.assert_close(*results)


@pytest.mark.full
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="Inductor needs a C++ compiler")
def test_inductor_computes_the_same_random_numbers(device: str) -> None:
    def bits(key: torch.Tensor) -> torch.Tensor:
        return rng.bits(key, torch.arange(7, device=device) + 9)

    key = torch.tensor([3], device=device)
    assert torch.equal(torch.compile(bits, fullgraph=True)(key), bits(key))
