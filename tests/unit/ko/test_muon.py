"""MuonAdamW: Muon for matrices, AdamW for the other parameters."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from ko import MuonAdamW


def filled(*shape: int, seed: int = 0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    p = nn.Parameter(torch.randn(shape, generator=generator))
    p.grad = torch.randn(shape, generator=generator)
    return p


def test_equals_torch_muon_for_matrices_and_torch_adamw_otherwise() -> None:
    params = [filled(6, 4), filled(6), filled(5, 7, seed=1)]
    reference = [filled(6, 4), filled(6), filled(5, 7, seed=1)]
    optimizer = MuonAdamW(params, lr=0.1, momentum=0.9, weight_decay=0.2, adamw_lr=0.03)
    muon = Muon([reference[0], reference[2]], lr=0.1, momentum=0.9, weight_decay=0.2)
    adamw = AdamW([reference[1]], lr=0.03, weight_decay=0.2)
    for _ in range(3):
        optimizer.step()
        muon.step()
        adamw.step()
    for a, b in zip(params, reference, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolutions_are_flattened(memory_format: torch.memory_format) -> None:
    conv, matrix = filled(6, 3, 2, 2), filled(6, 12)
    with torch.no_grad():
        matrix.copy_(conv.flatten(1))
    matrix.grad = conv.grad.flatten(1).clone()  # type: ignore[union-attr]
    conv.data = conv.data.to(memory_format=memory_format)
    optimizer, reference = MuonAdamW([conv]), Muon([matrix], lr=0.02, weight_decay=0.0)
    for _ in range(2):
        optimizer.step()
        reference.step()
    assert torch.equal(conv.flatten(1), matrix)


def test_use_muon_of_a_group_selects_the_algorithm() -> None:
    hidden, head, bias = filled(4, 4), filled(3, 4), filled(3)
    optimizer = MuonAdamW(
        [{"params": [hidden], "use_muon": True}, {"params": [head, bias], "use_muon": False}], lr=0.5, adamw_lr=0.25
    )
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    optimizer.step()
    assert [set(optimizer.state[p]) for p in (hidden, head, bias)] == [
        {"momentum_buffer"},
        {"step", "exp_avg", "exp_avg_sq"},
        {"step", "exp_avg", "exp_avg_sq"},
    ]


def test_group_without_use_muon_is_split_by_dimensions() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = MuonAdamW(model.named_parameters(), momentum=0.5)
    assert [(group["use_muon"], group["param_names"], group["momentum"]) for group in optimizer.param_groups] == [
        (True, ["0.weight", "1.weight"], 0.5),
        (False, ["0.bias", "1.bias"], 0.5),
    ]
    late = filled(5, 5)
    optimizer.add_param_group({"params": [("late", late)], "lr": 0.125})
    assert optimizer.param_groups[-1]["params"] == [late]
    assert (optimizer.param_groups[-1]["use_muon"], optimizer.param_groups[-1]["lr"]) == (True, 0.125)


@pytest.mark.parametrize("tensors", [[(4, 4)], [(4,)]])
def test_trains_with_matrices_only_or_without_matrices(tensors: list[tuple[int, ...]]) -> None:
    params = [filled(*shape) for shape in tensors]
    before = params[0].detach().clone()
    MuonAdamW(params).step()
    assert not torch.equal(params[0], before)


def test_schedulers_scale_both_in_proportion() -> None:
    optimizer = MuonAdamW([filled(3, 3), filled(3)], lr=0.4, adamw_lr=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.05]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_state_dicts_continue_identically(copier: Callable[[Any], Any]) -> None:
    params = [filled(4, 3, 2), filled(4)]
    optimizer = MuonAdamW(params)
    optimizer.step()
    loaded_params = copy.deepcopy(params)
    loaded = MuonAdamW(loaded_params, lr=1.0)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied_params, copied = copier((params, optimizer))
    for o, ps in ((optimizer, params), (loaded, loaded_params), (copied, copied_params)):
        for p in ps:
            p.grad = torch.ones_like(p)
        o.step()
    for a, b, c in zip(params, loaded_params, copied_params, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_skips_missing_and_empty_gradients() -> None:
    without, empty = filled(3, 3), filled(0, 3)
    without.grad = None
    before = without.detach().clone()
    MuonAdamW([without, empty]).step()
    assert torch.equal(without, before)


def test_step_returns_the_loss_of_the_closure() -> None:
    p = filled(3, 3)
    before = p.detach().clone()
    assert MuonAdamW([p]).step(lambda: 2.5) == 2.5
    assert not torch.equal(p, before)


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_raises_runtime_error_for_sparse_and_complex_gradients(kind: str) -> None:
    p = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64 if kind == "complex" else torch.float32))
    p.grad = torch.ones_like(p).to_sparse() if kind == "sparse" else torch.ones_like(p)
    with pytest.raises(RuntimeError, match="sparse or complex"):
        MuonAdamW([p]).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr"),
        ({"adamw_lr": math.nan}, "adamw_lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"ns_steps": 0}, "ns_steps"),
        ({"betas": (0.9, 1.0)}, "beta"),
        ({"eps": -1.0}, "epsilon"),
    ],
)
def test_raises_value_error_that_names_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MuonAdamW([filled(2, 2)], **options)


def test_invalid_group_changes_nothing() -> None:
    p = filled(2, 2)
    optimizer = MuonAdamW([p])
    for group, error in (
        ({"params": [filled(3)], "use_muon": True}, ValueError),
        ({"params": [filled(3)], "use_muon": 1}, ValueError),
        ({"params": [filled(3, 3), filled(3), p]}, ValueError),
        ({"params": {filled(3)}}, TypeError),
    ):
        with pytest.raises(error):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1
