"""Trials of the tuning: scores, sensitivity to parameters, and tuning effort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.comparisons.answers import TaskAnswer, TrialView, TuningView
from service.reports.figures.canvas import HEIGHT, WIDTH, Picture, absent, canvas, plain_ticks, tick
from service.reports.figures.study import Study
from service.reports.palette import INK, MUTED, PAPER, PlotStyle
from service.reports.wording import Scale, number, parameters
from service.specs.quantities import known
from service.specs.text import counted, listed

LR = "lr"
LANE = 9.0
"""Height of the row with an optimizer's range of good rates, in points."""


def learning_rates(study: Study, task: TaskAnswer, key: str) -> Picture:
    """Score by learning rate, and below it the range of good rates."""
    title = "Sensitivity to the learning rate"
    views = [view for view in task.tuning if any(LR in trial.params for trial in view.trials)]
    if not views:
        return absent(title, "no learning rate was tuned")
    ended = [view for view in views if any(_at(trial, LR) for trial in view.trials if trial.status != "waiting")]
    if not ended:
        return absent(title, f"no trial has ended{study.yet}")
    scale = Scale(ended[0].metric)
    ranges = [view for view in ended if view.good_range and view.good_range.low and view.good_range.high]
    figure, axes, lanes = _with_lanes(len(ranges))
    for view in ended:
        _draw_trials(axes, view, study.styles[view.label], scale)
    axes.set_ylabel(scale.with_unit)
    scores = [trial.score for view in ended for trial in view.trials if trial.score is not None]
    is_cut = _cut(axes, scores, scale)
    plain_ticks(axes, "y", is_log=False)
    if lanes is not None:
        _draw_ranges(lanes, ranges, study)
    bottom = axes if lanes is None else lanes
    bottom.set_xlabel("learning rate")
    plain_ticks(bottom, "x", is_log=True)
    for view in ended:  # last, because they are placed relative to the final limits
        _draw_failed(axes, view, study.styles[view.label])
    labels = [view.label for view in ended]
    caption = _caption(ended, ranges, scale) + (" Scores far from the best are outside the axis." if is_cut else "")
    return study.picture(figure, key, title, _rates_in_words(ended, scale), caption, labels)


def _cut(axes: Axes, scores: Sequence[float], scale: Scale) -> bool:
    """Limit the y axis if bad scores would hide the differences between good ones; whether it was limited."""
    values = np.array([scale.factor * score for score in scores])
    if not len(values):
        return False
    best, worst = (values.max(), values.min()) if scale.is_share else (values.min(), values.max())
    floor = _floor(values, best, worst)
    if floor == worst:
        return False
    margin = 0.06 * abs(best - floor)
    axes.set_ylim(min(floor, best - margin), max(floor, best + margin))
    return True


def _with_lanes(count: int) -> tuple[Figure, Axes, Axes | None]:
    """Axes, and narrow axes below them with a row for each of `count` ranges; None without ranges."""
    if not count:
        figure, axes = canvas()
        return figure, axes, None
    below = count * LANE + 6
    figure = Figure(figsize=(WIDTH / 72, (HEIGHT + below) / 72), layout="constrained")
    axes, lanes = figure.subplots(2, sharex=True, height_ratios=[HEIGHT - 44, below])
    axes.tick_params(labelbottom=False)
    lanes.set_ylim(count - 0.4, -0.6)
    lanes.set_yticks([])
    lanes.set_ylabel("good", rotation=0, ha="right", va="center")
    lanes.grid(visible=False, axis="y")
    return figure, axes, lanes


def _draw_trials(axes: Axes, view: TuningView, style: PlotStyle, scale: Scale) -> None:
    """Draw a line if only the rate was tuned, else single markers; the chosen trial has a ring."""
    points = sorted(
        (trial.params[LR], scale.factor * trial.score)
        for trial in view.trials
        if trial.score is not None and _at(trial, LR) and trial.rung == _last_rung(view)
    )
    alone = all(set(trial.params) == {LR} for trial in view.trials)
    (line,) = axes.plot(
        [rate for rate, _ in points],
        [score for _, score in points],
        color=style.colour,
        marker=style.marker,
        linestyle="-" if alone else "none",
        markeredgecolor=PAPER,
        markeredgewidth=0.4,
        linewidth=1.2,
        zorder=3,
    )
    if alone and style.dashes:
        line.set_dashes(style.dashes)
    chosen = _chosen(view)
    if chosen is not None and chosen.score is not None and _at(chosen, LR):
        _draw_ring(axes, chosen.params[LR], scale.factor * chosen.score)


