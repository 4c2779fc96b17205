"""All tasks together: ranks, interquartile means, probabilities of improvement, performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from service.comparisons.answers import AcrossTasks, Improvement, Rank
from service.reports.figures.canvas import Picture, absent, canvas, plain_ticks
from service.reports.figures.scores import MAX_PAIRS, rows, short_names
from service.reports.figures.study import Study
from service.reports.palette import INK, MUTED, PAPER
from service.reports.wording import Scale, fixed
from service.specs.text import agreeing, listed

BAR = 0.3
"""Height of a level of bars in the rank diagram, in rows."""


def ranks(study: Study, across: AcrossTasks, key: str) -> Picture:
    """Mean ranks; bars join those that do not differ by more than the critical difference (Demsar 2006)."""
    title = "Mean ranks"
    ranked = [(rank, rank.mean_rank) for rank in across.ranks if rank.mean_rank is not None]
    if not ranked:
        return absent(title, f"no optimizer has a run on every task{study.yet}")
    ranked.sort(key=lambda item: item[1])
    bars = alike([rank for _, rank in ranked], across.critical_difference)
    names = short_names(study, [rank.label for rank, _ in ranked])
    top = 1.0 + BAR * len(bars)
    figure, axes = rows([names[rank.label] for rank, _ in ranked], above=top)
    axes.set_ylim(len(ranked) - 0.5, -top)
    axes.set_xlim(0.8, len(study.labels) + 0.2)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.spines["top"].set_visible(True)
    axes.spines["bottom"].set_visible(False)
    for y, (view, rank) in enumerate(ranked):
        style = study.styles[view.label]
        axes.plot([rank, rank], [-top, y], color=MUTED, linewidth=0.7, zorder=1)
        axes.plot([0.8, rank], [y, y], color=MUTED, linewidth=0.7, zorder=1)
        axes.plot([rank], [y], color=style.colour, marker=style.marker, markersize=6, zorder=3)
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
    words = f"{listed([f'{view.label} {fixed(rank, 2)}' for view, rank in ranked])}."
    return study.picture(figure, key, title, words, _caption_of_ranks(across, bars))


def alike(sorted_ranks: Sequence[float], critical_difference: float | None) -> list[tuple[float, float]]:
    """First and last rank of each maximal group of two or more ranks within a critical difference."""
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
    """Interquartile mean of each optimizer with its interval."""
    scale = Scale(metric)
    title = f"Interquartile mean of the {scale.words}"
    scored = [(rank, rank.iqm) for rank in across.ranks if rank.iqm is not None]
    if not scored:
        return absent(title, "too few runs")
    names = short_names(study, [rank.label for rank, _ in scored])
    figure, axes = rows([names[rank.label] for rank, _ in scored])
    for y, (rank, iqm) in enumerate(scored):
        style = study.styles[rank.label]
        if rank.iqm_interval:
            ends = [scale.factor * end for end in rank.iqm_interval]
            axes.plot(ends, [y, y], color=style.colour, linewidth=2, solid_capstyle="butt", zorder=2)
        axes.plot([scale.factor * iqm], [y], color=style.colour, marker=style.marker, markersize=6, zorder=3)
    axes.set_xlabel(scale.with_unit)
    axes.margins(x=0.06)
    plain_ticks(axes, "x", is_log=False)
    caption = "Mean of the middle half of all runs over all tasks; lines are 95 % bootstrap intervals."
    return study.picture(figure, key, title, _iqm_in_words(scored, scale), caption)


def _iqm_in_words(scored: Sequence[tuple[Rank, float]], scale: Scale) -> str:
    decimals = scale.decimals([])
    return "; ".join(
        f"{rank.label} {scale.text(iqm, decimals)}"
        + (f" ({scale.interval(rank.iqm_interval, decimals)})" if rank.iqm_interval else "")
        for rank, iqm in scored
    )


def improvements(study: Study, across: AcrossTasks, key: str) -> Picture:
    """Probability that a run of one optimizer beats a run of the other, for each pair."""
    title = "Probability of improvement"
    pairs = _better_first(across)
    if not pairs:
        return absent(title, "too few runs")
    left_out = len(pairs)
    if len(pairs) > MAX_PAIRS and across.ranks:
        pairs = [(pair, p) for pair, p in pairs if across.ranks[0].label in (pair.a, pair.b)]
    left_out -= len(pairs)
    names = short_names(study, list(dict.fromkeys(label for pair, _ in pairs for label in (pair.a, pair.b))), 20)
    figure, axes = rows([f"{names[pair.a]}\nover {names[pair.b]}" for pair, _ in pairs])
    axes.axvline(0.5, color=MUTED, linewidth=0.9, zorder=1)
    for y, (pair, p) in enumerate(pairs):
        _draw_probability(axes, y, pair, p, study)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("P(a run of the first optimizer is better)")
    plain_ticks(axes, "x", is_log=False)
    caption = "Averaged over tasks, with 95 % bootstrap intervals; filled markers: the interval excludes 0.5."
    caption += (
        f" Only pairs with {across.ranks[0].label} are shown; {left_out} more {agreeing(left_out, 'is', 'are')} in "
        "the JSON report."
        if left_out
        else ""
    )
    words = [f"{pair.a} over {pair.b} {fixed(p, 2)}" for pair, p in pairs]
    return study.picture(figure, key, title, f"{listed(words)}.", caption)


def _better_first(across: AcrossTasks) -> list[tuple[Improvement, float]]:
    """Known probabilities, ordered by rank; the first optimizer of each pair has the better rank."""
    order = list(dict.fromkeys([*(rank.label for rank in across.ranks), *_labels(across)]))
    pairs = []
    for pair in across.improvements:
        if pair.probability is None:
            continue
        if order.index(pair.a) > order.index(pair.b):
            ends = (1 - pair.interval[1], 1 - pair.interval[0]) if pair.interval else None
            pair = pair.model_copy(
                update={"a": pair.b, "b": pair.a, "probability": 1 - pair.probability, "interval": ends}
            )
        assert pair.probability is not None
        pairs.append((pair, pair.probability))
    return sorted(pairs, key=lambda item: (order.index(item[0].a), order.index(item[0].b)))


def _labels(across: AcrossTasks) -> list[str]:
    return [label for pair in across.improvements for label in (pair.a, pair.b)]


def _draw_probability(axes: Axes, y: float, pair: Improvement, p: float, study: Study) -> None:
    style = study.styles[pair.a if p >= 0.5 else pair.b]
    certain = pair.interval is not None and not pair.interval[0] <= 0.5 <= pair.interval[1]
    colour = style.colour if certain else MUTED
    if pair.interval is not None:
        axes.plot(pair.interval, [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    axes.plot(
        [p],
        [y],
        marker=style.marker if certain else "o",
        markersize=6,
        markerfacecolor=colour if certain else PAPER,
        markeredgecolor=colour,
        markeredgewidth=1.1,
        zorder=3,
    )


def profiles(study: Study, across: AcrossTasks, key: str) -> Picture:
    """Share of tasks on which an optimizer reached the target within a factor of the fastest time."""
    title = "Performance profile of the time to target"
    if not across.profiles:
        return absent(title, "not every task has a target")
    figure, axes = canvas()
    for profile in across.profiles:
        style = study.styles[profile.label]
        (line,) = axes.step(
            profile.ratios,
            profile.shares,
            where="post",
            color=style.colour,
            marker=style.marker,
            markevery=(style.position % 12, 12),
            zorder=3,
        )
        if style.dashes:
            line.set_dashes(style.dashes)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("time relative to the fastest optimizer")
    axes.set_ylabel("share of tasks")
    plain_ticks(axes, "x", is_log=False)
    plain_ticks(axes, "y", is_log=False)
    words = [f"{profile.label} {fixed(profile.shares[0], 2)}" for profile in across.profiles if profile.shares]
    return study.picture(
        figure,
        key,
        title,
        f"Share of tasks on which each optimizer was the fastest: {listed(words)}.",
        "Higher and further to the left is faster; a missed target counts as infinite time.",
        [profile.label for profile in across.profiles],
    )
