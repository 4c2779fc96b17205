"""Invalid input raises an error that names it before anything changes; unusual but valid input is accepted."""

import copy
import math
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lion
from torch import Tensor, nn

from ko import KO

pytestmark = pytest.mark.usefixtures("device")


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(shape, generator=generator, device="cpu").to(torch.get_default_device(), dtype))
    p.grad = torch.randn(shape, generator=generator, device="cpu").to(torch.get_default_device(), dtype)
    return p


def snapshot(optimizer: KO) -> tuple[list[Tensor], str]:
    """Copies of all tensors that the optimizer can change, and its options."""
    tensors = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    tensors += [v.clone() for values in optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
    return tensors, repr([{**group, "params": len(group["params"])} for group in optimizer.param_groups])


def assert_unchanged(optimizer: KO, expected: tuple[list[Tensor], str]) -> None:
    tensors, options = snapshot(optimizer)
    torch.testing.assert_close(tensors, expected[0], rtol=0, atol=0)
    assert options == expected[1]


class TestOptionsSetLater:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("gamma", -0.1, r"gamma of parameter group 1: expected a finite number >= 0, not -0\.1"),
            ("gamma", math.nan, "gamma of parameter group 1"),
            ("rate", math.inf, "rate of parameter group 1"),
            ("group_size", 1, "group_size of parameter group 1: expected an integer >= 2, not 1"),
            ("collision", "Soft", "collision of parameter group 1: 'Soft' is not one of soft, hard, none"),
            ("row_dim", 5, r"row_dim of parameter group 1: 5 is not a dimension of a parameter of shape \(4, 3\)"),
            (
                "blocks",
                3,
                r"blocks of parameter group 1: shape \(4, 3\) cannot be split into 3 equal matrices",
            ),
            ("collision_step", "x", "collision_step of parameter group 1: expected an integer >= 0, not 'x'"),
            ("collision_seed", -1, "collision_seed of parameter group 1: expected an integer >= 0, not -1"),
            ("bounded", 1, "bounded of parameter group 1: expected True or False, not 1"),
        ],
    )
    def test_step_raises_value_error_and_changes_nothing(self, name: str, value: Any, message: str) -> None:
        optimizer = KO([{"params": [parameter(3, 3)]}, {"params": [parameter(4, 3)]}])
        optimizer.step()
        optimizer.param_groups[1][name] = value
        before = snapshot(optimizer)
        with pytest.raises(ValueError, match=message):
            optimizer.step()
        assert_unchanged(optimizer, before)


class TestNames:
    @pytest.mark.parametrize("base", ["adam", Lion])
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("gama", 0.3, "gama.*: unknown option; did you mean 'gamma'"),
            ("colision", "hard", "colision.*: unknown option; did you mean 'collision'"),
            ("groupsize", 8, "groupsize.*: unknown option; did you mean 'group_size'"),
        ],
    )
    def test_misspelt_option_raises_value_error_with_suggestion(
        self, base: Any, name: str, value: Any, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            KO([parameter(3, 3)], base=base, **{name: value})

    @pytest.mark.parametrize(("name", "close"), [("gama", "gamma"), ("group_id", "group_size"), ("block", "blocks")])
    def test_unknown_option_of_group_is_a_warning(self, name: str, close: str) -> None:
        """Other libraries keep their own names in groups."""
        with pytest.warns(UserWarning, match=f"{name} of parameter group 0: unknown option; did you mean '{close}'"):
            optimizer = KO([{"params": parameter(3, 3), name: 3}])
        with pytest.warns(UserWarning, match=f"{name} of parameter group 1: unknown option"):
            optimizer.add_param_group({"params": parameter(3, 3), name: 4})
        assert [group[name] for group in optimizer.param_groups] == [3, 4]

    def test_misplaced_option_raises_error(self) -> None:
        with pytest.raises(ValueError, match="blocks: this option depends on the tensors; set it in a parameter group"):
            KO([parameter(4, 3)], blocks=2)
        with pytest.raises(ValueError, match="seed of parameter group 0: an optimizer has one seed for all groups"):
            KO([{"params": parameter(4, 3), "seed": 2}])
        with pytest.raises(ValueError, match="base of parameter group 0: an optimizer has one base for all groups"):
            KO([{"params": parameter(4, 3), "base": "adam"}], base="sgd")

    @pytest.mark.parametrize("base", ["sgd", torch.optim.SGD])
    def test_group_may_repeat_base_and_seed(self, base: Any) -> None:
        """Wrappers such as SAM and ZeroRedundancyOptimizer pass all arguments on in a group."""
        optimizer = KO([{"params": parameter(4, 3), "base": base, "seed": 2}], base=base, seed=2)
        optimizer.add_param_group({"params": parameter(4, 3), "base": base})
        copied = copy.deepcopy(optimizer)
        copied.add_param_group({"params": parameter(4, 3), "base": torch.optim.SGD})
        assert all("base" not in group and "seed" not in group for group in copied.param_groups)

    def test_differentiable_step_raises_value_error(self) -> None:
        with pytest.raises(ValueError, match="differentiable: KO changes gradients outside of the graph; use False"):
            KO([parameter(4, 3)], differentiable=True)
        with pytest.raises(ValueError, match="differentiable of parameter group 0"):
            KO([{"params": parameter(4, 3), "differentiable": True}])
        with pytest.raises(TypeError, match="param_group: expected a dict, not list"):
            KO([parameter(2, 2)]).add_param_group([1])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"base: 'Adam' is not one of .*did you mean 'adam'"):
            KO([parameter(2, 2)], base="Adam")

    def test_accepts_options_of_the_base(self) -> None:
        KO([{"params": parameter(3, 3), "betas": (0.8, 0.9)}], momentum_decay=1e-3, base="nadamw").step()


