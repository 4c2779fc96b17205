"""The curves of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.metrics.read import Curve, thin
from service.reports.figures.canvas import WIDTH, GlyphSubstitution, Picture, absent, plain_ticks
from service.reports.figures.sheets import Sheet, add_legend
from service.reports.palette import MUTED, PlotStyle
from service.reports.traces import Array
from service.reports.wording import Scale, number
from service.specs.quantities import known
from service.specs.text import counted, listed

MAX_POINTS = 1200
"""Maximum number of points of a line, usually more than the figure has pixels. Thinning keeps the extremes."""
HEIGHTS = {1: 196.0, 2: 130.0}
"""Height of a panel in points, by number of columns."""


def curves(
    title: str,
    panels: Sequence[Sequence[str]],
    curves_by_name: Mapping[str, Curve],
    styles: Sequence[PlotStyle],
    glyphs: GlyphSubstitution,
    *,
    is_log: bool = False,
    smooth: float = 0.0,
) -> Picture:
    """Metrics by optimizer step: a panel for each group of metrics, a style for each metric of a panel.

    Args:
        smooth: weight of the past in an exponential moving average of the points, 0 to below 1; drawn on top of them.
    """
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH / 72, rows * HEIGHTS[columns] / 72), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    words, linear, remarks = [], [], []
    for axes, names in zip(all_axes, panels, strict=False):
        has_logarithm = is_log and any(_is_positive(curves_by_name[name]) for name in names)
        drawn = [
            name
            for name, style in zip(names, styles, strict=False)
            if _draw(axes, curves_by_name[name], style, name, smooth, is_log=has_logarithm)
        ]
        plain_ticks(axes, "x", is_log=False, max_ticks=6 // columns)
        plain_ticks(axes, "y", is_log=has_logarithm, max_ticks=5)
        linear += drawn if is_log and not has_logarithm else []
        left_out = [*_left_out([curves_by_name[name] for name in names], is_log=has_logarithm)]
        visible = [*left_out, *(["linear axis: no value above 0"] if is_log and drawn and not has_logarithm else [])]
        axes.set_title("\n".join(visible), loc="left", fontsize=8, color=MUTED)
        remarks += [f"{listed(names)}: {remark}" for remark in left_out]
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(glyphs.encode(_axis(names)))
        axes.margins(x=0.02)
        words += [f"{name} {_last(curves_by_name[name])}" for name in drawn]
    for axes in all_axes[len(panels) :]:
        axes.remove()
    if not words:
        return absent(title, "no value is finite")
    if len(linear) == len(words):
        return absent(title, "a logarithmic axis needs a value above 0")
    if columns == 1 and len(panels[0]) > 1:
        add_legend(figure, dict(zip((Scale(name).words for name in panels[0]), styles, strict=False)), glyphs)
    return Sheet(title=title, figure=figure, description=_described(words, linear, remarks, smooth))


def _left_out(curves: Sequence[Curve], *, is_log: bool) -> Iterator[str]:
    """How many values of a panel are not drawn, and why."""
    finite = [curve.values[np.isfinite(curve.values)] for curve in curves]
    if lost := sum(len(curve.values) for curve in curves) - sum(map(len, finite)):
        yield f"not drawn: {counted(lost, 'value')} not finite"
    if is_log and (below := sum(int((values <= 0).sum()) for values in finite)):
        yield f"not drawn: {counted(below, 'value')} at or below 0"


def _described(words: Sequence[str], linear: Sequence[str], remarks: Sequence[str], smooth: float) -> str:
    """The last values, and how the lines are drawn."""
    text = f"Last values: {listed(words)}."
    if remarks:
        text += f" {'; '.join(remarks)}."
    if linear:
        text += f" On a linear axis, because no value is above 0: {listed(linear)}."
    if smooth:
        text += f" Lines are exponential moving averages (smoothing {smooth:g}) of the faint lines."
    return text


def _is_positive(curve: Curve) -> bool:
    """Whether the curve has values for a logarithmic axis."""
    return bool((np.isfinite(curve.values) & (curve.values > 0)).any())


def _axis(names: Sequence[str]) -> str:
    """Axis title: the metric, or the common part of several metrics, with its unit."""
    if len(names) == 1:
        return Scale(names[0]).with_unit
    return "accuracy (%)" if Scale(names[0]).is_share else names[0].rpartition("_")[2]


def _last(curve: Curve) -> str:
    return number(known(float(curve.values[-1]))) or "not finite"


def _draw(axes: Axes, curve: Curve, style: PlotStyle, name: str, smooth: float, *, is_log: bool) -> bool:
    """Draw a line, with a cross where its values cease to be finite; False if no value is finite.

    On a logarithmic axis, it has gaps where values are not above 0.
    """
    finite = np.isfinite(curve.values)
    if not finite.any():
        return False
    factor = Scale(name).factor
    seen = Curve(curve.steps[finite], factor * curve.values[finite], curve.wall_seconds[finite])
    shown = _shown(seen, is_log=is_log)
    mark = style.marker if len(shown.steps) <= 40 and not smooth else ""
    width, alpha = (0.7, 0.35) if smooth else (1.3, 1.0)
    (line,) = axes.plot(
        shown.steps,
        shown.values,
        color=style.colour,
        alpha=alpha,
        linewidth=width,
        marker=mark,
        markersize=3.5,
        zorder=2,
    )
    if smooth:
        average = _shown(Curve(seen.steps, _smoothed(seen.values, smooth), seen.wall_seconds), is_log=is_log)
        (line,) = axes.plot(average.steps, average.values, color=style.colour, linewidth=1.5, zorder=3)
    if style.dashes:
        line.set_dashes(style.dashes)
    if not finite[-1]:
        axes.plot(seen.steps[-1:], seen.values[-1:], color=style.colour, marker="x", markersize=6, markeredgewidth=1.4)
    return True


def _shown(curve: Curve, *, is_log: bool) -> Curve:
    values = np.where(curve.values > 0, curve.values, np.nan) if is_log else curve.values
    return thin(Curve(curve.steps, values, curve.wall_seconds), MAX_POINTS)


def _smoothed(values: Array, weight: float) -> Array:
    """Exponential moving average, without the bias of its start (Kingma and Ba 2015, section 3)."""
    average, smoothed = 0.0, np.empty(len(values))
    for place, value in enumerate(values.tolist()):
        average = weight * average + (1 - weight) * value
        smoothed[place] = average / (1 - weight ** (place + 1))
    return smoothed
