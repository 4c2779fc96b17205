"""KO with every optimizer class of timm, pytorch_optimizer and schedulefree as its base.

Each class steps alone and under KO, or is listed in `UNFIT` with the reason; a change in support fails a test.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_optimizer
import schedulefree
import timm.optim
import torch
from pytorch_optimizer.optimizer import OPTIMIZERS
from timm.optim import OptimInfo
from timm.optim._optim_factory import default_registry
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from ko import KO

pytestmark = [
    pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum':UserWarning"),
    pytest.mark.filterwarnings("ignore:you need to install `transformers`:ImportWarning"),
]


class Unfit(NamedTuple):
    """Why a class does not work as a base on the parameters of a model, and the error that it raises."""

    reason: str
    error: type[Exception]
    message: str
    at_construction: bool = True


NEEDS_CLOSURE = Unfit("evaluates the model itself", ValueError, "needs a closure")
NEEDS_GRAPH = Unfit("differentiates the gradients, which KO detaches", RuntimeError, "does not require grad", False)
NEEDS_MODEL = Unfit("needs the model", AttributeError, "no attribute '(named_)?parameters'")
NEEDS_USE_MUON = Unfit("needs use_muon in its groups", ValueError, "`use_muon` must be set")
WRAPS = Unfit("wraps another optimizer", (ValueError, TypeError), "base: ")  # type: ignore[arg-type]

UNFIT: dict[str, Unfit] = {
    "torch.LBFGS": NEEDS_CLOSURE,
    "pytorch_optimizer.AliG": NEEDS_CLOSURE,
    "schedulefree.AdamWScheduleFreeClosure": NEEDS_CLOSURE,
    "schedulefree.RAdamScheduleFreeClosure": NEEDS_CLOSURE,
    "schedulefree.SGDScheduleFreeClosure": NEEDS_CLOSURE,
    "timm.Adahessian": NEEDS_GRAPH,
    "pytorch_optimizer.AdaHessian": NEEDS_GRAPH,
    "pytorch_optimizer.SophiaH": NEEDS_GRAPH,
    "pytorch_optimizer.AdaLOMO": NEEDS_MODEL,
    "pytorch_optimizer.AdamMini": NEEDS_MODEL,
    "pytorch_optimizer.LOMO": NEEDS_MODEL,
    "pytorch_optimizer.AdaGO": NEEDS_USE_MUON,
    "pytorch_optimizer.AdaMuon": NEEDS_USE_MUON,
    "pytorch_optimizer.DistributedMuon": NEEDS_USE_MUON._replace(reason="needs use_muon and a process group"),
    "pytorch_optimizer.Muon": NEEDS_USE_MUON,
    "pytorch_optimizer.MuonClip": NEEDS_USE_MUON,
    "pytorch_optimizer.NorMuon": NEEDS_USE_MUON,
    "pytorch_optimizer.Magma": WRAPS,
    "schedulefree.ScheduleFreeWrapper": WRAPS,
    "schedulefree.ScheduleFreeWrapperReference": WRAPS,
    "pytorch_optimizer.BSAM": NEEDS_CLOSURE,
    "pytorch_optimizer.Ranger21": Unfit("needs num_iterations", TypeError, "'num_iterations'"),
    "pytorch_optimizer.SpectralSphere": Unfit(
        "accepts matrices only", ValueError, "only supports 2D parameters", False
    ),
    "pytorch_optimizer.DeMo": Unfit("needs the package einops", ImportError, "einops"),
}

# Classes that leave the weights unchanged in their first steps, and the number of steps to make.
SLOW = {
    "pytorch_optimizer.AdaShift": 12,
    "pytorch_optimizer.RAdam": 8,
    "pytorch_optimizer.ScheduleFreeRAdam": 8,
    "schedulefree.RAdamScheduleFree": 8,
}
STEPS = 3

# Classes that determine their learning rate themselves, or do not use it within these steps.
SELF_PACED = {
    "pytorch_optimizer.A2Grad",
    "pytorch_optimizer.AdaFactor",
    "pytorch_optimizer.ApolloDQN",
    "pytorch_optimizer.DAdaptSGD",
}

# SaRA trains only weights below the threshold at the start; this one includes all.
OPTIONS: dict[str, dict[str, Any]] = {"pytorch_optimizer.SaRA": {"threshold": 10.0}}


def available_classes() -> dict[str, type[Optimizer]]:
    """All optimizer classes of the three libraries that can be imported, by "library.Class"."""
    classes: set[Any] = {
        pytorch_optimizer.load_optimizer(name) for name in pytorch_optimizer.get_supported_optimizers()
    }
    for name in timm.optim.list_optimizers():
        info = timm.optim.get_optimizer_info(name)
        if not (isinstance(info.opt_class, str) and info.opt_class.startswith(("apex.", "bitsandbytes."))):  # GPUs only
            classes.add(timm.optim.get_optimizer_class(name, bind_defaults=False))
    classes |= {
        getattr(schedulefree, name) for name in dir(schedulefree) if isinstance(getattr(schedulefree, name), type)
    }
    return {
        f"{c.__module__.partition('.')[0]}.{c.__name__}": c
        for c in sorted(classes, key=lambda c: (c.__module__, c.__qualname__))
    }


CLASSES = available_classes()
FIT = [name for name in CLASSES if name not in UNFIT]
seed = torch.default_generator.manual_seed  # `torch.manual_seed` formats the stack, too: a fifth of these tests' time


def network() -> nn.Sequential:
    seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def advance(model: nn.Module, optimizer: Optimizer, steps: range, scheduler: Any = None) -> None:
    for draw in (random.seed, np.random.seed, seed):  # some classes draw from global generators
        draw(steps.start)
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        model.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def build(name: str, model: nn.Module, collision: str | None, **options: Any) -> Any:
    """The class on the parameters of the model, or KO on the class if `collision` is given, in training mode."""
    seed(1)
    options = {"lr": 0.01, **OPTIONS.get(name, {}), **options}
    build_optimizer: Callable[..., Any] = CLASSES[name]
    if collision is not None:
        options |= {"base": build_optimizer, "collision": collision, "gamma": 0.5, "seed": 5}
        build_optimizer = KO
    optimizer = build_optimizer(list(model.parameters()), **options)
    getattr(optimizer, "train", lambda: None)()  # schedule-free optimizers require it
    return optimizer


@functools.cache
def trained(name: str, collision: str | None, scheduled: bool = False) -> Tensor:
    model = network()
    optimizer = build(name, model, collision)
    scheduler = StepLR(optimizer, 1, 0.25) if scheduled else None
    advance(model, optimizer, range(SLOW.get(name, STEPS)), scheduler)
    return weights(model)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(autouse=True)
def no_compiler() -> Iterator[None]:
    """Disable the compiler: timm's Kron compiles its step, which takes half a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("name", FIT)
