"""One colour for an optimizer, and no two that look the same."""

import random
from itertools import pairwise

import pytest

from service.comparisons.styles import plot_styles
from service.specs.catalog.optimizers import BLUE, COLOURS, GREEN, GREY, OCHRE, OPTIMIZERS, ORANGE, SKY


def colours(*names: str) -> list[int]:
    return [look.colour for look in plot_styles([(f"{place}", name) for place, name in enumerate(names)]).values()]


def test_every_optimizer_of_the_catalog_has_a_colour_and_every_colour_an_optimizer() -> None:
    assert {entry.colour for entry in OPTIMIZERS.values()} == set(range(COLOURS))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ko", "adam", "sgd"], [BLUE, ORANGE, GREEN]),
        (["sgd", "ko", "adam"], [GREEN, BLUE, ORANGE]),
        (["ko", "ko", "adam", "ko"], [BLUE, GREY, ORANGE, SKY]),
        (["radam", "adam", "ko"], [ORANGE, GREY, BLUE]),
        (["adam", "ko", "ko", "sgd", "adamw"], [ORANGE, BLUE, GREY, GREEN, OCHRE]),
        (["of another version", "sgd"], [GREY, GREEN]),
        ([], []),
    ],
)
def test_the_first_of_a_name_has_its_colour_and_the_others_what_is_left(names: list[str], expected: list[int]) -> None:
    assert colours(*names) == expected


@pytest.mark.parametrize("seed", range(20))
def test_hundreds_of_optimizers_look_different(seed: int) -> None:
    draw = random.Random(seed)
    names = draw.choices(list(OPTIMIZERS), weights=[draw.random() for _ in OPTIMIZERS], k=252)
    found = plot_styles([(str(place), name) for place, name in enumerate(names)])
    assert len({(look.colour, look.dash, look.marker) for look in found.values()}) == 252


def test_few_have_a_colour_each_and_more_have_looks_all_the_same() -> None:
    assert sorted(colours(*["ko"] * 7)) == list(range(7))
    assert len(colours(*["adam"] * 300)) == 300


def test_neighbours_differ_in_dashes_and_markers() -> None:
    found = list(plot_styles([(str(place), "ko") for place in range(20)]).values())
    for one, other in pairwise(found):
        assert one.dash != other.dash
        assert one.marker != other.marker
