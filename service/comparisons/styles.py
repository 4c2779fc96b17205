"""Plot styles of the optimizers of a comparison: color, dash pattern and marker.

An optimizer has the color of its catalog entry in all figures; its variants get other colors, dashes and markers. Here,
these are indices: dashboard and reports define the values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from service.specs.bodies import Output
from service.specs.catalog.optimizers import COLOURS, OPTIMIZERS

DASHES, MARKERS = 4, 9
"""Numbers of dash patterns and markers. They and `COLOURS` are coprime, so that 252 optimizers get different styles."""


class LookView(Output):
    """Plot style of an optimizer: indices of its color (same in light and dark themes), dash pattern, marker."""

    colour: int = Field(ge=0, lt=COLOURS)
    dash: int = Field(ge=0, lt=DASHES)
    marker: int = Field(ge=0, lt=MARKERS)


def plot_styles(optimizers: Sequence[tuple[str, str]]) -> dict[str, LookView]:
    """The style of each optimizer of a comparison, given as (label, name); the first 252 are distinct.

    The first label of a name gets the color of the name's catalog entry, unless an earlier name has the same color. All
    others get the least used color, with the colors of well-known optimizers last.
    """
    colours = _catalog_colours([name for _, name in optimizers])
    used = Counter(colours.values())
    taken = {(colour, place % DASHES, place % MARKERS) for place, colour in colours.items()}
    for place in range(len(optimizers)):
        if place in colours:
            continue
        free = [colour for colour in range(COLOURS) if (colour, place % DASHES, place % MARKERS) not in taken]
        colours[place] = min(free or range(COLOURS), key=lambda colour: (used[colour], -colour))
        used[colours[place]] += 1
        taken.add((colours[place], place % DASHES, place % MARKERS))
    return {
        label: LookView(colour=colours[place], dash=place % DASHES, marker=place % MARKERS)
        for place, (label, _) in enumerate(optimizers)
    }


def _catalog_colours(names: Sequence[str]) -> dict[int, int]:
    """Place -> color, for the labels with the color of their catalog entry."""
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    owners: dict[int, int] = {}  # colour -> place
    for name, place in sorted(first.items(), key=lambda item: item[1]):
        if name in OPTIMIZERS:
            owners.setdefault(OPTIMIZERS[name].colour, place)
    return {place: colour for colour, place in owners.items()}
