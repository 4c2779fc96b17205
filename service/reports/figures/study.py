"""Data shared by the figures of a page: the answer, the curves, and the styles of the optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from markupsafe import Markup
from matplotlib.figure import Figure

from service.comparisons.answers import ComparisonAnswer
from service.metrics.read import Curve
from service.reports.figures.canvas import GlyphSubstitution, Picture, inline
from service.reports.palette import PlotStyle, plot_styles


@dataclass(frozen=True)
class Study:
    """The answer to a comparison with the curves of its runs."""

    answer: ComparisonAnswer
    curves: Mapping[UUID, Mapping[str, Curve]]

    @property
    def yet(self) -> str:
        """` yet` while the comparison is running, else empty; follows a statement that something is missing."""
        return " yet" if self.answer.status == "running" else ""

    @cached_property
    def labels(self) -> list[str]:
        """All optimizers, in the order of the plan."""
        planned = [str(optimizer["label"]) for optimizer in self.answer.plan.optimizers]
        reported = [group.label for task in self.answer.tasks for group in task.groups]
        return list(dict.fromkeys([*planned, *reported]))

    @cached_property
    def styles(self) -> dict[str, PlotStyle]:
        """Plot style of each optimizer."""
        return plot_styles(self.labels, self.answer.looks)

    @cached_property
    def glyphs(self) -> GlyphSubstitution:
        """Substitution for all labels that users have chosen."""
        return GlyphSubstitution([*self.labels, *(task.label for task in self.answer.tasks)])

    def picture(
        self, figure: Figure, key: str, title: str, description: str, caption: str = "", labels: list[str] | None = None
    ) -> Picture:
        """The figure for the page; `labels` are the optimizers in its legend."""
        svg: Markup = inline(figure, key, title, description, self.glyphs)
        return Picture(title=title, svg=svg, caption=caption, legend=labels or [])
