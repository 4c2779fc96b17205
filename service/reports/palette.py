"""Colors, dashes and markers of the optimizers, the same in all tables and figures."""

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

# The palette of Okabe and Ito without yellow, which has too little contrast on white; orange and sky blue are darkened
# for the same reason. The page replaces all of them by CSS variables, which have lighter values in dark mode.
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
"""Color in a figure -> the CSS variable of the page."""
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
"""Color in a figure -> its replacement in dark mode, the same as in the page."""


@dataclass(frozen=True)
class PlotStyle:
    """Plot style of one optimizer."""

    position: int
    """Index among the optimizers of the comparison; it shifts the markers of a curve, so that they do not overlap."""
    view: LookView

    @property
    def colour(self) -> str:
        """Color as a hexadecimal code."""
        return COLOURS[self.view.colour]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Lengths of dashes and gaps in units of the line width; empty: solid."""
        return DASHES[self.view.dash]

    @property
    def marker(self) -> str:
        """Marker in matplotlib's notation."""
        return MARKERS[self.view.marker]

    @property
    def swatch(self) -> Markup:
        """Inline SVG of the marker, for a table."""
        return Markup('<svg class="swatch" viewBox="-6 -6 12 12" aria-hidden="true">{}</svg>').format(self._shape())

    @property
    def sample(self) -> Markup:
        """Inline SVG of a line segment with the marker, for the legend of a figure."""
        dashes = " ".join(f"{1.8 * length:g}" for length in self.dashes)
        line = Markup('<path d="M-15 0H15" fill="none" stroke-width="1.8" stroke-dasharray="{}" style="stroke:{}"/>')
        return Markup('<svg class="sample" viewBox="-16 -6 32 12" aria-hidden="true">{}{}</svg>').format(
            line.format(dashes or "none", VARIABLES[self.colour]), self._shape()
        )

    def _shape(self) -> Markup:
        marker = MarkerStyle(self.marker)
        outline = _outline(marker.get_path().transformed(marker.get_transform() + Affine2D().scale(8.5, -8.5)))
        return Markup('<path d="{}" style="fill:{}"/>').format(outline, VARIABLES[self.colour])


def plot_styles(labels: Sequence[str], views: Mapping[str, LookView]) -> dict[str, PlotStyle]:
    """Plot style of each label."""
    return {label: PlotStyle(position, views[label]) for position, label in enumerate(labels)}


def _outline(path: Path) -> str:
    """Path data in SVG's notation."""
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
    return "".join(
        letters[code] + ("" if code == Path.CLOSEPOLY else " ".join(f"{value:.2f}" for value in points))
        for points, code in path.iter_segments(simplify=False)
    )
