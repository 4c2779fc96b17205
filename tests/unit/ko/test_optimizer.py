"""KO as a torch optimizer: parameters, state, hooks, random number generators and invalid input."""

import copy
import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lion
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ko import KO, MuonAdamW, collisions, rng

pytestmark = pytest.mark.usefixtures("device")

NAMES = ["sgd", "adam", "adamw", "nadamw", "radam", "rmsprop", "adagrad", "muon"]
BASES: list[Any] = [*NAMES, Lion]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    device = torch.get_default_device()
    x = torch.randn(8, 1, 4, 4, generator=generator, device="cpu").to(device)
    y = torch.randint(0, 3, (8,), generator=generator, device="cpu").to(device)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


def advance(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        backward(model, step)
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    p = nn.Parameter(torch.randn(shape, generator=generator, device="cpu").to(device))
    p.grad = torch.randn(shape, generator=generator, device="cpu").to(device)
    return p


class TestStep:
    @pytest.mark.parametrize("form", [{"gamma": 0.2}, {"gamma": 5.0, "bounded": True}])
    def test_soft_form_steps_along_the_collided_gradient(self, form: dict[str, Any]) -> None:
        p = parameter(5, 2, 3)
        before, grad = p.detach().clone(), p.grad.clone()  # type: ignore[union-attr]
        KO([p], lr=0.5, base="sgd", **form).step()
        collided = collisions.soft(before.flatten(1), grad.flatten(1), form["gamma"], form.get("bounded", False))
        torch.testing.assert_close(p.detach(), before - 0.5 * collided.view(5, 2, 3))

    def test_hard_form_draws_from_seed_step_and_position(self) -> None:
        p, q = parameter(6, 4), parameter(6, 4)
        optimizer = KO([p, q], lr=1.0, base="sgd", collision="hard", rate=50.0, seed=9)
        moved = []
        for step in range(2):
            for position, x in enumerate((p, q)):
                before, grad = x.detach().clone(), x.grad
                collided = collisions.hard(before, grad, 50.0, rng.key(9, step, position))
                moved.append(before - collided)
            optimizer.step()
            torch.testing.assert_close(p.detach(), moved[-2])
            torch.testing.assert_close(q.detach(), moved[-1])
        assert not torch.equal(moved[0], moved[1])  # equal weights and gradients at different positions

    @pytest.mark.parametrize("base", NAMES)
    def test_equals_the_base_without_collisions(self, base: str) -> None:
        classes: dict[str, Callable[..., Optimizer]] = {
            "sgd": SGD,
            "adam": Adam,
            "adamw": torch.optim.AdamW,
            "nadamw": lambda params, lr: torch.optim.NAdam(params, lr, decoupled_weight_decay=True, weight_decay=0.1),
            "radam": torch.optim.RAdam,
            "rmsprop": torch.optim.RMSprop,
            "adagrad": torch.optim.Adagrad,
            "muon": MuonAdamW,
        }
        a, b = network(), network()
        options = {"weight_decay": 0.1} if base == "nadamw" else {}
        advance(a, KO(a.parameters(), lr=0.01, base=base, collision="none", **options), range(3))
        advance(b, classes[base](b.parameters(), lr=0.01), range(3))
        assert torch.equal(weights(a), weights(b))

    @pytest.mark.parametrize("collision", ["soft", "hard"])
    @pytest.mark.parametrize("base", BASES)
    def test_collisions_change_the_step_of_every_base(self, base: Any, collision: str) -> None:
        a, b = network(), network()
        advance(a, KO(a.parameters(), lr=0.01, base=base, collision=collision, rate=100.0), range(3))
        advance(b, KO(b.parameters(), lr=0.01, base=base, collision="none"), range(3))
        assert weights(a).isfinite().all()
        assert not torch.allclose(weights(a), weights(b))

    @pytest.mark.parametrize("collision", ["soft", "hard"])
    def test_gradients_are_not_changed(self, collision: str) -> None:
        p = parameter(6, 4)
        grad = p.grad
        before = grad.clone()  # type: ignore[union-attr]
        KO([p], base="sgd", collision=collision, weight_decay=0.1).step()
        assert p.grad is grad
        assert torch.equal(p.grad, before)  # type: ignore[arg-type]

    def test_gradients_are_not_changed_if_the_base_raises(self) -> None:
        class Failing(SGD):
            def step(self, closure: Any = None) -> Any:
                raise RuntimeError("no")

        p = parameter(6, 4)
        grad = p.grad
        with pytest.raises(RuntimeError, match="no"):
            KO([p], base=Failing).step()
        assert p.grad is grad

    def test_vectors_single_rows_and_empty_tensors_do_not_collide(self) -> None:
        shapes: list[tuple[int, ...]] = [(4,), (), (1, 4), (0, 4), (4, 0)]
        params = [parameter(*shape) for shape in shapes]
        expected = [p.detach() - 0.1 * p.grad for p in params]  # type: ignore[operator]
        KO(params, lr=0.1, base="sgd", gamma=1.0).step()
        for p, value in zip(params, expected, strict=True):
            torch.testing.assert_close(p.detach(), value)

    def test_steps_with_none_zero_and_frozen_gradients(self) -> None:
        without, zero, frozen = parameter(3, 3), parameter(3, 3), parameter(3, 3)
        without.grad, frozen.grad = None, None
        zero.grad = torch.zeros(3, 3)
        frozen.requires_grad_(False)
        before = [p.detach().clone() for p in (without, zero, frozen)]
        for collision in ("soft", "hard"):
            KO([without, zero, frozen], collision=collision).step()
        for p, value in zip((without, zero, frozen), before, strict=True):
            assert torch.equal(p, value)

    @pytest.mark.parametrize("kind", ["sparse", "complex"])
    def test_raises_runtime_error_for_sparse_and_complex_gradients_and_changes_nothing(self, kind: str) -> None:
        first = parameter(3, 3)
        bad = nn.Parameter(torch.ones(4, 2, dtype=torch.complex64 if kind == "complex" else torch.float32))
        bad.grad = torch.ones_like(bad).to_sparse() if kind == "sparse" else torch.ones_like(bad)
        before = first.detach().clone()
        optimizer = KO([first, bad], base="sgd")
        with pytest.raises(RuntimeError, match=rf"{kind} gradient of parameter 1 \(group 0, shape \(4, 2\)\)"):
            optimizer.step()
        assert torch.equal(first, before)
        assert optimizer.param_groups[0]["collision_step"] == 0
        optimizer.param_groups[0]["collision"] = "none"
        optimizer.step()  # the base accepts both
        assert not torch.equal(first, before)

    def test_l2_penalty_is_added_after_the_collision(self) -> None:
        p = parameter(5, 3)
        before = p.detach().clone()
        expected = before - 0.1 * (collisions.soft(before, p.grad, 0.3) + 0.5 * before)  # type: ignore[arg-type]
        KO([p], lr=0.1, base="sgd", gamma=0.3, weight_decay=0.5).step()
        torch.testing.assert_close(p.detach(), expected)

    @pytest.mark.parametrize("collision", ["soft", "hard"])
    def test_maximize_collides_the_negated_gradient(self, collision: str) -> None:
        up, down = parameter(6, 4), parameter(6, 4)
        down.grad = -down.grad  # type: ignore[operator]
        for p, maximize in ((up, True), (down, False)):
            KO([p], collision=collision, rate=50.0, seed=1, maximize=maximize).step()
        assert torch.equal(up, down)

    def test_collides_channels_last_gradients(self) -> None:
        a, b = parameter(6, 3, 2, 2), parameter(6, 3, 2, 2)
        b.data = b.data.to(memory_format=torch.channels_last)
        b.grad = b.grad.to(memory_format=torch.channels_last)  # type: ignore[union-attr]
        for p in (a, b):
            KO([p], lr=0.1, base="sgd").step()
        torch.testing.assert_close(a, b)

    def test_closure_is_evaluated_once_with_grad_enabled(self) -> None:
        p = nn.Parameter(torch.ones(3, 2))
        optimizer = KO([p], lr=0.1, base="sgd")
        calls = []

        def closure() -> float:
            calls.append(torch.is_grad_enabled())
            optimizer.zero_grad()
            loss = p.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        assert optimizer.step(closure) == 6.0
        assert calls == [True]
        assert not torch.equal(p, torch.ones(3, 2))


class TestDescent:
    def test_bounded_form_with_plain_sgd_decreases_the_minibatch_loss(self) -> None:
        model = network()
        optimizer = KO(model.parameters(), lr=1e-3, base="sgd", gamma=100.0, bounded=True)
        x, y = torch.randn(32, 1, 4, 4), torch.randint(0, 3, (32,))
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        assert all(after < before for before, after in pairwise(losses))

    def test_bounded_form_with_adam_can_increase_the_loss_in_every_step(self) -> None:
        # 103 aligned rows, 100 with gradient 1 and 3 with gradient 5: the collision slightly reverses the 100, and Adam
        # scales them to the size of the others.
        slope = torch.tensor([1.0] * 100 + [5.0] * 3)[:, None]
        p = nn.Parameter(torch.full((103, 1), 100.0))  # far from zero, so that rows stay aligned
        optimizer = KO([p], lr=1e-2, base="adam", gamma=1.0, bounded=True)
        losses = []
        for _ in range(21):
            p.grad = slope.clone()
            losses.append(float((slope * p.detach()).sum()))
            optimizer.step()
        assert sum(after > before for before, after in pairwise(losses)) == 20

    def test_expected_loss_over_minibatches_can_increase(self) -> None:
        # Two aligned rows, mean gradients (0.1, 0), noise +-(0.02, 2). Each minibatch's own loss falls, but the second
        # row's noise adds 2 to the first row's sum in every minibatch: 0.1 * (0.1 - 0.475 * (0.1 + 2)) < 0.
        w = torch.ones(2, 1, dtype=torch.float64)
        mean = torch.tensor([[0.1], [0.0]], dtype=torch.float64)
        noise = torch.tensor([[0.02], [2.0]], dtype=torch.float64)
        batches = [mean + noise, mean - noise]
        moves = [collisions.soft(w, g, 100.0, bounded=True) for g in batches]
        assert all((g * move).sum() > 0 for g, move in zip(batches, moves, strict=True))
        expected_descent = (mean * (moves[0] + moves[1]) / 2).sum()
        assert float(expected_descent) == pytest.approx(0.1 * (0.1 - 0.475 * 2.1))


class TestRandomness:
    def test_global_generator_is_neither_advanced_nor_read(self) -> None:
        def train(reseed: int) -> Tensor:
            model = network()
            torch.manual_seed(3)
            optimizer = KO(model.parameters(), collision="hard", rate=100.0)  # seed None: 3
            torch.manual_seed(reseed)
            state = torch.get_rng_state()
            advance(model, optimizer, range(3))
            assert torch.equal(torch.get_rng_state(), state)
            return weights(model)

        assert torch.equal(train(4), train(5))

    def test_seed_none_uses_the_initial_seed(self) -> None:
        torch.manual_seed(1234)
        assert KO([parameter(2, 2)]).param_groups[0]["collision_seed"] == 1234

    def test_seeds_give_different_collisions(self) -> None:
        models = [network(), network()]
        for seed, model in enumerate(models):
            advance(model, KO(model.parameters(), collision="hard", rate=100.0, seed=seed), range(2))
        assert not torch.equal(*map(weights, models))


class TestState:
    @pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    @pytest.mark.parametrize("base", BASES)
    def test_copy_continues_identically_and_independently(self, base: Any, copier: Callable[[Any], Any]) -> None:
        model = network()
        optimizer = KO(model.parameters(), base=base, collision="hard", rate=100.0)
        advance(model, optimizer, range(2))
        other, other_optimizer = copier((model, optimizer))
        before = weights(model).clone()
        advance(other, other_optimizer, range(2, 4))
        assert torch.equal(weights(model), before)
        advance(model, optimizer, range(2, 4))
        assert torch.equal(weights(model), weights(other))

    def test_state_dict_without_ko_options_keeps_those_of_the_constructor(self) -> None:
        model = network()
        adam = Adam(model.parameters(), lr=0.5)
        advance(model, adam, range(2))
        optimizer = KO(model.parameters(), gamma=0.7, seed=5)
        optimizer.load_state_dict(adam.state_dict())
        group = optimizer.param_groups[0]
        assert (group["lr"], group["gamma"], group["collision_seed"], group["collision_step"]) == (0.5, 0.7, 5, 0)
        advance(model, optimizer, range(1))

    def test_groups_override_options_and_can_be_added_later(self) -> None:
        plain, soft, late = parameter(5, 3), parameter(5, 3), parameter(5, 3)
        optimizer = KO([{"params": [plain], "collision": "none"}, {"params": [soft], "gamma": 0.5}], 0.1, "sgd", seed=1)
        expected = [
            plain.detach() - 0.1 * plain.grad,  # type: ignore[operator]
            soft.detach() - 0.1 * collisions.soft(soft.detach(), soft.grad, 0.5),  # type: ignore[arg-type]
        ]
        optimizer.step()
        optimizer.add_param_group({"params": late, "collision": "hard", "rate": 60.0, "lr": 1.0})
        torch.testing.assert_close(plain.detach(), expected[0])
        torch.testing.assert_close(soft.detach(), expected[1])
        moved = late.detach() - collisions.hard(late.detach(), late.grad, 60.0, rng.key(1, 1, 2))  # type: ignore[arg-type]
        optimizer.step()
        torch.testing.assert_close(late.detach(), moved)
        assert [group["collision_step"] for group in optimizer.param_groups] == [2, 2, 2]

    def test_invalid_group_changes_nothing(self) -> None:
        p = parameter(2, 2)
        optimizer = KO([p])
        for group in ({"params": [parameter(2, 2)], "gamma": -1.0}, {"params": [p]}):
            with pytest.raises(ValueError, match=r"gamma|more than one parameter group"):
                optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1

    def test_schedulers_change_the_learning_rate_of_the_base(self) -> None:
        p = nn.Parameter(torch.zeros(3, 2))
        optimizer = KO([p], lr=1.0, base="sgd", collision="none")
        for scheduler in (StepLR(optimizer, 1, 0.5), CosineAnnealingLR(optimizer, 4)):
            lr, before = optimizer.param_groups[0]["lr"], p.detach().clone()
            p.grad = torch.ones_like(p)
            optimizer.step()
            torch.testing.assert_close(p.detach(), before - lr)
            scheduler.step()
            assert optimizer.param_groups[0]["lr"] < lr

    def test_hooks_are_called_once(self) -> None:
        calls: list[str] = []
        p = parameter(3, 3)
        for base in ("adam", "muon"):
            Adam([parameter(1)]).step()  # torch has wrapped the step of the base class, as in a real program
            optimizer = KO([p, parameter(3)] if base == "muon" else [p], base=base)
            handles = [
                register_optimizer_step_pre_hook(lambda o, *_: calls.append(f"global pre {type(o).__name__}")),
                register_optimizer_step_post_hook(lambda o, *_: calls.append(f"global post {type(o).__name__}")),
                optimizer.register_step_pre_hook(lambda *_: calls.append("pre")),
                optimizer.register_step_post_hook(lambda *_: calls.append("post")),
                optimizer.register_state_dict_post_hook(lambda *_: calls.append("saved")),
                optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("loaded")),
            ]
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
            for handle in handles:
                handle.remove()
            assert calls == ["global pre KO", "pre", "post", "global post KO", "saved", "loaded"]
            calls.clear()


