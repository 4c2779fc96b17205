"""Time and memory of the runs."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.comparisons.answers import TaskAnswer
from service.reports.figures.canvas import WIDTH, Picture, absent, plain_ticks
from service.reports.figures.scores import ROW, short_names, wrapped
from service.reports.figures.study import Study
from service.reports.palette import INK, MUTED
from service.reports.wording import fixed
from service.specs.quantities import known, size
from service.specs.text import listed


def costs(study: Study, task: TaskAnswer, key: str) -> Picture:
    """Time per step and peak memory, side by side."""
    title = "Time per step and peak memory"
    rows = [cost for cost in task.cost if known(cost.milliseconds_per_step) or known(cost.peak_bytes)]
    if not rows:
        return absent(title, f"no run has reported its time{study.yet}")
    names = short_names(study, [cost.label for cost in rows])
    panels = [
        ("ms per step", [cost.milliseconds_per_step for cost in rows], [_ratio(cost.ratio) for cost in rows]),
        ("peak memory (MiB)", [_mebibytes(cost.peak_bytes) for cost in rows], [size(cost.peak_bytes) for cost in rows]),
    ]
    panels = [panel for panel in panels if any(known(value) for value in panel[1])]
    figure = Figure(figsize=(WIDTH / 72, (len(rows) * ROW + 44) / 72), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, values, texts) in zip(all_axes, panels, strict=True):
        _draw_bars(axes, values, texts, [study.styles[cost.label].colour for cost in rows])
        axes.set_xlabel(name)
        plain_ticks(axes, "x", is_log=False, max_ticks=4)
    all_axes[0].set_ylim(len(rows) - 0.4, -0.6)
    all_axes[0].set_yticks(range(len(rows)), [wrapped(names[cost.label]) for cost in rows], color=INK)
    words = [
        f"{cost.label} {fixed(cost.milliseconds_per_step, 2) or 'unknown'} ms per step, "
        f"{size(cost.peak_bytes) or 'unknown'} of peak memory"
        for cost in rows
    ]
    caption = "Medians over the runs; factors are relative to the fastest step."
    if any(cost.shared for cost in rows):
        caption += " Other jobs may have run on the same devices: compare times with care."
    return study.picture(figure, key, title, f"{listed(words)}.", caption)


def _draw_bars(axes: Axes, values: list[float | None], texts: list[str], colours: list[str]) -> None:
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_color(MUTED)
    for y, (value, text, colour) in enumerate(zip(values, texts, colours, strict=True)):
        axes.barh([y], [known(value) or 0.0], height=0.55, color=colour, alpha=0.85, linewidth=0, zorder=2)
        axes.annotate(
            text or "unknown", (known(value) or 0.0, y), (3, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_xlim(0, 1.45 * max(known(value) or 0.0 for value in values))


def _ratio(ratio: float | None) -> str:
    return f"× {ratio:.2f}" if known(ratio) is not None else ""


def _mebibytes(count: float | None) -> float | None:
    return None if known(count) is None or count is None else count / 2**20