def _draw_ring(axes: Axes, x: float, y: float) -> None:
    axes.plot(
        [x], [y], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2, zorder=5
    )


def _draw_failed(axes: Axes, view: TuningView, style: PlotStyle) -> None:
    """Draw trials without a score as crosses at the bottom."""
    rates = [trial.params[LR] for trial in view.trials if trial.status in ("diverged", "failed") and _at(trial, LR)]
    axes.plot(
        rates,
        [0.03] * len(rates),
        transform=axes.get_xaxis_transform(),
        linestyle="none",
        color=style.colour,
        marker="x",
        markersize=5,
        markeredgewidth=1.4,
        zorder=4,
    )


def _draw_ranges(lanes: Axes, views: Sequence[TuningView], study: Study) -> None:
    """Draw a bar from the lowest to the highest good rate; arrows mark open ends."""
    for y, view in enumerate(views):
        good = view.good_range
        assert good is not None
        assert good.low is not None
        assert good.high is not None
        colour = study.styles[view.label].colour
        lanes.plot([good.low, good.high], [y, y], color=colour, linewidth=4, solid_capstyle="butt", zorder=3)
        for end, is_open, marker in ((good.low, good.open_low, "<"), (good.high, good.open_high, ">")):
            if is_open or good.low == good.high:
                lanes.plot([end], [y], color=colour, marker=marker if is_open else "|", markersize=6, zorder=3)


def _caption(views: Sequence[TuningView], ranges: Sequence[TuningView], scale: Scale) -> str:
    sentences = ["Validation score of each trial; a ring marks the chosen one."]
    if ranges:
        tolerances = {view.good_range.tolerance for view in ranges if view.good_range}
        within = (
            f"within {_points(scale.factor * tolerances.pop())} of the best"
            if scale.is_share and len(tolerances) == 1
            else "close to the best (within 5 %)"
        )
        sentences.append(f"Bars below: good rates, {within}; arrows mark ranges that may extend further.")
    if any(trial.status in ("diverged", "failed") for view in views for trial in view.trials):
        sentences.append("Crosses at the bottom are trials that diverged or failed.")
    more = [view.label for view in views if any(len(trial.params) > 1 for trial in view.trials)]
    if more:
        sentences.append(f"Without a line, because other hyperparameters were tuned too: {listed(more)}.")
    if any(view.trials and _last_rung(view) for view in views):
        sentences.append("Only trials with the full budget are shown.")
    return " ".join(sentences)


def _points(points: float) -> str:
    return f"{number(points)} point{'s' * (points != 1)}"


def _rates_in_words(views: Sequence[TuningView], scale: Scale) -> str:
    sentences = []
    for view in views:
        chosen = _chosen(view)
        text = f"{view.label}: {counted(len(view.trials), 'trial')}"
        if chosen is not None and chosen.score is not None:
            text += f", chosen {parameters(chosen.params)} with {scale.text(chosen.score, scale.decimals([]))}"
        good = view.good_range
        if good is not None and good.low is not None and good.high is not None:
            text += f", good rates {number(good.low)} to {number(good.high)}"
        sentences.append(text)
    return "; ".join(sentences) + "."


# --- two parameters --------------------------------------------------------------------------------------------------


def two_parameters(study: Study, view: TuningView, key: str) -> Picture | None:
    """Score by learning rate (or the first parameter) and the next parameter; None if fewer than two were tuned."""
    names = sorted({name for trial in view.trials for name in trial.params}, key=lambda name: name != LR)
    if len(names) < 2:
        return None
    title = f"Trials of {view.label}"
    x, y = names[:2]
    scored = [trial for trial in view.trials if known(trial.score) is not None and trial.rung == _last_rung(view)]
    if not scored:
        return absent(title, f"no trial has a score{study.yet}")
    scale = Scale(view.metric)
    figure, axes = canvas(HEIGHT + 20)
    positions = {name: _Positions([trial.params[name] for trial in view.trials]) for name in (x, y)}

    def point(trial: TrialView) -> tuple[float, float]:
        return positions[x].of(trial.params[x]), positions[y].of(trial.params[y])

    _draw_scores(figure, axes, [point(trial) for trial in scored], [trial.score or 0.0 for trial in scored], scale)
    lost = [trial for trial in view.trials if trial.status in ("diverged", "failed")]
    _draw_lost(axes, [point(trial) for trial in lost])
    chosen = _chosen(view)
    if chosen is not None:
        _draw_ring(axes, *point(chosen))
    for name, axis_name in ((x, "x"), (y, "y")):
        (axes.set_xlabel if axis_name == "x" else axes.set_ylabel)(study.glyphs.encode(name))
        positions[name].set_ticks(axes, axis_name)
        axes.margins(0.08)
    caption = f"Each mark is a trial, colored by {scale.words}; a ring marks the chosen one."
    caption += " Crosses are trials that diverged or failed." if lost else ""
    caption += f" Also tuned: {listed(names[2:])}." if names[2:] else ""
    return study.picture(figure, key, title, _rates_in_words([view], scale), caption)


