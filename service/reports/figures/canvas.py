"""matplotlib settings for the figures of a page, and conversion of a figure to inline SVG."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import get_named_colors_mapping
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.typing import RcKeyType

from service.reports.palette import DARK, GRID, INK, MUTED, VARIABLES

WIDTH = 340.0
"""Width of every figure in points. Narrow screens show it at this size, wide screens at 1.5 times the size."""
HEIGHT = 212.0

FONT = "DejaVu Sans"  # comes with matplotlib; only used to measure text, which the page sets in its own font
SETTINGS: dict[RcKeyType, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelpad": 3.0,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
    "figure.facecolor": "none",
    "font.family": FONT,
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "lines.scale_dashes": True,
    "path.simplify": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "kotrain",
    "text.color": INK,
    "text.parse_math": False,  # labels may contain dollar signs
    "xtick.color": MUTED,
    "xtick.labelsize": 9.5,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "xtick.minor.size": 0.0,
    "ytick.color": MUTED,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
}
_lock = threading.Lock()


@contextmanager
def settings(*, dark: bool = False) -> Iterator[None]:
    """Apply `SETTINGS` instead of the machine's matplotlib configuration.

    matplotlib's settings are global to the process, so a lock admits one page or figure at a time. With `dark`, figures
    are drawn in the colors of dark mode, for files, which have no CSS variables.
    """
    with _lock, matplotlib.rc_context(), _renamed(DARK if dark else {}):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


@contextmanager
def _renamed(colours: Mapping[str, str]) -> Iterator[None]:
    """Replace each of these colors by another one: matplotlib looks up color names before it parses hex codes."""
    names = get_named_colors_mapping()
    for name, other in colours.items():
        names[name] = other  # not by `update`, which would not clear matplotlib's cache of colors
    try:
        yield
    finally:
        for name in colours:
            del names[name]


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its SVG with a caption, or the reason why it cannot be drawn."""

    title: str
    svg: Markup | None = None
    caption: str = ""
    legend: Sequence[str] = ()
    """Labels of the optimizers in the legend below it."""
    reason: str = ""


def absent(title: str, reason: str) -> Picture:
    """A figure that cannot be drawn."""
    return Picture(title=title, reason=reason)


# --- drawing ---------------------------------------------------------------------------------------------------------


def canvas(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; `height` is in points."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def plain_ticks(axes: Axes, axis_name: str, *, is_log: bool, max_ticks: int = 6) -> None:
    """Set the scale and the ticks of an axis, with labels such as 0.001 or 20k."""
    axis = axes.xaxis if axis_name == "x" else axes.yaxis
    if is_log:
        (axes.set_xscale if axis_name == "x" else axes.set_yscale)("log")
        low, high = sorted(axis.get_view_interval())
        decades = float("inf") if low <= 0 else high / low
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades >= 100 else (1.0, 2.0, 5.0), numticks=max_ticks + 2))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(max_ticks, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """A tick label."""
    size = abs(value)
    if size >= 1e12:
        return f"{value:.0e}".replace("e+", "e")
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit and (unit > 1e3 or size >= 1e4):
            return f"{value / unit:.4g}{letter}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:.4g}" if size >= 1e-4 or not size else f"{value:.0e}".replace("e-0", "e-")
    return re.sub(r"^-", "\N{MINUS SIGN}", text)


class GlyphSubstitution:
    """Replaces characters that `FONT` lacks, such as Chinese ones, by Braille characters, and restores them in the SVG.

    matplotlib would warn about each of them; the browser has a font for them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        known = set(get_font(findfont(FontProperties(family=FONT))).get_charmap())
        used = {ord(character) for text in self.texts for character in text}
        spare = (code for code in range(0x2801, 0x2900) if code not in used)
        self._placeholders = dict(zip(sorted(used - known), spare, strict=False))
        self._placeholders |= dict.fromkeys(used - known - self._placeholders.keys(), ord("?"))
        self._originals = {
            placeholder: code for code, placeholder in self._placeholders.items() if placeholder != ord("?")
        }

    def encode(self, text: str) -> str:
        """The text with placeholders, for matplotlib."""
        return text.translate(self._placeholders)

    def decode(self, text: str) -> str:
        """The original of a text with placeholders."""
        return text.translate(self._originals)


# --- into the page ---------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_STYLED = ("style", "fill", "stroke")


def svg_text(figure: Figure) -> str:
    """The figure as an SVG file without metadata.

    `savefig` gives the same file but draws twice, the first time only for the layout. The figure keeps this layout.
    """
    file = io.StringIO()
    image, dots = FigureCanvasSVG(figure), figure.dpi
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
        figure.dpi = dots  # the layout leaves 72; rasterized artists need the original
    image.print_svg(file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))  # type: ignore[no-untyped-call]
    return file.getvalue()


def inline(figure: Figure, key: str, title: str, description: str, glyphs: GlyphSubstitution) -> Markup:
    """The figure as an `svg` element of an HTML page, with a title and a description for screen readers.

    Ids get the prefix `key`, because the figures of a page share one namespace. Colors become CSS variables, the page's
    font is used, and coordinates are rounded to 0.01 points. Metadata, style sheets and XML namespaces are removed.
    """
    root = ElementTree.fromstring(svg_text(figure))
    _rename(root, key)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: _simplified(name, value) for name, value in element.attrib.items()}
        element.text = _text_of(element, glyphs)
        element.tail = None
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style") or _is_empty(child)]:
            parent.remove(child)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "plot",
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-desc",
    }
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(tag, {"id": f"{key}-{tag}"})
        element.text = text
        root.insert(0, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rename(root: ElementTree.Element, key: str) -> None:
    """Shorten the ids that are referenced and prefix them with `key`; remove the others."""
    text = [value for element in root.iter() for value in element.attrib.values()]
    used = {
        name for value in text for groups in re.findall(r"url\(#([^)]+)\)|^#(.+)$", value) for name in groups if name
    }
    names = {name: f"{key}-{number}" for number, name in enumerate(sorted(used))}
    for element in root.iter():
        if "id" in element.attrib:
            name = element.attrib.pop("id")
            if name in names:
                element.set("id", names[name])
        for attribute, value in element.attrib.items():
            if "#" in value:
                replaced = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names[match[1]]})", value)
                element.set(attribute, f"#{names[value[1:]]}" if value[0] == "#" and value[1:] in names else replaced)


def _simplified(name: str, value: str) -> str:
    if name in ("d", "points", "transform", "x", "y", "width", "height"):
        return " ".join(_NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value).split())
    if name in _STYLED:
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda match: VARIABLES.get(match[0], match[0]), value)
    return value


def _text_of(element: ElementTree.Element, glyphs: GlyphSubstitution) -> str | None:
    if element.text is None or not element.text.strip():
        return None
    return glyphs.decode(element.text)


def _is_empty(element: ElementTree.Element) -> bool:
    return element.tag in ("g", "defs") and not len(element)
