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
from service.reports.figures.canvas import Lettering, Picture, inline
from service.reports.palette import Look, drawn


@dataclass(frozen=True)
class Study:
    """A comparison to be drawn."""

    answer: ComparisonAnswer
    curves: Mapping[UUID, Mapping[str, Curve]]

    @property
    def yet(self) -> str:
        """` yet` while the comparison is running, else empty; follows a statement that something is missing."""
        return " yet" if self.answer.status == "running" else ""

    @cached_property
    def labels(self) -> list[str]:
        """All optimizers, in the order of the plan."""
        planned = [str(one["label"]) for one in self.answer.plan.optimizers]
        found = [group.label for task in self.answer.tasks for group in task.groups]
        return list(dict.fromkeys([*planned, *found]))

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each of them is drawn."""
        return drawn(self.labels, self.answer.looks)

    @cached_property
    def lettering(self) -> Lettering:
        """For everything that users named."""
        return Lettering([*self.labels, *(task.label for task in self.answer.tasks)])

    def picture(
        self, figure: Figure, key: str, title: str, description: str, caption: str = "", labels: list[str] | None = None
    ) -> Picture:
        """A figure as it goes into the page; `labels` are the optimizers that need a key beside it."""
        svg: Markup = inline(figure, key, title, description, self.lettering)
        return Picture(title=title, svg=svg, caption=caption, key=labels or [])