class TestConstructor:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"collision": "elastic"}, ValueError, "collision: 'elastic' is not one of soft, hard, none"),
            ({"gamma": -0.1}, ValueError, "gamma"),
            ({"gamma": math.nan}, ValueError, "gamma"),
            ({"gamma": "1"}, ValueError, "gamma"),
            ({"rate": math.inf}, ValueError, "rate"),
            ({"rate": True}, ValueError, "rate"),
            ({"bounded": 1}, ValueError, "bounded"),
            ({"seed": -1}, ValueError, "seed"),
            ({"seed": 2**64}, ValueError, "seed"),
            ({"seed": 0.5}, ValueError, "seed"),
            ({"lr": -1.0}, ValueError, "learning rate"),
            ({"base": "lion"}, ValueError, "base: 'lion' is not one of sgd, adam"),
            ({"base": torch.optim.LBFGS}, ValueError, "base: LBFGS needs a closure"),
            ({"base": nn.Linear}, TypeError, "base: expected a name or a torch.optim.Optimizer class"),
            ({"base": 3}, TypeError, "base"),
            ({"base": "sgd", "betas": (0.9, 0.99)}, TypeError, "betas"),
        ],
    )
    def test_raises_error_that_names_the_argument(
        self, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            KO([parameter(2, 2)], **options)

    def test_raises_value_error_without_parameters(self) -> None:
        with pytest.raises(ValueError, match="empty parameter list"):
            KO([])

    def test_raises_value_error_for_invalid_group_option(self) -> None:
        with pytest.raises(ValueError, match="rate"):
            KO([{"params": [parameter(2, 2)], "rate": -1}])

    def test_accepts_named_parameters_and_tensor_lr(self) -> None:
        model = network()
        optimizer = KO(model.named_parameters(), lr=torch.tensor(0.1), base="muon")
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        advance(model, optimizer, range(1))

    def test_repr_shows_the_options(self) -> None:
        assert "gamma: 0.25" in repr(KO([parameter(2, 2)], gamma=0.25))
