"""A figure as a file of its own: with a legend, a background and literal colors."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from service.reports.figures.canvas import WIDTH, GlyphSubstitution, Picture, svg_text
from service.reports.figures.study import Study
from service.reports.palette import PAPER, PlotStyle
from service.reports.plot_names import ImageFormat

LEGEND_ROW = 13.0
"""Height of a row of the legend, in points."""
LETTER, SAMPLE = 5.4, 40.0
"""Approximate width of a letter in the legend, and of the line before a label, in points."""
SVG = "http://www.w3.org/2000/svg"
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]|\ufffe|\uffff".encode())
"""Characters that XML does not allow, not even escaped (XML 1.0, section 2.2); labels may contain them."""
FONTS = "'DejaVu Sans', Verdana, sans-serif"


@dataclass(frozen=True)
class Sheet(Picture):
    """A figure that has yet to be rendered as a file."""

    figure: Figure | None = None
    description: str = ""


class LossySubstitution(GlyphSubstitution):
    """For bitmaps, in which characters cannot be restored: those that the font lacks become question marks."""

    def encode(self, text: str) -> str:
        """The text with question marks, for matplotlib."""
        return text.translate(dict.fromkeys(self._placeholders, "?"))


@dataclass(frozen=True)
class SheetStudy(Study):
    """A comparison whose figures are rendered as files."""

    format: ImageFormat

    @cached_property
    def glyphs(self) -> GlyphSubstitution:
        """The substitution of the page in an SVG; question marks in a PNG."""
        substitution = super().glyphs
        return substitution if self.format == "svg" else LossySubstitution(substitution.texts)

    def picture(
        self, figure: Figure, key: str, title: str, description: str, caption: str = "", labels: list[str] | None = None
    ) -> Picture:
        """The figure with a legend of the `labels` below it."""
        if labels:
            add_legend(figure, {label: self.styles[label] for label in labels}, self.glyphs)
        text = f"{description} {caption}".strip()
        return Sheet(title=title, caption=caption, legend=labels or [], figure=figure, description=text)


def add_legend(figure: Figure, styles: Mapping[str, PlotStyle], glyphs: GlyphSubstitution) -> None:
    """Add a legend below the axes, and enlarge the figure by its height."""
    samples = []
    for label, style in styles.items():
        sample = Line2D([], [], color=style.colour, marker=style.marker, label=glyphs.encode(label))
        if style.dashes:
            sample.set_dashes(style.dashes)
        samples.append(sample)
    columns = _columns([str(sample.get_label()) for sample in samples])
    rows = -(-len(samples) // columns)
    figure.set_figheight(figure.get_figheight() + (rows * LEGEND_ROW + 6) / 72)
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
    """The figure as a PNG, `width_pixels` wide."""
    assert sheet.figure is not None
    file = io.BytesIO()
    FigureCanvasAgg(sheet.figure)
    dots = (width_pixels + 0.01) / sheet.figure.get_figwidth()  # per inch
    sheet.figure.savefig(file, format="png", dpi=dots, facecolor=PAPER, metadata={"Title": _latin(sheet.title)})
    return file.getvalue()


def _latin(text: str) -> str:
    """Text in Latin-1, the encoding of a text chunk of a PNG."""
    return text.encode("latin-1", "replace").decode("latin-1")


def svg(sheet: Sheet, glyphs: GlyphSubstitution) -> bytes:
    """The figure as an SVG with title and description; without a style sheet, which would affect an embedding page."""
    assert sheet.figure is not None
    sheet.figure.set_facecolor(PAPER)
    root = ElementTree.fromstring(svg_text(sheet.figure))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            parent.remove(child)
    for element in root.iter(f"{{{SVG}}}text"):
        element.text = glyphs.decode(element.text or "")
        element.set("style", element.get("style", "").replace("'DejaVu Sans'", FONTS))
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")  # from the style sheet that was removed
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", sheet.title), ("desc", sheet.description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}")
        element.text = text
        root.insert(place, element)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}".encode(), document)