class TestFit:
    def test_equals_the_base_without_collisions_and_follows_schedulers(self, name: str) -> None:
        plain = trained(name, "none")
        assert torch.equal(plain, trained(name, None))
        if name != "pytorch_optimizer.A2Grad":  # no scheduler accepts it
            scheduled = trained(name, "none", scheduled=True)
            assert torch.equal(scheduled, trained(name, None, scheduled=True))
            assert torch.equal(scheduled, plain) == (name in SELF_PACED)

    def test_soft_collisions_change_the_training(self, name: str) -> None:
        collided = trained(name, "soft")
        assert collided.isfinite().all()
        assert not torch.equal(collided, trained(name, "none"))

    def test_training_continues_after_saving_and_loading(self, name: str) -> None:
        model = network()
        optimizer = build(name, model, "soft")
        advance(model, optimizer, range(3))
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        other = network()
        resumed = build(name, other, "soft")
        other.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        advance(model, optimizer, range(3, 5))
        advance(other, resumed, range(3, 5))
        assert torch.equal(weights(other), weights(model))


@pytest.mark.parametrize("name", UNFIT)
def test_unsupported_class_fails_with_its_documented_reason(name: str) -> None:
    unfit = UNFIT[name]
    model = network()
    if unfit.at_construction:
        with pytest.raises(unfit.error, match=unfit.message):
            build(name, model, "soft")
    else:
        optimizer = build(name, model, "soft")
        with pytest.raises(unfit.error, match=unfit.message):
            advance(model, optimizer, range(STEPS))


def test_tables_contain_every_available_class() -> None:
    assert set(CLASSES) >= UNFIT.keys() | SLOW.keys() | OPTIONS.keys() | SELF_PACED
    assert len(FIT) > 130


