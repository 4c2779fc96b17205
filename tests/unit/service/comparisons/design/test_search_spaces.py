"""Search spaces: points of the Halton sequence, grids and invalid ranges."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import qmc

from service.comparisons.design.search_spaces import dimensions, grid, points, radical_inverse
from service.specs.search_space import Range

LR = Range(log_uniform=(1e-4, 1e-1))


def test_halton_sequence_agrees_with_scipy():
    reference = qmc.Halton(3, scramble=False).random(65)[1:]  # scipy starts at the origin
    computed = np.array([[radical_inverse(index, base) for base in (2, 3, 5)] for index in range(1, 65)])
    np.testing.assert_allclose(computed, reference, atol=1e-12)


def test_shared_parameters_have_equal_values():
    adam = {"lr": LR}
    ko = {"gamma": Range(log_uniform=(0.01, 1.0)), "lr": LR}
    names = dimensions([adam, ko])
    assert names == ["lr", "gamma"]
    assert [point["lr"] for point in points(adam, names, 8, 0)] == [point["lr"] for point in points(ko, names, 8, 0)]


def test_points_fill_range_evenly_on_log_scale():
    rates = [point["lr"] for point in points({"lr": LR}, ["lr"], 32, 0)]
    counts, _ = np.histogram(np.log10(rates), bins=8, range=(-4, -1))
    assert (counts == 4).all()


def test_seeds_give_different_values():
    first, second = (points({"lr": LR}, ["lr"], 4, seed) for seed in (0, 1))
    assert not {point["lr"] for point in first} & {point["lr"] for point in second}


def test_points_are_distinct():
    two = {"lr": Range(choice=[0.1, 0.2])}
    assert sorted(point["lr"] for point in points(two, ["lr"], 8, 0)) == [0.1, 0.2]
    assert len(points({"lr": Range(uniform=(0.001, 0.00100000001))}, ["lr"], 4, 0)) == 1
    assert {point["n"] for point in points({"n": Range(integer=(1, 5))}, ["n"], 5, 0)} == {1, 2, 3, 4, 5}


def test_choice_distinguishes_true_from_1():
    assert Range(choice=[True, 1, False, 0]).choice == [True, 1, False, 0]


def test_values_have_few_digits():
    assert all(len(f"{point['lr']:g}") <= 9 for point in points({"lr": LR}, ["lr"], 50, 0))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (LR, 0.0, 1e-4),
        (LR, 0.5, 0.003162),
        (Range(uniform=(0.1, 0.9)), 0.5, 0.5),
        (Range(integer=(1, 3)), 0.0, 1),
        (Range(integer=(1, 3)), 0.999, 3),
        (Range(choice=["soft", "hard"]), 0.4, "soft"),
        (Range(choice=["soft", "hard"]), 0.5, "hard"),
    ],
)
def test_value_at_share_of_range(values, share, expected):
    assert values.at(share) == expected


def test_grid_has_each_combination():
    space = {"lr": Range(choice=[0.1, 0.2]), "gamma": Range(choice=[1, 2, 3])}
    assert len(grid(space)) == 6
    assert {"lr": 0.2, "gamma": 3} in grid(space)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "exactly one"),
        ({"uniform": [0, 1], "log_uniform": [0.1, 1]}, "exactly one"),
        ({"uniform": [1, 1]}, "not less than"),
        ({"log_uniform": [0, 1]}, "above 0"),
        ({"log_uniform": [1]}, "uniform"),
        ({"uniform": [0, float("nan")]}, "finite"),
        ({"choice": []}, "at least 1"),
        ({"integer": [1.5, 2]}, "integer"),
        ({"choice": [0.001, 1e-3]}, "0.001 is listed more than once"),
        ({"choice": [1, 1.0]}, "more than once"),
        ({"choice": [[1, 2], [1, 2]]}, "more than once"),
        ({"integer": [10**400, 10**401]}, "less than or equal to 9007199254740992"),
        ({"integer": [0, 2**53 + 1]}, "less than or equal to 9007199254740992"),
        ({"uniform": [-1.7e308, 1.7e308]}, "greater than or equal to -1000"),
        ({"log_uniform": [1e-9, 1e101]}, "less than or equal to 1000"),
        ({"log": [1, 2]}, "log"),
    ],
)
def test_rejects_invalid_range(document, message):
    with pytest.raises(ValidationError, match=message):
        Range.model_validate(document)