def _draw_scores(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float]], scores: Sequence[float], scale: Scale
) -> None:
    """Draw a dot per scored trial, colored by its score, and the color bar."""
    values = np.array([scale.factor * score for score in scores])
    best, worst = (values.max(), values.min()) if scale.is_share else (values.min(), values.max())
    floor = _floor(values, best, worst)
    dots = axes.scatter(
        [x for x, _ in points],
        [y for _, y in points],
        c=values,
        cmap=colormaps["viridis" if scale.is_share else "viridis_r"],
        vmin=min(floor, best),
        vmax=max(floor, best) if floor != best else best + 1e-9,
        s=52,
        edgecolors=MUTED,
        linewidths=0.4,
        zorder=3,
    )
    bar = figure.colorbar(dots, ax=axes, aspect=25, pad=0.02, extend="neither" if floor == worst else _extend(scale))
    bar.set_label(scale.with_unit)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: tick(value))


def _draw_lost(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Draw a cross per trial that diverged or failed."""
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        linestyle="none",
        marker="x",
        color=MUTED,
        markersize=6,
        markeredgewidth=1.4,
    )


class _Positions:
    """Positions of a parameter's values on an axis: numbers at their value, other values at equal distances."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        self.names = sorted({number(value) for value in values})
        numbers = [float(value) for value in values] if self.are_numbers else []
        self.is_log = self.are_numbers and min(numbers) > 0 and max(numbers) >= 8 * min(numbers)

    def of(self, value: Any) -> float:
        """The coordinate of a value."""
        return float(value) if self.are_numbers else float(self.names.index(number(value)))

    def set_ticks(self, axes: Axes, axis_name: str) -> None:
        """Label the axis with the values."""
        if self.are_numbers:
            plain_ticks(axes, axis_name, is_log=self.is_log)
        else:
            (axes.set_xticks if axis_name == "x" else axes.set_yticks)(range(len(self.names)), self.names)


def _floor(values: Any, best: float, worst: float) -> float:
    """The worst value of the scale: 3 times as far from the best as the median, so that good values stay distinct."""
    middle = float(np.median(values))
    span = 3 * abs(best - middle)
    if not span or abs(worst - best) <= span:
        return worst
    return best - span if best > worst else best + span


def _extend(scale: Scale) -> str:
    return "min" if scale.is_share else "max"


# --- tuning effort ---------------------------------------------------------------------------------------------------


def expected_best(study: Study, task: TaskAnswer, key: str) -> Picture:
    """Expected best score after each number of trials."""
    title = "Expected best score by number of trials"
    views = [view for view in task.tuning if len(view.expected_best) > 1]
    if not views:
        return absent(title, "fewer than two trials, or not all of them with the full budget")
    scale = Scale(views[0].metric)
    figure, axes = canvas()
    for view in views:
        style = study.styles[view.label]
        (line,) = axes.plot(
            range(1, len(view.expected_best) + 1),
            [scale.factor * value for value in view.expected_best],
            color=style.colour,
            marker=style.marker,
            markersize=4,
            zorder=3,
        )
        if style.dashes:
            line.set_dashes(style.dashes)
    axes.set_xlabel("trials")
    axes.set_ylabel(scale.with_unit)
    _cut(axes, [score for view in views for score in view.expected_best], scale)
    plain_ticks(axes, "y", is_log=False)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    words = [f"{view.label} {scale.text(view.expected_best[-1], scale.decimals([]))}" for view in views]
    return study.picture(
        figure,
        key,
        title,
        f"After all trials: {listed(words)}.",
        "Expected best validation score after this number of trials, in random order.",
        [view.label for view in views],
    )


def _at(trial: TrialView, name: str) -> bool:
    """Whether a trial has a positive number for a parameter."""
    value = trial.params.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _last_rung(view: TuningView) -> int:
    return max((trial.rung for trial in view.trials), default=0)


def _chosen(view: TuningView) -> TrialView | None:
    return next((trial for trial in view.trials if trial.trial == view.chosen), None)
