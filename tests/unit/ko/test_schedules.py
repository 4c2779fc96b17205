"""Collision strengths that are functions of the number of completed steps."""

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ko import KO, Fade, collisions


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("cosine", [1.0, 0.8535533905932737, 0.5, 0.0, 0.0]), ("linear", [1, 0.75, 0.5, 0, 0]), ("step", [1, 1, 1, 0, 0])],
)
def test_fade_follows_its_shape(shape: Any, expected: list[float]) -> None:
    fade = Fade(3.0, 1.0, steps=8, shape=shape)
    assert [fade(step) for step in (0, 2, 4, 8, 100)] == pytest.approx([1 + 2 * x for x in expected])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1.0, "steps": 1}, "start"),
        ({"start": math.nan, "steps": 1}, "start"),
        ({"start": 0.1, "end": math.inf, "steps": 1}, "end"),
        ({"start": "x", "steps": 1}, "start: expected a finite number >= 0, not 'x'"),
        ({"start": 0.1, "steps": 0}, "steps"),
        ({"start": 0.1, "steps": 1.5}, "steps"),
        ({"start": 0.1, "steps": 1, "shape": "square"}, "shape: 'square' is not one of cosine, linear, step"),
    ],
)
def test_raises_value_error_that_names_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fade(**arguments)


class TestInKO:
    def parameter(self) -> nn.Parameter:
        generator = torch.Generator().manual_seed(0)
        p = nn.Parameter(torch.randn(6, 4, generator=generator))
        p.grad = torch.randn(6, 4, generator=generator)
        return p

    def test_each_step_uses_its_strength(self) -> None:
        p = self.parameter()
        fade = Fade(0.5, 0.0, steps=2, shape="linear")
        optimizer = KO([p], lr=0.1, base="sgd", gamma=fade)
        for gamma in (0.5, 0.25, 0.0, 0.0):
            expected = p.detach() - 0.1 * collisions.soft(p.detach(), p.grad, gamma)  # type: ignore[arg-type]
            optimizer.step()
            torch.testing.assert_close(p.detach(), expected)

    def test_accepts_any_function_of_the_step_in_any_group(self) -> None:
        faded, constant = self.parameter(), self.parameter()
        optimizer = KO(
            [{"params": [faded], "rate": lambda step: 50.0 * (step == 1)}, {"params": [constant], "collision": "none"}],
            lr=0.1,
            base="sgd",
            collision="hard",
            seed=0,
        )
        optimizer.step()
        assert torch.equal(faded, constant)  # rate 0 at step 0
        optimizer.step()
        assert not torch.equal(faded, constant)

    def test_state_dict_holds_numbers_and_loading_keeps_the_function(self) -> None:
        optimizer = KO([self.parameter()], gamma=Fade(0.4, 0.2, steps=4, shape="linear"))
        for _ in range(2):
            optimizer.step()
        saved = optimizer.state_dict()
        assert saved["param_groups"][0]["gamma"] == pytest.approx(0.3)
        resumed = KO([self.parameter()], gamma=Fade(0.4, 0.2, steps=4, shape="linear"))
        resumed.load_state_dict(saved)
        assert resumed.param_groups[0]["gamma"] == Fade(0.4, 0.2, steps=4, shape="linear")
        assert resumed.param_groups[0]["collision_step"] == 2
        constant = KO([self.parameter()])
        constant.load_state_dict(saved)
        assert constant.param_groups[0]["gamma"] == pytest.approx(0.3)

    def test_copy_continues_the_schedule(self) -> None:
        optimizer = KO([self.parameter()], gamma=Fade(0.4, steps=4))
        optimizer.add_param_group({"params": self.parameter(), "gamma": 0.25})
        optimizer.add_param_group({"params": self.parameter(), "gamma": Fade(0.9, steps=2)})
        for copied in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
            assert [group["gamma"] for group in copied.param_groups] == [Fade(0.4, steps=4), 0.25, Fade(0.9, steps=2)]

    def test_function_is_called_once_per_step_and_group(self) -> None:
        calls = []
        optimizer = KO([self.parameter(), self.parameter()], gamma=lambda step: calls.append(step) or 0.1)  # type: ignore[func-returns-value]
        calls.clear()
        optimizer.step()
        optimizer.step()
        assert calls == [0, 1]

    @pytest.mark.parametrize(
        ("gamma", "message"),
        [
            (Fade, "gamma: expected a function of the number of completed steps; it raised: .* 'steps'"),
            (lambda: 0.1, "gamma: expected a function of the number of completed steps; it raised:"),
            (lambda step: -1.0, r"gamma: expected a finite number >= 0, not -1\.0"),
            (lambda step: torch.tensor(0.1), "gamma: expected a finite number >= 0, not tensor"),
            (torch.tensor(True), "gamma: expected one real number, not a torch.bool"),
        ],
    )
    def test_constructor_raises_value_error_for_invalid_function(self, gamma: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            KO([self.parameter()], gamma=gamma)
        with pytest.raises(ValueError, match="parameter group 0"):
            KO([{"params": self.parameter(), "gamma": gamma}])

    def test_accepts_numpy_numbers(self) -> None:
        p = self.parameter()
        options: dict[str, Any] = {"gamma": np.float32(0.1), "group_size": np.int64(3), "seed": np.int64(3)}
        optimizer = KO([p], rate=np.int64(1), **options)
        optimizer.step()
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)  # accepts Python's built-in numbers only
        KO([p], gamma=lambda step: np.float32(0.1)).step()

    def test_state_dict_hooks_receive_numbers(self) -> None:
        optimizer = KO([self.parameter()], gamma=Fade(0.4, steps=4))
        gammas = []
        optimizer.register_state_dict_post_hook(lambda _, saved: gammas.append(saved["param_groups"][0]["gamma"]))
        optimizer.state_dict()
        assert gammas == [0.4]

    @pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "1"])
    def test_step_raises_value_error_for_strength_out_of_range_and_changes_nothing(self, bad: Any) -> None:
        p = self.parameter()
        before = p.detach().clone()
        optimizer = KO([p], lr=0.0, gamma=lambda step: bad if step == 1 else 0.1)
        optimizer.step()
        with pytest.raises(ValueError, match=r"gamma of parameter group 0: expected a finite number >= 0, not"):
            optimizer.step()
        assert torch.equal(p, before)
        assert optimizer.param_groups[0]["collision_step"] == 1

    def test_tensor_strength_can_be_changed_in_place(self) -> None:
        p = self.parameter()
        gamma = torch.tensor(0.0)
        optimizer = KO([p], lr=0.1, base="sgd", gamma=gamma)
        optimizer.step()
        gamma.fill_(0.5)
        expected = p.detach() - 0.1 * collisions.soft(p.detach(), p.grad, 0.5)  # type: ignore[arg-type]
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected)
        with pytest.raises(ValueError, match=r"gamma: expected one real number, not a torch\.float32 of shape \(2,\)"):
            KO([p], gamma=torch.ones(2))
