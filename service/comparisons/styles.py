"""Plot style of the optimizers of a comparison: colour, dashes and marker.

An optimizer has the colour of its catalog entry wherever it is drawn; its variants differ in dashes and marker, and in
colour. Pages and reports own the values of colours, dashes and markers: here they are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from service.specs.bodies import Output
from service.specs.catalog.optimizers import COLOURS, OPTIMIZERS

DASHES, MARKERS = 4, 9
"""Their numbers. Without a common divisor among them and `COLOURS`, 252 optimizers look different."""


class LookView(Output):
    """Plot style of an optimizer: numbers of its colour (the same in light and dark), dashes and marker."""

    colour: int = Field(ge=0, lt=COLOURS)
    dash: int = Field(ge=0, lt=DASHES)
    marker: int = Field(ge=0, lt=MARKERS)


def looks(optimizers: Sequence[tuple[str, str]]) -> dict[str, LookView]:
    """The style of each optimizer of a comparison, given as (label, name); the first 252 are all different.

    The first label of a name has the colour of the name's catalog entry, unless an earlier name has the same colour.
    All others take the least used colour: a few of them have one each, and those of well-known optimizers come last.
    """
    colours = _at_home([name for _, name in optimizers])
    used = Counter(colours.values())
    taken = {(colour, place % DASHES, place % MARKERS) for place, colour in colours.items()}
    for place in range(len(optimizers)):
        if place in colours:
            continue
        free = [one for one in range(COLOURS) if (one, place % DASHES, place % MARKERS) not in taken]
        colours[place] = min(free or range(COLOURS), key=lambda one: (used[one], -one))
        used[colours[place]] += 1
        taken.add((colours[place], place % DASHES, place % MARKERS))
    return {
        label: LookView(colour=colours[place], dash=place % DASHES, marker=place % MARKERS)
        for place, (label, _) in enumerate(optimizers)
    }


def _at_home(names: Sequence[str]) -> dict[int, int]:
    """Place -> colour, for the labels with the colour of their catalog entry."""
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    owners: dict[int, int] = {}  # colour -> place
    for name, place in sorted(first.items(), key=lambda one: one[1]):
        if name in OPTIMIZERS:
            owners.setdefault(OPTIMIZERS[name].colour, place)
    return {place: colour for colour, place in owners.items()}
