"""Training curves: a line for the mean of an optimizer's runs, and a band from the lowest to the highest run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from service.comparisons.answers import TaskAnswer
from service.reports.figures.canvas import Picture, absent, canvas, plain_ticks
from service.reports.figures.study import Study
from service.reports.palette import MUTED, PlotStyle
from service.reports.traces import Along, Band, GroupCurves, Trace, band
from service.reports.wording import Scale
from service.specs.text import counted, listed

X_NAMES: Mapping[Along, str] = {"steps": "optimizer steps", "wall_seconds": "seconds since the start of the run"}
MARKERS = 6  # per line
EARLY = 0.2  # share of the training that the y axis may cut off, so that the start does not hide the end


def curves(
    study: Study, task: TaskAnswer, key: str, metric: str, along: Along, runs: Mapping[str, GroupCurves]
) -> Picture:
    """A metric by optimizer step or over time."""
    scale = Scale(metric)
    title = f"{scale.words.capitalize()} {'by step' if along == 'steps' else 'over time'}"
    traces = {label: finished for label, group in runs.items() if (finished := group.traces(metric, along))}
    bands = {label: mean for label, finished in traces.items() if (mean := band(finished))}
    apart = [label for label in traces if label not in bands]
    diverged = {label: lost for label, group in runs.items() if (lost := group.diverged_traces(metric, along))}
    if not bands and not diverged:
        reason = f"no run has this curve{study.yet}, or it is no longer stored"
        return absent(title, "the runs of each optimizer do not overlap" if apart else reason)
    figure, axes = canvas()
    for label, group_band in bands.items():
        _draw_band(axes, group_band, study.styles[label], scale)
    for label, lost in diverged.items():
        for trace in lost:
            _draw_diverged(axes, trace, study.styles[label], scale)
    is_log = _is_log(metric, bands)
    _set_limits(axes, [*bands.values()], scale, is_log=is_log)
    caption = _caption(bands, diverged, along, metric)
    if is_log and (below := sum(int((trace.y <= 0).sum()) for lost in diverged.values() for trace in lost)):
        caption += (
            f" Of diverged runs, {counted(below, 'value')} at or below 0 cannot be drawn on the logarithmic axis."
        )
    if apart:
        caption += f" Not drawn, because {'its' if len(apart) == 1 else 'their'} runs do not overlap: {listed(apart)}."
    if task.target is not None and task.target.metric == metric:
        low, high = sorted(axes.get_ylim())
        value = scale.factor * task.target.value
        if low <= value <= high:
            _draw_target(axes, value, is_loss=metric.endswith("loss"))
        else:  # the layout would reserve room for its label
            caption += f" The target, {scale.with_percent(task.target.value)}, is outside the axes."
    axes.set_xlabel(X_NAMES[along])
    axes.set_ylabel(scale.with_unit)
    plain_ticks(axes, "x", is_log=False)
    axes.margins(x=0.02)
    shown = list(runs.keys() & (bands.keys() | diverged.keys()))
    shown.sort(key=list(runs).index)
    return study.picture(figure, key, title, _described(bands, diverged, scale), caption, shown)


def _draw_band(axes: Axes, band: Band, style: PlotStyle, scale: Scale) -> None:
    mean = scale.factor * band.mean
    if band.runs > 1 or _has_range(band):
        axes.fill_between(
            band.x,
            scale.factor * band.low,
            scale.factor * band.high,
            color=style.colour,
            alpha=0.16,
            linewidth=0,
            zorder=2,
        )
    every = max(1, len(mean) // MARKERS)
    (line,) = axes.plot(
        band.x,
        mean,
        color=style.colour,
        marker=style.marker,
        markevery=(style.position * every // 5 % every, every),  # shifted, so that markers of curves do not overlap
        zorder=3,
    )
    if style.dashes:
        line.set_dashes(style.dashes)


def _has_range(band: Band) -> bool:
    """Whether the band has a width; that of a single run has one if its points are averages."""
    return bool((band.high > band.low).any())


def _draw_diverged(axes: Axes, trace: Trace, style: PlotStyle, scale: Scale) -> None:
    y = scale.factor * trace.y
    axes.plot(trace.x, y, color=style.colour, linewidth=0.8, alpha=0.7, zorder=2)
    axes.plot(trace.x[-1:], y[-1:], color=style.colour, marker="x", markersize=5, markeredgewidth=1.2, zorder=4)


def _draw_target(axes: Axes, value: float, *, is_loss: bool) -> None:
    """Draw a line with a label at its start: at the end, the label would overlap the curves."""
    axes.axhline(value, color=MUTED, linewidth=0.8, dashes=(2, 2), zorder=1)
    axes.annotate(
        "target",
        (0, value),
        (3, -3 if is_loss else 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",
        va="top" if is_loss else "bottom",
        color=MUTED,
        fontsize=9,
    )


def _is_log(metric: str, bands: Mapping[str, Band]) -> bool:
    """Whether the axis is logarithmic: for a loss that falls by more than a factor of 10."""
    means = [band.mean for band in bands.values()]
    if not metric.endswith("loss") or not means:
        return False
    lowest = min(float(band.low.min()) for band in bands.values())
    return lowest > 0 and max(float(mean.max()) for mean in means) > 10 * lowest


def _set_limits(axes: Axes, bands: list[Band], scale: Scale, *, is_log: bool) -> None:
    """Limit the y axis to the range of the bands after the start."""
    if is_log:
        plain_ticks(axes, "y", is_log=True, max_ticks=5)
        return
    plain_ticks(axes, "y", is_log=False)
    if not bands:
        return
    end = max(float(band.x[-1]) for band in bands)
    late = [band.x >= min(EARLY * end, band.x[-1]) for band in bands]
    low = scale.factor * min(float(band.low[part].min()) for band, part in zip(bands, late, strict=True))
    high = scale.factor * max(float(band.high[part].max()) for band, part in zip(bands, late, strict=True))
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 0.01
    axes.set_ylim(low - margin, high + margin)


def _caption(bands: Mapping[str, Band], diverged: Mapping[str, list[Trace]], along: Along, metric: str) -> str:
    runs = sorted({band.runs for band in bands.values()})
    sentences = []
    if runs and runs[-1] > 1:
        over = counted(runs[0], "run") if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
        sentences.append(f"Lines are means over {over}; bands reach from the lowest run to the highest.")
    elif any(_has_range(band) for band in bands.values()):
        sentences.append("One run per optimizer: lines are averages of neighboring points, bands their range.")
    elif runs:
        sentences.append("One run per optimizer.")
    if along == "wall_seconds":
        ends = "; each mean ends with the fastest run of its optimizer" if runs and runs[-1] > 1 else ""
        sentences.append(f"Times include evaluation{ends}.")
    if metric == "train_loss":
        sentences.append("Losses of single batches, averaged over neighboring steps.")
    if diverged:
        sentences.append("Thin lines that end in a cross are runs that diverged; they are not in the means.")
    return " ".join(sentences)


def _described(bands: Mapping[str, Band], diverged: Mapping[str, list[Trace]], scale: Scale) -> str:
    """Final means, for screen readers."""
    decimals = scale.decimals(float(np.ptp([band.low[-1], band.high[-1]])) for band in bands.values())
    unit = " %" if scale.is_share else ""
    ends = [f"{label} {scale.text(float(band.mean[-1]), decimals)}{unit}" for label, band in bands.items()]
    text = f"Final means of the {scale.words}: {listed(ends)}." if ends else ""
    return text + (f" Optimizers with diverged runs: {listed(list(diverged))}." if diverged else "")
