"""The terminal that tables are printed on."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from kotrain.output import printable

PIPE_COLUMNS = 200
"""Width of output that does not go to a terminal, so that files and pipes get complete lines."""


class _Console(Console):
    """Prints no characters that control a terminal, except its own: other users may have written a text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console(*, stderr: bool = False) -> Console:
    """A console without highlighting of numbers; as wide as the terminal, or `PIPE_COLUMNS` without one."""
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, highlight=False, soft_wrap=False, width=None if stream.isatty() else PIPE_COLUMNS)
