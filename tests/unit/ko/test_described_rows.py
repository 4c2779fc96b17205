"""Descriptions of rows that a model's modules do not tell: `stacked` and `rows`, and the warning that asks for them."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from ko import KO, param_groups
from tests.unit.ko.test_particles import Conv1D, tag_of


class Experts(nn.Module):
    """The experts of a mixture, stacked in one tensor."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.down_proj = nn.Parameter(torch.zeros(shape))


def test_matrices_stacked_beside_each_other_are_refused() -> None:
    """Otherwise the inputs of GPT-2's layers would be cut."""
    for module, name in ((Conv1D(12, 6), "weight"), (nn.ConvTranspose2d(6, 4, 2), "weight")):
        with pytest.raises(ValueError, match=r"stacked: weight is stored with its neurons in dimension 1"):
            param_groups(module, stacked={name: 3})


@pytest.mark.parametrize(("shape", "rows"), [((3, 6, 5), 1), ((3, 5, 6), 2)])
def test_experts_collide_as_layers_of_their_own(shape: tuple[int, ...], rows: int) -> None:
    torch.manual_seed(0)
    model = Experts(shape)
    groups = param_groups(model, stacked={"down_proj": 3}, rows={"*": rows})
    gradient = torch.randn(shape)
    model.down_proj.grad = gradient.clone()
    KO(groups, base="sgd", lr=1.0, collision="soft", gamma=0.5).step()
    alone = [nn.Parameter(expert.T.clone() if rows == 2 else expert.clone()) for expert in torch.zeros(shape)]
    for p, g in zip(alone, gradient, strict=True):
        p.grad = g.T.clone() if rows == 2 else g.clone()
    KO(alone, base="sgd", lr=1.0, collision="soft", gamma=0.5).step()
    expected = torch.stack([p.T if rows == 2 else p for p in alone])
    torch.testing.assert_close(model.down_proj.detach(), expected)


def test_stacked_alone_would_switch_the_collisions_of_experts_off() -> None:
    with pytest.raises(ValueError, match=r"stacked: each of the 3 matrices .* would have one row; .* with rows"):
        param_groups(Experts((3, 6, 5)), stacked={"*": 3})


def test_warns_of_tensors_that_may_stack_matrices() -> None:
    with pytest.warns(
        UserWarning,
        match=r'0\.down_proj \(and 1 more\) of shape \(3, 6, 5\) is read as 3 neurons\..*stacked=\{"0\.down_proj"',
    ):
        param_groups(nn.ModuleList([Experts((3, 6, 5)), Experts((3, 6, 5)), nn.Conv2d(2, 3, 3), nn.Bilinear(2, 3, 4)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        param_groups(Experts((3, 6, 5)), stacked={"*": 3}, rows={"*": 1})
        param_groups(Experts((3, 6, 5)), rows={"*": 0})
        param_groups(Experts((3, 6, 5)), rows={"*": None})
        param_groups(Experts((3, 6, 5)), collision="none")
        param_groups(Experts((1, 6, 5)))  # as position embeddings of transformers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"stacked": ["weight"]},
            r"stacked: expected a mapping from patterns of names to integers, not \['weight'\]",
        ),
        ({"stacked": {"weight": "4"}}, r"stacked: expected an integer for 'weight', not '4'"),
        ({"stacked": {"weight": None}}, r"stacked: expected an integer for 'weight', not None"),
        ({"rows": {"weight": True}}, r"rows: expected an integer for 'weight', not True"),
    ],
)
def test_wrong_types_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        param_groups(nn.Linear(3, 4), **options)


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(ValueError, match="stacked: rows says that weight must not collide"):
        param_groups(nn.Linear(3, 4), stacked={"weight": 2}, rows={"weight": None})


def test_rows_need_a_dimension_of_the_parameter() -> None:
    with pytest.raises(ValueError, match=r"rows: weight of shape \(4, 3\) has no dimension 2"):
        param_groups(nn.Linear(3, 4), rows={"weight": 2})
    with pytest.raises(ValueError, match=r"rows: 'x' matches no parameter"):
        param_groups(nn.Linear(3, 4), rows={"x": 1})
    assert tag_of(nn.Linear(3, 4), "weight", rows={"weight": 1}) == {"row_dim": 1}
    assert tag_of(nn.Linear(3, 4), "weight", rows={"weight": None}) == {"collision": "none"}
