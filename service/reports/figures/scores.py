"""Scores of the runs of a task, differences between optimizers, and times to the target."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.comparisons.answers import GroupView, PairView, TaskAnswer
from service.reports.figures.canvas import Picture, absent, canvas, plain_ticks
from service.reports.figures.study import Study
from service.reports.lookup import planned
from service.reports.palette import INK, MUTED, PAPER, PlotStyle
from service.reports.traces import GroupCurves, first_hit
from service.reports.wording import Scale, all_shortened, shortened
from service.specs.metric_text import sign
from service.specs.quantities import duration
from service.specs.text import counted, listed

ROW = 25.0
"""Height of a row in points; its label may have two lines."""
MAX_PAIRS = 15
"""Pairs up to which all are drawn; beyond, only those with the best mean."""
LETTERS = 32
"""Maximum length of a label beside a figure, in characters."""


def rows(names: Sequence[str], *, above: float = 0.0) -> tuple[Figure, Axes]:
    """Axes with a row for each name, the first on top; row i is at y = i."""
    figure, axes = canvas((len(names) + above) * ROW + 44)
    axes.set_ylim(len(names) - 0.45, -0.55 - above)
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names], color=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure, axes


def wrapped(name: str) -> str:
    """The name, on two lines if it is long."""
    if "\n" in name or len(name) <= LETTERS // 2 + 2:
        return name
    lines = textwrap.wrap(name, LETTERS // 2 + 2, break_on_hyphens=False)
    return "\n".join(lines if len(lines) <= 2 else [name[: len(name) // 2].strip(), name[len(name) // 2 :].strip()])


def short_names(study: Study, labels: Sequence[str], max_letters: int = LETTERS) -> dict[str, str]:
    """Label -> its short form in a figure."""
    return {
        label: study.glyphs.encode(text) for label, text in zip(labels, all_shortened(labels, max_letters), strict=True)
    }


# --- every run -------------------------------------------------------------------------------------------------------


def endpoints(study: Study, task: TaskAnswer, key: str, runs: Mapping[str, GroupCurves]) -> Picture:
    """The endpoint of each run, with mean and interval of each optimizer."""
    scale = Scale(task.metric)
    title = f"{scale.words.capitalize()} of every run"
    groups = [group for group in task.groups if group.mean is not None or group.diverged]
    if not groups:
        return absent(title, f"no final run has a result{study.yet}")
    score = planned(study.answer, task).get("diverged_score")
    names = short_names(study, [group.label for group in groups])
    for group in groups:
        if group.diverged:
            names[group.label] = f"{shortened(names[group.label], LETTERS // 2)}\n{group.diverged} diverged"
    values = {group.label: runs[group.label].endpoints(task.metric) for group in groups}
    figure, axes = rows([names[group.label] for group in groups])
    window = _window_of_runs(groups, values, score, scale)
    axes.set_xlim(window.low, window.high)
    for y, group in enumerate(groups):
        style = study.styles[group.label]
        _draw_dots(axes, y, [scale.factor * value for value in values[group.label]], style)
        _draw_mean(axes, y, group, style, scale, window)
        if group.diverged:
            _draw_diverged(axes, y, group.diverged, score, style, scale, window)
    axes.set_xlabel(scale.with_unit)
    plain_ticks(axes, "x", is_log=False)
    alone = not any(values.values())
    caption = _caption_of_runs(groups, score, scale, alone=alone, is_cut=window.is_cut)
    return study.picture(figure, key, title, _described(groups, scale), caption)


@dataclass(frozen=True)
class Window:
    """The visible range of an axis: all values, unless outliers would hide the differences between the others."""

    low: float
    high: float
    is_cut: bool

    @classmethod
    def around(cls, usual: Sequence[float], all_of_them: Sequence[float], *, maximum: float | None = None) -> Window:
        """The range of all values, or of the usual ones if that of all is more than 5 times as wide."""
        shown = usual if usual and np.ptp(all_of_them) > 5 * np.ptp(usual) > 0 else all_of_them
        low, high = min(shown), max(shown)
        margin = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
        top = high + margin if maximum is None else min(high + margin, 1.02 * maximum)
        return cls(low - margin, top, len(shown) < len(all_of_them))

    def at_edge(self, *, low: bool) -> float:
        """Position of a marker for a value beyond the range."""
        inset = 0.02 * (self.high - self.low)
        return self.low + inset if low else self.high - inset

    def holds(self, value: float) -> bool:
        """Whether a value is in the range."""
        return self.low <= value <= self.high


def _window_of_runs(
    groups: Sequence[GroupView], values: Mapping[str, Sequence[float]], score: float | None, scale: Scale
) -> Window:
    usual: list[float] = []
    all_of_them: list[float] = []
    for group in groups:
        all_of_them += values[group.label]
        of_means = [value for value in (group.mean, *(group.interval or ())) if value is not None]
        (all_of_them if group.diverged else usual).extend(of_means)
        if group.diverged and score is not None:
            all_of_them.append(score)
    usual += [value for of_group in values.values() for value in of_group]
    shown = [[scale.factor * value for value in part] for part in (usual, all_of_them + usual)]
    return Window.around(shown[0], shown[1] or [0.0], maximum=100.0 if scale.is_share else None)


def _draw_diverged(
    axes: Axes, y: float, count: int, score: float | None, style: PlotStyle, scale: Scale, window: Window
) -> None:
    """Draw a cross per run at its declared score; at the edge if it has none, or one out of range."""
    at = None if score is None else scale.factor * score
    if at is None or not window.holds(at):
        at = window.at_edge(low=at is None or at < window.low)
    _draw_crosses(axes, y, [at] * count, style)


def _draw_dots(axes: Axes, y: float, values: Sequence[float], style: PlotStyle, *, above: float = 0.14) -> None:
    """Draw a dot per run, on two lines so that neighbors do not overlap."""
    for number, value in enumerate(sorted(values)):
        axes.plot(
            [value],
            [y - above + (0.1 if number % 2 else 0.0)],
            linestyle="none",
            color=style.colour,
            marker=style.marker,
            markersize=5,
            markeredgecolor=PAPER,
            markeredgewidth=0.4,
            alpha=0.85,
            zorder=3,
        )


def _draw_crosses(axes: Axes, y: float, values: Sequence[float], style: PlotStyle) -> None:
    for number, value in enumerate(sorted(values)):
        axes.plot(
            [value],
            [y - 0.2 + 0.14 * (number % 3)],
            linestyle="none",
            color=style.colour,
            marker="x",
            markersize=5,
            markeredgewidth=1.4,
            zorder=3,
        )


def _draw_mean(axes: Axes, y: float, group: GroupView, style: PlotStyle, scale: Scale, window: Window) -> None:
    """Draw a bar for the mean, or an arrow if it is out of range, and a line for its interval."""
    if group.mean is None:
        return
    mean = scale.factor * group.mean
    if group.interval is not None:
        ends = [scale.factor * end for end in group.interval]
        axes.plot(ends, [y + 0.24] * 2, color=style.colour, linewidth=2, solid_capstyle="butt", zorder=2)
    if window.holds(mean):
        axes.plot([mean] * 2, [y + 0.12, y + 0.36], color=INK, linewidth=1.6, zorder=4)
    else:
        _point_beyond(axes, y + 0.24, window, low=mean < window.low)


def _point_beyond(axes: Axes, y: float, window: Window, *, low: bool) -> None:
    """Draw an arrow at the edge for a value out of range."""
    axes.plot(
        [window.at_edge(low=low)],
        [y],
        marker="<" if low else ">",
        color=INK,
        markersize=5.5,
        markeredgecolor=PAPER,
        markeredgewidth=0.6,
        zorder=5,
    )


def _caption_of_runs(
    groups: Sequence[GroupView], score: float | None, scale: Scale, *, alone: bool, is_cut: bool
) -> str:
    text = "Bars are means" if alone else "Each mark is a run; bars are means"
    text += ", lines their 95 % intervals." if any(group.interval for group in groups) else "."
    if alone:
        text += " The values of individual runs are not available."
    if any(group.diverged for group in groups):
        declared = "have no score" if score is None else f"count as {scale.with_percent(score)}"
        text += f" Crosses are runs that diverged and {declared}."
    return text + (" Arrows point to means beyond the axis." if is_cut else "")


def _described(groups: Sequence[GroupView], scale: Scale) -> str:
    decimals = scale.decimals(group.sd for group in groups)
    unit = " %" if scale.is_share else ""
    sentences = []
    for group in groups:
        text = f"{group.label}: {counted(group.n, 'run')}"
        text += f", mean {scale.text(group.mean, decimals)}{unit}" if group.mean is not None else ""
        text += f" ({scale.interval(group.interval, decimals)})" if group.interval else ""
        sentences.append(text + (f", {group.diverged} diverged" if group.diverged else ""))
    return "; ".join(sentences) + "."


# --- differences -----------------------------------------------------------------------------------------------------


def differences(study: Study, task: TaskAnswer, key: str) -> Picture:
    """Paired differences with their intervals."""
    scale = Scale(task.metric)
    title = "Paired differences"
    pairs = [pair for pair in task.pairs if pair.difference is not None]
    if not pairs:
        return absent(title, "no seed has finished runs of two optimizers")
    best = task.groups[0].label
    left_out = len(pairs)
    if len(pairs) > MAX_PAIRS:
        pairs = [pair for pair in pairs if best in (pair.a, pair.b)]
    left_out -= len(pairs)
    labels = list(dict.fromkeys(label for pair in pairs for label in (pair.a, pair.b)))
    names = short_names(study, labels, LETTERS // 2 + 4)
    figure, axes = rows([f"{names[pair.a]}\n\N{MINUS SIGN} {names[pair.b]}" for pair in pairs])
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    window = _window_of_differences(task, pairs, scale)
    axes.set_xlim(window.low, window.high)
    for y, pair in enumerate(pairs):
        _draw_difference(axes, y, pair, study, scale, sign(task.metric), window)
    axes.set_xlabel(scale.difference)
    plain_ticks(axes, "x", is_log=False)
    side = "right" if sign(task.metric) > 0 else "left"
    caption = f"To the {side} of zero, the first optimizer is better. "
    caption += "Lines are the intervals in the table. " if any(pair.interval for pair in pairs) else ""
    caption += "Filled markers show significant differences."
    caption += " Arrows point to means beyond the axis." if window.is_cut else ""
    if left_out:
        caption += f" Only pairs with {best} are shown; the other {left_out} are in the table."
    return study.picture(figure, key, title, _differences_in_words(pairs, scale), caption)


def _window_of_differences(task: TaskAnswer, pairs: Sequence[PairView], scale: Scale) -> Window:
    """The range of the differences; those of pairs with diverged runs count as outliers."""
    diverged = {group.label for group in task.groups if group.diverged}
    usual, all_of_them = [0.0], [0.0]
    for pair in pairs:
        ends = [scale.factor * value for value in (pair.difference, *(pair.interval or ())) if value is not None]
        all_of_them += ends
        usual += [] if diverged & {pair.a, pair.b} else ends
    return Window.around(usual, all_of_them)


def _draw_difference(
    axes: Axes, y: float, pair: PairView, study: Study, scale: Scale, direction: int, window: Window
) -> None:
    assert pair.difference is not None
    better = pair.a if direction * pair.difference > 0 else pair.b
    style = study.styles[better]
    colour = style.colour if pair.significant else MUTED
    if pair.interval is not None:
        ends = [scale.factor * end for end in pair.interval]
        axes.plot(ends, [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        for end in ends:
            axes.plot([end, end], [y - 0.13, y + 0.13], color=colour, linewidth=1.0, zorder=2)
    difference = scale.factor * pair.difference
    if not window.holds(difference):
        _point_beyond(axes, y, window, low=difference < window.low)
        return
    axes.plot(
        [difference],
        [y],
        linestyle="none",
        marker=style.marker if pair.significant else "o",
        markersize=6,
        markerfacecolor=colour if pair.significant else PAPER,
        markeredgecolor=colour,
        markeredgewidth=1.1,
        zorder=3,
    )


def _differences_in_words(pairs: Sequence[PairView], scale: Scale) -> str:
    decimals = scale.decimals(pair.detail.sd for pair in pairs)
    unit = " percentage points" if scale.is_share else ""
    return (
        "; ".join(
            f"{pair.a} minus {pair.b}: {scale.text(pair.difference, decimals)}{unit}"
            + (f" ({scale.interval(pair.interval, decimals)})" if pair.interval else "")
            + (", significant" if pair.significant else "")
            for pair in pairs
        )
        + "."
    )


# --- time to the target ----------------------------------------------------------------------------------------------


def times_to_target(study: Study, task: TaskAnswer, key: str, runs: Mapping[str, GroupCurves]) -> Picture:
    """Time at which each run reached the target, or ended without reaching it."""
    title = "Time to target"
    if task.target is None:
        return absent(title, "the task has no target")
    hits_by_label = {}
    for label, group_runs in runs.items():
        hits = [hit for run in group_runs.finished if (hit := first_hit(run, task.target))]
        misses = [
            (end, False) for run in group_runs.diverged if (hit := first_hit(run, task.target)) for end in hit[:1]
        ]
        if hits or misses:
            hits_by_label[label] = [*hits, *misses]
    if not hits_by_label:
        return absent(title, "no run has this curve, or it is no longer stored")
    names = short_names(study, list(hits_by_label))
    medians = {group.label: group.seconds for group in task.to_target}
    figure, axes = rows([names[label] for label in hits_by_label])
    for y, (label, hits) in enumerate(hits_by_label.items()):
        style = study.styles[label]
        _draw_dots(axes, y, [seconds for seconds, met in hits if met], style)
        _draw_crosses(axes, y, [seconds for seconds, met in hits if not met], style)
        if (median := medians.get(label)) is not None:
            axes.plot([median] * 2, [y + 0.12, y + 0.36], color=INK, linewidth=1.6, zorder=4)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the start of the run")
    plain_ticks(axes, "x", is_log=False)
    missed = any(not met for hits in hits_by_label.values() for _, met in hits)
    caption = "Each mark is a run that reached the target; bars are medians over all runs, counting a miss as infinite."
    caption += " Crosses are runs that missed it, at their end." if missed else ""
    words = [
        f"{label}: {sum(met for _, met in hits)} of {counted(len(hits), 'run')}"
        + (f", median {duration(median)}" if (median := medians.get(label)) is not None else "")
        for label, hits in hits_by_label.items()
    ]
    return study.picture(figure, key, title, f"Reached by {listed(words)}.", caption)