class TestGradients:
    @pytest.mark.parametrize("options", [{}, {"bounded": True}, {"group_size": 2}, {"collision": "hard"}])
    def test_nan_affects_its_own_row_only(self, options: dict[str, Any]) -> None:
        p = parameter(8, 4)
        assert p.grad is not None
        p.grad[3, 2] = math.nan
        KO([p], base="sgd", rate=50.0, **options).step()
        assert p.isnan().sum() == 1
        assert p[3, 2].isnan()


class TestRows:
    @pytest.mark.parametrize("options", [{}, {"bounded": True}, {"group_size": 2}, {"collision": "hard"}])
    def test_zero_rows_are_trained(self, options: dict[str, Any]) -> None:
        p = parameter(6, 4)
        with torch.no_grad():
            p[2] = 0
        KO([p], lr=0.1, base="sgd", **options).step()
        assert p.isfinite().all()
        assert p[2].any()


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("options", [{}, {"bounded": True}, {"group_size": 3}, {"collision": "hard", "rate": 50.0}])
    def test_half_precision_parameters_collide_in_float32(self, dtype: torch.dtype, options: dict[str, Any]) -> None:
        half, full = parameter(8, 6, dtype=dtype), parameter(8, 6)
        with torch.no_grad():
            full.copy_(half.float())
            full.grad = half.grad.float()  # type: ignore[union-attr]
        for p in (half, full):
            KO([p], lr=0.1, base="sgd", seed=1, **options).step()
        assert half.dtype == dtype
        # Rounding of the gradient and of the parameter, which are of size 3 at most.
        torch.testing.assert_close(half.float(), full, rtol=0, atol=3 * torch.finfo(dtype).eps)

    def test_bounded_form_does_not_overflow_near_the_float16_maximum(self) -> None:
        p = parameter(4, 3, dtype=torch.float16)
        p.grad = torch.full_like(p, 60_000.0)
        KO([p], lr=1e-5, base="sgd", bounded=True).step()
        assert p.isfinite().all()


class TestState:
    def test_loading_state_of_another_shape_raises_value_error(self) -> None:
        wide, narrow = KO([parameter(6, 4)]), KO([parameter(6, 3)])
        wide.step()
        narrow.step()
        before = snapshot(narrow)
        message = r"state: exp_avg(_sq)? has shape \(6, 4\), its parameter \(6, 3\); load the state of an optimizer"
        with pytest.raises(ValueError, match=message):
            narrow.load_state_dict(wide.state_dict())
        assert_unchanged(narrow, before)
        narrow.step()

    def test_loading_blocks_that_do_not_fit_raises_value_error(self) -> None:
        optimizer = KO([parameter(6, 4)])
        saved = KO([{"params": [parameter(8, 4)], "blocks": 4}]).state_dict()
        before = snapshot(optimizer)
        with pytest.raises(
            ValueError, match=r"blocks of parameter group 0: shape \(6, 4\) cannot be split into 4 equal"
        ):
            optimizer.load_state_dict(saved)
        assert_unchanged(optimizer, before)

    def test_ignores_rng_state_in_groups_of_another_optimizer(self) -> None:
        other = KO([parameter(3, 3)], seed=1)
        other.step()
        group = KO(other.param_groups, seed=9).param_groups[0]
        assert (group["collision_seed"], group["collision_step"]) == (9, 0)
        assert other.param_groups[0]["collision_seed"] == 1

    def test_loading_another_number_of_groups_raises_value_error(self) -> None:
        with pytest.raises(ValueError, match="different number of parameter groups"):
            KO([{"params": [parameter(2, 2)]}, {"params": [parameter(2, 2)]}]).load_state_dict(
                KO([parameter(2, 2)]).state_dict()
            )


class TestShares:
    def test_collision_shares_are_those_of_the_last_step(self) -> None:
        hit, missed, soft = parameter(40, 3), parameter(40, 3), parameter(40, 3)
        with torch.no_grad():
            hit.zero_()
            missed.mul_(1e4)
        optimizer = KO([{"params": [hit, missed]}, {"params": [soft], "collision": "soft"}], collision="hard", rate=1e9)
        assert optimizer.collision_shares() == {}
        optimizer.step()
        assert optimizer.collision_shares() == {hit: 1.0, missed: 0.0}
        optimizer.param_groups[0]["rate"] = 0.0
        optimizer.step()
        assert optimizer.collision_shares() == {}