class TestWithRequiredArguments:
    """Classes that need more than the parameters of a model."""

    @pytest.mark.parametrize("name", [name for name, unfit in UNFIT.items() if unfit is NEEDS_USE_MUON])
    def test_trains_with_use_muon_in_the_groups(self, name: str) -> None:
        def trained(build: Callable[..., Optimizer], **options: Any) -> Tensor:
            model = network()
            groups = [
                {
                    "params": [p for p in model.parameters() if (p.ndim > 1) == use_muon],
                    "use_muon": use_muon,
                    "lr": 0.01,
                }
                for use_muon in (True, False)
            ]
            torch.manual_seed(1)
            advance(model, build(groups, lr=0.01, **options), range(STEPS))
            return weights(model)

        base_class: Any = CLASSES[name]
        alone, none, soft = (
            trained(base_class),
            *(trained(KO, base=base_class, collision=c, gamma=0.5) for c in ("none", "soft")),
        )
        assert torch.equal(none, alone)
        assert not torch.equal(soft, alone)

    def test_trains_with_required_arguments(self) -> None:
        results = []
        for with_ko in (False, True):
            model = network()
            options: dict[str, Any] = {"lr": 0.01, "num_iterations": 10}
            base = pytorch_optimizer.Ranger21
            optimizer = (
                KO(model.parameters(), base=base, collision="none", **options)
                if with_ko
                else base(model.parameters(), **options)
            )
            advance(model, optimizer, range(STEPS))
            results.append(weights(model))
        assert torch.equal(*results)

    def test_trains_with_matrices_only(self) -> None:
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False))
        before = weights(model).clone()
        advance(model, build("pytorch_optimizer.SpectralSphere", model, "soft"), range(STEPS))
        assert not torch.equal(weights(model), before)


class TestScheduleFree:
    @pytest.mark.parametrize("name", [name for name in FIT if "schedulefree" in name.lower().replace("_", "")])
    def test_train_and_eval_set_the_mode_of_the_base(self, name: str) -> None:
        points_per_optimizer = []
        for collision in (None, "none"):
            model = network()
            optimizer = build(name, model, collision)
            points = []
            for mode in (None, "eval", "train", "train", "eval"):
                if mode is None:
                    advance(model, optimizer, range(SLOW.get(name, STEPS)))
                else:
                    getattr(optimizer, mode)()
                points.append(weights(model).clone())
            points_per_optimizer.append(points)
        assert all(map(torch.equal, *points_per_optimizer))
        trained_at, averaged, train_mode, train_mode_again, eval_mode_again = points_per_optimizer[1]
        assert not torch.equal(trained_at, averaged)
        torch.testing.assert_close(train_mode, trained_at)
        assert torch.equal(train_mode_again, train_mode)
        torch.testing.assert_close(eval_mode_again, averaged)

    def test_train_and_eval_have_no_effect_on_bases_without_modes(self) -> None:
        model = network()
        optimizer = KO(model.parameters())
        before = weights(model).clone()
        optimizer.eval()
        optimizer.train()
        assert torch.equal(weights(model), before)


class TestFactories:
    def test_registers_in_timm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(default_registry, "_optimizers", dict(default_registry._optimizers))  # undone afterwards
        default_registry.register(OptimInfo("ko", KO))
        model = network()
        optimizer = timm.optim.create_optimizer_v2(model, opt="ko", lr=1e-3, weight_decay=0.05, base="adamw")
        assert isinstance(optimizer, KO)
        assert sorted((group["lr"], group["weight_decay"]) for group in optimizer.param_groups) == [
            (1e-3, 0),
            (1e-3, 0.05),
        ]
        assert loss_decreases(model, optimizer)
        assert isinstance(timm.optim.create_optimizer_v2(model, opt="ko", lr=1e-3, weight_decay=0.05), KO)

    def test_registers_in_pytorch_optimizer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(OPTIMIZERS, "ko", KO)  # OPTIMIZERS["ko"] = KO, undone afterwards
        model = network()
        optimizer = pytorch_optimizer.create_optimizer(model, "ko", lr=1e-3, weight_decay=0.05, base="adamw")
        assert isinstance(optimizer, KO)
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
        assert loss_decreases(model, optimizer)
        assert pytorch_optimizer.load_optimizer("ko") is KO


def loss_decreases(model: nn.Module, optimizer: Optimizer) -> bool:
    """Whether the loss decreases in each of five steps."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses == sorted(losses, reverse=True)
