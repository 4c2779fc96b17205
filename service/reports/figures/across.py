"""All tasks together: ranks, interquartile means, probabilities of improvement, performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from service.comparisons.answers import AcrossTasks, Improvement, Rank
from service.reports.figures.canvas import Picture, absent, canvas, plain_ticks
from service.reports.figures.scores import MOST_PAIRS, rows, short_names
from service.reports.figures.study import Study
from service.reports.palette import INK, MUTED, PAPER
from service.reports.wording import Scale, fixed, listed

BAR = 0.3
"""Height of a level of bars in the rank diagram, in rows."""


def ranks(study: Study, across: AcrossTasks, key: str) -> Picture:
    """Mean ranks on a line; bars join those that do not differ by more than the critical difference (Demsar 2006)."""
    title = "Mean ranks"
    found = [(rank, rank.mean_rank) for rank in across.ranks if rank.mean_rank is not None]
    if not found:
        return absent(title, f"no optimizer has a run on every task{study.yet}")
    found.sort(key=lambda one: one[1])
    bars = alike([rank for _, rank in found], across.critical_difference)
    names = short_names(study, [rank.label for rank, _ in found])
    top = 1.0 + BAR * len(bars)
    figure, axes = rows([names[rank.label] for rank, _ in found], above=top)
    axes.set_ylim(len(found) - 0.5, -top)
    axes.set_xlim(0.8, len(study.labels) + 0.2)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.spines["top"].set_visible(True)
    axes.spines["bottom"].set_visible(False)
    for y, (one, rank) in enumerate(found):
        look = study.looks[one.label]
        axes.plot([rank, rank], [-top, y], color=MUTED, linewidth=0.7, zorder=1)
        axes.plot([0.8, rank], [y, y], color=MUTED, linewidth=0.7, zorder=1)
        axes.plot([rank], [y], color=look.colour, marker=look.marker, markersize=6, zorder=3)
        axes.annotate(
            fixed(rank, 2),
            (rank, y),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"},
        )
    for level, (low, high) in enumerate(bars):
        y_bar = -top + BAR * (level + 1)
        axes.plot([low - 0.03, high + 0.03], [y_bar, y_bar], color=INK, linewidth=3, solid_capstyle="butt", zorder=2)
    axes.set_xlabel(f"mean rank over {across.tasks} tasks; 1 is best")
    plain_ticks(axes, "x", is_log=False)
    words = f"{listed([f'{one.label} {fixed(rank, 2)}' for one, rank in found])}."
    return study.picture(figure, key, title, words, _caption_of_ranks(across, bars))


def alike(sorted_ranks: Sequence[float], critical_difference: float | None) -> list[tuple[float, float]]:
    """The longest stretches of ranks that lie within a critical difference, of two or more."""
    if critical_difference is None:
        return []
    stretches: list[tuple[int, int]] = []
    for start, low in enumerate(sorted_ranks):
        end = max(index for index, rank in enumerate(sorted_ranks) if rank - low <= critical_difference)
        if end > start and (not stretches or end > stretches[-1][1]):
            stretches.append((start, end))
    return [(sorted_ranks[start], sorted_ranks[end]) for start, end in stretches]


def _caption_of_ranks(across: AcrossTasks, bars: Sequence[tuple[float, float]]) -> str:
    if across.critical_difference is None:
        why = "; ".join(across.cannot_say) or "too few tasks for a critical difference"
        return f"Descriptive only, without a significance test. {why}."
    text = f"Ranks that differ by more than {fixed(across.critical_difference, 2)} differ significantly (Nemenyi test)"
    return text + ("; bars join those that do not." if bars else "; here, all do.")


def interquartile_means(study: Study, across: AcrossTasks, key: str, metric: str) -> Picture:
    """The interquartile mean of each optimizer with its interval."""
    scale = Scale(metric)
    title = f"Interquartile mean of the {scale.words}"
    found = [(rank, rank.iqm) for rank in across.ranks if rank.iqm is not None]
    if not found:
        return absent(title, "too few runs")
    names = short_names(study, [rank.label for rank, _ in found])
    figure, axes = rows([names[rank.label] for rank, _ in found])
    for y, (rank, iqm) in enumerate(found):
        look = study.looks[rank.label]
        if rank.iqm_interval:
            ends = [scale.factor * end for end in rank.iqm_interval]
            axes.plot(ends, [y, y], color=look.colour, linewidth=2, solid_capstyle="butt", zorder=2)
        axes.plot([scale.factor * iqm], [y], color=look.colour, marker=look.marker, markersize=6, zorder=3)
    axes.set_xlabel(scale.with_unit)
    axes.margins(x=0.06)
    plain_ticks(axes, "x", is_log=False)
    caption = "Mean of the middle half of all runs over all tasks; lines are 95 % bootstrap intervals."
    return study.picture(figure, key, title, _iqm_in_words(found, scale), caption)


def _iqm_in_words(found: Sequence[tuple[Rank, float]], scale: Scale) -> str:
    decimals = scale.decimals([])
    return "; ".join(
        f"{rank.label} {scale.text(iqm, decimals)}"
        + (f" ({scale.interval(rank.iqm_interval, decimals)})" if rank.iqm_interval else "")
        for rank, iqm in found
    )


def improvements(study: Study, across: AcrossTasks, key: str) -> Picture:
    """The probability that a run of one beats one of the other."""
    title = "Probability of improvement"
    found = _better_first(across)
    if not found:
        return absent(title, "too few runs")
    left_out = len(found)
    if len(found) > MOST_PAIRS and across.ranks:
        found = [(one, p) for one, p in found if across.ranks[0].label in (one.a, one.b)]
    left_out -= len(found)
    names = short_names(study, list(dict.fromkeys(label for one, _ in found for label in (one.a, one.b))), 20)
    figure, axes = rows([f"{names[one.a]}\nover {names[one.b]}" for one, _ in found])
    axes.axvline(0.5, color=MUTED, linewidth=0.9, zorder=1)
    for y, (one, p) in enumerate(found):
        _draw_probability(axes, y, one, p, study)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("P(a run of the first optimizer is better)")
    plain_ticks(axes, "x", is_log=False)
    caption = "Averaged over tasks, with 95 % bootstrap intervals; filled markers: the interval excludes 0.5."
    caption += (
        f" Only pairs with {across.ranks[0].label} are shown; {left_out} more are in the JSON report."
        if left_out
        else ""
    )
    words = [f"{one.a} over {one.b} {fixed(p, 2)}" for one, p in found]
    return study.picture(figure, key, title, f"{listed(words)}.", caption)


def _better_first(across: AcrossTasks) -> list[tuple[Improvement, float]]:
    """Those that are known, in the order of the ranks, the optimizer of the better rank first in each."""
    order = list(dict.fromkeys([*(rank.label for rank in across.ranks), *_labels(across)]))
    found = []
    for one in across.improvements:
        if one.probability is None:
            continue
        if order.index(one.a) > order.index(one.b):
            ends = (1 - one.interval[1], 1 - one.interval[0]) if one.interval else None
            one = one.model_copy(update={"a": one.b, "b": one.a, "probability": 1 - one.probability, "interval": ends})
        assert one.probability is not None
        found.append((one, one.probability))
    return sorted(found, key=lambda pair: (order.index(pair[0].a), order.index(pair[0].b)))


def _labels(across: AcrossTasks) -> list[str]:
    return [label for one in across.improvements for label in (one.a, one.b)]


def _draw_probability(axes: Axes, y: float, one: Improvement, p: float, study: Study) -> None:
    look = study.looks[one.a if p >= 0.5 else one.b]
    certain = one.interval is not None and not one.interval[0] <= 0.5 <= one.interval[1]
    colour = look.colour if certain else MUTED
    if one.interval is not None:
        axes.plot(one.interval, [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    axes.plot(
        [p],
        [y],
        marker=look.marker if certain else "o",
        markersize=6,
        markerfacecolor=colour if certain else PAPER,
        markeredgecolor=colour,
        markeredgewidth=1.1,
        zorder=3,
    )


def profiles(study: Study, across: AcrossTasks, key: str) -> Picture:
    """Share of tasks on which an optimizer reached the target nearly as fast as the fastest."""
    title = "Performance profile of the time to target"
    if not across.profiles:
        return absent(title, "not every task has a target")
    figure, axes = canvas()
    for one in across.profiles:
        look = study.looks[one.label]
        (line,) = axes.step(
            one.ratios,
            one.shares,
            where="post",
            color=look.colour,
            marker=look.marker,
            markevery=(look.position % 12, 12),
            zorder=3,
        )
        if look.dashes:
            line.set_dashes(look.dashes)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("time relative to the fastest optimizer")
    axes.set_ylabel("share of tasks")
    plain_ticks(axes, "x", is_log=False)
    plain_ticks(axes, "y", is_log=False)
    words = [f"{one.label} {fixed(one.shares[0], 2)}" for one in across.profiles if one.shares]
    return study.picture(
        figure,
        key,
        title,
        f"Share of tasks on which each optimizer was the fastest: {listed(words)}.",
        "Higher and further to the left is faster; a missed target counts as never reached.",
        [one.label for one in across.profiles],
    )
