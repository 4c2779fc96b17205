"""A figure by itself, as a file for a paper or a chat: with its key inside, a ground, and colours of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from service.reports.figures.canvas import WIDTH, Lettering, Picture
from service.reports.figures.study import Study
from service.reports.palette import PAPER, Look
from service.reports.plot_names import Ending

KEY_ROW = 13.0
"""Height of a row of the key, in points."""
LETTER, SAMPLE = 5.4, 40.0
"""About the width of a letter of the key, and of the line before a label; in points."""
SVG = "http://www.w3.org/2000/svg"
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]|\ufffe|\uffff".encode())
"""Signs of labels that no XML may hold, escaped or not (XML 1.0, 2.2)."""
FONTS = "'DejaVu Sans', Verdana, sans-serif"


@dataclass(frozen=True)
class Sheet(Picture):
    """A figure that is not yet drawn into a file."""

    figure: Figure | None = None
    description: str = ""


class PlainLettering(Lettering):
    """For pixels, where nothing can be put back later: a letter that the font lacks is a question mark."""

    def drawn(self, text: str) -> str:
        """The text as it is given to matplotlib."""
        return text.translate(dict.fromkeys(self._there, "?"))


@dataclass(frozen=True)
class SheetStudy(Study):
    """A comparison whose figures become sheets."""

    ending: Ending

    @cached_property
    def lettering(self) -> Lettering:
        """As the page's, as far as letters can be put back."""
        page = super().lettering
        return page if self.ending == "svg" else PlainLettering(page.texts)

    def picture(
        self, figure: Figure, key: str, title: str, description: str, caption: str = "", labels: list[str] | None = None
    ) -> Picture:
        """The figure with a key of the `labels` below it."""
        if labels:
            add_key(figure, {label: self.looks[label] for label in labels}, self.lettering)
        text = f"{description} {caption}".strip()
        return Sheet(title=title, caption=caption, key=labels or [], figure=figure, description=text)


def add_key(figure: Figure, looks: Mapping[str, Look], lettering: Lettering) -> None:
    """Explain the lines below the axes, for which the figure grows."""
    samples = []
    for label, look in looks.items():
        sample = Line2D([], [], color=look.colour, marker=look.marker, label=lettering.drawn(label))
        if look.dashes:
            sample.set_dashes(look.dashes)
        samples.append(sample)
    columns = _columns([str(sample.get_label()) for sample in samples])
    rows = -(-len(samples) // columns)
    figure.set_figheight(figure.get_figheight() + (rows * KEY_ROW + 6) / 72)
    figure.legend(
        handles=samples,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.2,
        labelspacing=0.25,
        borderpad=0.1,
    )


def _columns(labels: Sequence[str]) -> int:
    widest = max(SAMPLE + LETTER * len(label) for label in labels)
    return max(1, min(len(labels), int(WIDTH // widest)))


# --- into a file -----------------------------------------------------------------------------------------------------


def png(sheet: Sheet, width_pixels: int) -> bytes:
    """Pixels, as many from left to right as asked for."""
    assert sheet.figure is not None
    file = io.BytesIO()
    FigureCanvasAgg(sheet.figure)
    dots = (width_pixels + 0.01) / sheet.figure.get_figwidth()  # an inch
    sheet.figure.savefig(file, format="png", dpi=dots, facecolor=PAPER, metadata={"Title": _latin(sheet.title)})
    return file.getvalue()


def _latin(text: str) -> str:
    """What fits into a text chunk of a PNG."""
    return text.encode("latin-1", "replace").decode("latin-1")


def svg(sheet: Sheet, lettering: Lettering) -> bytes:
    """Lines and letters; named and described, without a style sheet, so that it looks the same within any page."""
    assert sheet.figure is not None
    file = io.StringIO()
    FigureCanvasSVG(sheet.figure)
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    sheet.figure.savefig(file, format="svg", facecolor=PAPER, metadata=no_metadata)
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            parent.remove(child)
    for element in root.iter(f"{{{SVG}}}text"):
        element.text = lettering.meant(element.text or "")
        element.set("style", element.get("style", "").replace("'DejaVu Sans'", FONTS))
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")  # what the style sheet said
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", sheet.title), ("desc", sheet.description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}")
        element.text = text
        root.insert(place, element)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    drawn: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}".encode(), drawn)
