"""A table of the page: columns of text; empty columns are omitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from service.reports.palette import PlotStyle

Styles = Mapping[str, PlotStyle]
"""Label -> plot style."""


@dataclass(frozen=True)
class Column:
    """A column; `hint` is the tooltip of its name."""

    name: str
    cells: Sequence[str | Markup]
    hint: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table. Its first column contains the row headers; `strong` are the indices of bold rows."""

    caption: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    strong: Sequence[int] = field(default_factory=tuple)

    @property
    def filled(self) -> list[Column]:
        """The columns with at least one cell that is not empty."""
        return [column for column in self.columns if any(column.cells)]

    @property
    def rows(self) -> list[list[str | Markup]]:
        """The cells of `filled`, by row."""
        return [list(row) for row in zip(*(column.cells for column in self.filled), strict=True)]


def marked(label: str, styles: Styles) -> Markup:
    """A label with the marker of its plot style."""
    return Markup('<span class="named">{}<span>{}</span></span>').format(styles[label].swatch, label)


def optimizer_column(labels: Iterable[str], styles: Styles) -> Column:
    """The labels with their markers."""
    return Column("optimizer", [marked(label, styles) for label in labels], is_text=True)
