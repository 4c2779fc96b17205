"""How each optimizer is drawn, the same in every table and figure: by colour, line style and marker at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from service.comparisons import styles
from service.comparisons.styles import LookView
from service.specs.catalog import optimizers

# Okabe and Ito's colours without the yellow, which white paper swallows; orange and sky blue a little darker than
# theirs for the same reason. The page replaces all of them by variables, which have lighter values on a dark ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8629a", "#c58a00", "#3d9bd1", "#4d4d4d")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.4, 1.4), (6, 1.6, 1.4, 1.6))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<")
assert (len(COLOURS), len(DASHES), len(MARKERS)) == (optimizers.COLOURS, styles.DASHES, styles.MARKERS)

INK = "#1b1f24"
MUTED = "#5b6570"
GRID = "#dfe3e8"
PAPER = "#fefefe"
VARIABLES = {colour: f"var(--s{position})" for position, colour in enumerate(COLOURS)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
}
"""Colour in a drawing -> the page's variable for it."""
DARK = dict(
    zip(
        (*COLOURS, INK, MUTED, GRID, PAPER),
        (
            *("#4a9fe0", "#f07a2e", "#2ec495", "#dd8fc0", "#e9b13c", "#8fd0f5", "#b9bfc6"),
            *("#e6e9ed", "#9aa5b1", "#353c45", "#1a1e23"),
        ),
        strict=True,
    )
)
"""Colour in a drawing -> the one that takes its place on a dark ground, as in the page."""


@dataclass(frozen=True)
class Look:
    """Of one optimizer."""

    position: int
    """Among the optimizers of its comparison: marks on curves stand beside those of others."""
    view: LookView

    @property
    def colour(self) -> str:
        """As matplotlib takes it."""
        return COLOURS[self.view.colour]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Lengths of dashes and gaps in units of the line's width; empty: solid."""
        return DASHES[self.view.dash]

    @property
    def marker(self) -> str:
        """As matplotlib names it."""
        return MARKERS[self.view.marker]

    @property
    def swatch(self) -> Markup:
        """Its marker, for a table."""
        return Markup('<svg class="swatch" viewBox="-6 -6 12 12" aria-hidden="true">{}</svg>').format(self._shape())

    @property
    def sample(self) -> Markup:
        """A piece of its line with the marker, for the key of a figure."""
        dashes = " ".join(f"{1.8 * length:g}" for length in self.dashes)
        line = Markup('<path d="M-15 0H15" fill="none" stroke-width="1.8" stroke-dasharray="{}" style="stroke:{}"/>')
        return Markup('<svg class="sample" viewBox="-16 -6 32 12" aria-hidden="true">{}{}</svg>').format(
            line.format(dashes or "none", VARIABLES[self.colour]), self._shape()
        )

    def _shape(self) -> Markup:
        marker = MarkerStyle(self.marker)
        outline = _outline(marker.get_path().transformed(marker.get_transform() + Affine2D().scale(8.5, -8.5)))
        return Markup('<path d="{}" style="fill:{}"/>').format(outline, VARIABLES[self.colour])


def drawn(labels: Sequence[str], views: Mapping[str, LookView]) -> dict[str, Look]:
    """How each label is drawn."""
    return {label: Look(position, views[label]) for position, label in enumerate(labels)}


def _outline(path: Path) -> str:
    """A path as SVG writes it."""
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
    return "".join(
        letters[code] + ("" if code == Path.CLOSEPOLY else " ".join(f"{value:.2f}" for value in points))
        for points, code in path.iter_segments(simplify=False)
    )
