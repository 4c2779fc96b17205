"""Plot styles: the color of an optimizer, and styles that can be distinguished."""

import random
from itertools import pairwise

import pytest

from service.comparisons.styles import plot_styles
from service.specs.catalog.optimizers import BLUE, COLOURS, GREEN, GREY, OCHRE, OPTIMIZERS, ORANGE, SKY


def colours(*names: str) -> list[int]:
    return [style.colour for style in plot_styles([(str(i), name) for i, name in enumerate(names)]).values()]


def test_catalog_uses_each_colour() -> None:
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
def test_first_of_each_name_has_its_catalog_colour(names: list[str], expected: list[int]) -> None:
    assert colours(*names) == expected


@pytest.mark.parametrize("seed", range(20))
def test_252_optimizers_have_distinct_styles(seed: int) -> None:
    draw = random.Random(seed)
    names = draw.choices(list(OPTIMIZERS), weights=[draw.random() for _ in OPTIMIZERS], k=252)
    styles = plot_styles([(str(position), name) for position, name in enumerate(names)])
    assert len({(style.colour, style.dash, style.marker) for style in styles.values()}) == 252


def test_seven_optimizers_have_distinct_colours_and_300_have_styles() -> None:
    assert sorted(colours(*["ko"] * 7)) == list(range(7))
    assert len(colours(*["adam"] * 300)) == 300


def test_neighbours_differ_in_dash_and_marker() -> None:
    styles = plot_styles([(str(position), "ko") for position in range(20)]).values()
    for style, following in pairwise(styles):
        assert style.dash != following.dash
        assert style.marker != following.marker
