"""From a matplotlib figure to a drawing inside a page: its settings, and what has to be mended in its SVG."""

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
"""Of every figure, in points: on a phone's page they stay points, on a desk's they grow by half."""
HEIGHT = 212.0

FONT = "DejaVu Sans"  # comes with matplotlib; only measured with, the page's font is drawn
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
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "kotrain",
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar
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
_one_at_a_time = threading.Lock()


@contextmanager
def settings(*, dark: bool = False) -> Iterator[None]:
    """Ours, whatever the machine's are. matplotlib keeps them for the whole process, hence one page at a time.

    With `dark`, drawings get their colours for a dark ground as they are made, and not by a page.
    """
    with _one_at_a_time, matplotlib.rc_context(), _renamed(DARK if dark else {}):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


@contextmanager
def _renamed(colours: Mapping[str, str]) -> Iterator[None]:
    """Have each of these colours stand for another one: matplotlib takes a known name before it reads it as a code."""
    names = get_named_colors_mapping()
    for name, other in colours.items():
        names[name] = other  # one by one, which also has matplotlib forget what it has looked up before
    try:
        yield
    finally:
        for name in colours:
            del names[name]


@dataclass(frozen=True)
class Picture:
    """A figure of the page: a drawing with its words, or `why` there is none."""

    title: str
    svg: Markup | None = None
    caption: str = ""
    key: Sequence[str] = ()
    """Labels of the optimizers whose looks have to be explained beside it."""
    why: str = ""


def absent(title: str, why: str) -> Picture:
    """A figure that cannot be drawn."""
    return Picture(title=title, why=why)


# --- drawing ---------------------------------------------------------------------------------------------------------


def canvas(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; `height` is in points."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def plain_ticks(axes: Axes, which: str, *, is_log: bool, most: int = 6) -> None:
    """Numbers as people write them: 0.001, 20k."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if is_log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = sorted(axis.get_view_interval())
        decades = float("inf") if low <= 0 else high / low
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades >= 100 else (1.0, 2.0, 5.0), numticks=most + 2))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """A number at an axis."""
    size = abs(value)
    if size >= 1e12:
        return f"{value:.0e}".replace("e+", "e")
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit and (unit > 1e3 or size >= 1e4):
            return f"{value / unit:.4g}{letter}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:.4g}" if size >= 1e-4 or not size else f"{value:.0e}".replace("e-0", "e-")
    return re.sub(r"^-", "\N{MINUS SIGN}", text)


class Lettering:
    """Letters that the measuring font lacks, such as Chinese ones, are drawn as Braille signs and put back after.

    matplotlib would warn of each; a reader's browser has a font for them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        known = set(get_font(findfont(FontProperties(family=FONT))).get_charmap())
        used = {ord(sign) for text in self.texts for sign in text}
        spare = (code for code in range(0x2801, 0x2900) if code not in used)
        self._there = dict(zip(sorted(used - known), spare, strict=False))
        self._there |= dict.fromkeys(used - known - self._there.keys(), ord("?"))
        self._back = {stand_in: code for code, stand_in in self._there.items() if stand_in != ord("?")}

    def drawn(self, text: str) -> str:
        """The text as it is given to matplotlib."""
        return text.translate(self._there)

    def meant(self, text: str) -> str:
        """The text that is drawn, as it was."""
        return text.translate(self._back)


# --- into the page ---------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_STYLED = ("style", "fill", "stroke")


def inline(figure: Figure, key: str, title: str, description: str, lettering: Lettering) -> Markup:
    """The figure as an element of an HTML page, named for those who do not see it.

    Its ids begin with `key`, since those of all figures share a page; colours become the page's variables, fonts the
    page's, numbers are rounded to a hundredth of a point; no metadata, no style sheet, no address of a namespace.
    """
    file = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    _rename(root, key)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: _mended(name, value) for name, value in element.attrib.items()}
        element.text = _text_of(element, lettering)
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
    """Ids that something refers to become short and the page's own; the others go."""
    text = [value for element in root.iter() for value in element.attrib.values()]
    used = {
        found for value in text for found in re.findall(r"url\(#([^)]+)\)|^#(.+)$", value) for found in found if found
    }
    names = {name: f"{key}-{number}" for number, name in enumerate(sorted(used))}
    for element in root.iter():
        if "id" in element.attrib:
            name = element.attrib.pop("id")
            if name in names:
                element.set("id", names[name])
        for attribute, value in element.attrib.items():
            if "#" in value:
                replaced = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{names[found[1]]})", value)
                element.set(attribute, f"#{names[value[1:]]}" if value[0] == "#" and value[1:] in names else replaced)


def _mended(name: str, value: str) -> str:
    if name in ("d", "points", "transform", "x", "y", "width", "height"):
        return " ".join(_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value).split())
    if name in _STYLED:
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), value)
    return value


def _text_of(element: ElementTree.Element, lettering: Lettering) -> str | None:
    if element.text is None or not element.text.strip():
        return None
    return lettering.meant(element.text)


def _is_empty(element: ElementTree.Element) -> bool:
    return element.tag in ("g", "defs") and not len(element)
