"""Curves of training: a line for the mean of each optimizer's runs and a band from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from service.comparisons.answers import TaskAnswer
from service.reports.figures.canvas import Picture, absent, canvas, plain_ticks
from service.reports.figures.study import Study
from service.reports.palette import MUTED, Look
from service.reports.traces import Along, Band, RunsOf, Trace, band
from service.reports.wording import Scale, listed
from service.specs.metric_text import many

X_NAMES: Mapping[Along, str] = {"steps": "optimizer steps", "wall_seconds": "seconds since the start of the run"}
MARKS = 6  # on a line
EARLY = 0.2  # share of the training that may leave the axes, lest the start hides the end


def curves(study: Study, task: TaskAnswer, key: str, metric: str, along: Along, runs: Mapping[str, RunsOf]) -> Picture:
    """A metric against steps or seconds."""
    scale = Scale(metric)
    title = f"{scale.words.capitalize()} against {'steps' if along == 'steps' else 'time'}"
    traces = {label: found for label, of in runs.items() if (found := of.traces(metric, along))}
    bands = {label: both for label, of_one in traces.items() if (both := band(of_one))}
    apart = [label for label in traces if label not in bands]
    lost = {label: ended for label, of in runs.items() if (ended := of.diverged_traces(metric, along))}
    if not bands and not lost:
        why = f"no run has this curve{study.yet}, or it is no longer stored"
        return absent(title, "the runs of each optimizer do not overlap" if apart else why)
    figure, axes = canvas()
    for label, of_runs in bands.items():
        _draw_band(axes, of_runs, study.looks[label], scale)
    for label, of_lost in lost.items():
        for one in of_lost:
            _draw_lost(axes, one, study.looks[label], scale)
    _set_limits(axes, [*bands.values()], scale, is_log=_is_log(metric, bands))
    caption = _caption(bands, lost, along, metric)
    if apart:
        caption += f" Not drawn, because {'its' if len(apart) == 1 else 'their'} runs do not overlap: {listed(apart)}."
    if task.target is not None and task.target.metric == metric:
        low, high = sorted(axes.get_ylim())
        value = scale.factor * task.target.value
        if low <= value <= high:
            _draw_target(axes, value, is_loss=metric.endswith("loss"))
        else:  # its name would be laid out where it is, and leave the axes no room
            caption += f" The target, {scale.with_percent(task.target.value)}, is outside the axes."
    axes.set_xlabel(X_NAMES[along])
    axes.set_ylabel(scale.with_unit)
    plain_ticks(axes, "x", is_log=False)
    axes.margins(x=0.02)
    shown = list(runs.keys() & (bands.keys() | lost.keys()))
    shown.sort(key=list(runs).index)
    return study.picture(figure, key, title, _described(bands, lost, scale), caption, shown)


def _draw_band(axes: Axes, found: Band, look: Look, scale: Scale) -> None:
    mean = scale.factor * found.mean
    if found.runs > 1 or _has_range(found):
        axes.fill_between(
            found.x,
            scale.factor * found.low,
            scale.factor * found.high,
            color=look.colour,
            alpha=0.16,
            linewidth=0,
            zorder=2,
        )
    every = max(1, len(mean) // MARKS)
    (line,) = axes.plot(
        found.x,
        mean,
        color=look.colour,
        marker=look.marker,
        markevery=(look.position * every // 5 % every, every),  # beside those of the others
        zorder=3,
    )
    if look.dashes:
        line.set_dashes(look.dashes)


def _has_range(found: Band) -> bool:
    """Which one run has, too, where its points are averaged."""
    return bool((found.high > found.low).any())


def _draw_lost(axes: Axes, one: Trace, look: Look, scale: Scale) -> None:
    y = scale.factor * one.y
    axes.plot(one.x, y, color=look.colour, linewidth=0.8, alpha=0.7, zorder=2)
    axes.plot(one.x[-1:], y[-1:], color=look.colour, marker="x", markersize=5, markeredgewidth=1.2, zorder=4)


def _draw_target(axes: Axes, value: float, *, is_loss: bool) -> None:
    """A line, and its name at the start, on the side that runs come to later: at the end it would lie on the curves."""
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
    """Losses that fall by orders of magnitude."""
    means = [one.mean for one in bands.values()]
    if not metric.endswith("loss") or not means:
        return False
    lowest = min(float(one.low.min()) for one in bands.values())
    return lowest > 0 and max(float(mean.max()) for mean in means) > 10 * lowest


def _set_limits(axes: Axes, bands: list[Band], scale: Scale, *, is_log: bool) -> None:
    """The range of what comes after the start."""
    if is_log:
        plain_ticks(axes, "y", is_log=True, most=5)
        return
    plain_ticks(axes, "y", is_log=False)
    if not bands:
        return
    end = max(float(one.x[-1]) for one in bands)
    late = [one.x >= min(EARLY * end, one.x[-1]) for one in bands]
    low = scale.factor * min(float(one.low[part].min()) for one, part in zip(bands, late, strict=True))
    high = scale.factor * max(float(one.high[part].max()) for one, part in zip(bands, late, strict=True))
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 0.01
    axes.set_ylim(low - margin, high + margin)


def _caption(bands: Mapping[str, Band], lost: Mapping[str, list[Trace]], along: Along, metric: str) -> str:
    runs = sorted({one.runs for one in bands.values()})
    sentences = []
    if runs and runs[-1] > 1:
        over = many(runs[0], "run") if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
        sentences.append(f"Lines are means over {over}; bands reach from the lowest run to the highest.")
    elif any(_has_range(one) for one in bands.values()):
        sentences.append("One run per optimizer: lines are averages of neighboring points, bands their range.")
    elif runs:
        sentences.append("One run per optimizer.")
    if along == "wall_seconds":
        ends = "; each mean ends with the fastest run of its optimizer" if runs and runs[-1] > 1 else ""
        sentences.append(f"Times include evaluation{ends}.")
    if metric == "train_loss":
        sentences.append("Losses of single batches, averaged over neighboring steps.")
    if lost:
        sentences.append("Thin lines that end in a cross are runs that diverged; they are not in the means.")
    return " ".join(sentences)


def _described(bands: Mapping[str, Band], lost: Mapping[str, list[Trace]], scale: Scale) -> str:
    """The last values, in words."""
    decimals = scale.decimals(float(np.ptp([one.low[-1], one.high[-1]])) for one in bands.values())
    unit = " %" if scale.is_share else ""
    ends = [f"{label} {scale.text(float(one.mean[-1]), decimals)}{unit}" for label, one in bands.items()]
    text = f"Final means of the {scale.words}: {listed(ends)}." if ends else ""
    return text + (f" Optimizers with diverged runs: {listed(list(lost))}." if lost else "")
