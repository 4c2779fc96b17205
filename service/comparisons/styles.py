"""One colour for an optimizer, wherever it is drawn; variants of it differ by dashes and markers, and by colour beyond.

Pages and reports own the colours, dashes and markers themselves: here they are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from service.specs.bodies import Output

COLOURS, DASHES, MARKERS = 7, 4, 9
"""How many there are. No two have a common divisor: 252 optimizers look different."""

BLUE, ORANGE, GREEN, PINK, OCHRE, SKY, GREY = range(COLOURS)
HOMES: Mapping[str, int] = {
    "ko": BLUE,
    "adam": ORANGE,
    "sgd": GREEN,
    "muon": PINK,
    "adamw": OCHRE,
    "lion": SKY,
    "control": GREY,
    # There are more optimizers than colours that can be told apart: these live with one that they are seldom beside.
    "radam": ORANGE,
    "nadamw": OCHRE,
    "rmsprop": PINK,
    "adagrad": SKY,
}
"""Name of an optimizer in the catalog -> its colour."""


class LookView(Output):
    """How an optimizer is drawn; the numbers of its colour (the same in light and dark), dashes and marker."""

    colour: int = Field(ge=0, lt=COLOURS)
    dash: int = Field(ge=0, lt=DASHES)
    marker: int = Field(ge=0, lt=MARKERS)


def looks(optimizers: Sequence[tuple[str, str]]) -> dict[str, LookView]:
    """A look for each optimizer of a comparison, given as (label, name); the first 252 are all different.

    The first label of a name has the name's own colour, unless an earlier name has it already. All others take the
    colour that is used least, so that a few of them have one each, and the best known optimizers' last.
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
    """Place -> colour, for those that have their name's."""
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    owners: dict[int, int] = {}  # colour -> place
    for name, place in sorted(first.items(), key=lambda one: one[1]):
        if name in HOMES:
            owners.setdefault(HOMES[name], place)
    return {place: colour for colour, place in owners.items()}
