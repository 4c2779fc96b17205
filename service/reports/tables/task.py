"""Tables of one task: scores, differences, tuning, cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from service.comparisons.answers import GroupView, PairDetail, PairView, TaskAnswer, TuningView
from service.comparisons.design.requests import MAX_SEEDS
from service.reports.lookup import tuning_of
from service.reports.tables.table import Column, Styles, Table, marked, optimizer_column
from service.reports.wording import MINUS, Scale, between, count, fixed, number, parameters
from service.specs.quantities import duration, known, p_value, size
from service.specs.text import counted, listed


def groups(task: TaskAnswer, styles: Styles, strong: Sequence[str]) -> Table:
    """Scores of the optimizers, best mean first."""
    scale = Scale(task.metric)
    rows = task.groups
    decimals = scale.decimals(group.sd for group in rows)
    unit = " (%)" if scale.is_share else ""
    bold = ["Bold: the best mean and all means that are not significantly worse than any other."] * (
        0 < len(strong) < len(rows)
    )
    return Table(
        f"{scale.words.capitalize()} of the final runs{', in percent' if scale.is_share else ''}",
        [
            optimizer_column((group.label for group in rows), styles),
            Column("n", [str(group.n) for group in rows], "Number of seeds with a score."),
            Column(
                "mean ± sd",
                [_plus_minus(scale.text(group.mean, decimals), scale.text(group.sd, decimals)) for group in rows],
                f"Mean and standard deviation over seeds{unit}.",
            ),
            Column(
                "95 % interval",
                [scale.interval(group.interval, decimals) for group in rows],
                "Confidence interval of the mean.",
            ),
            Column("best run", [scale.text(group.best, decimals) for group in rows]),
            Column("diverged", [str(group.diverged) for group in rows] if any(g.diverged for g in rows) else []),
            Column("hyperparameters", [_hyperparameters(task, group) for group in rows], is_text=True),
        ],
        [*bold, *_reasons((group.label, group.cannot_say) for group in rows)],
        [index for index, group in enumerate(rows) if bold and group.label in strong],
    )


def _plus_minus(mean: str, sd: str) -> str:
    return f"{mean} ± {sd}" if mean and sd else mean


def _hyperparameters(task: TaskAnswer, group: GroupView) -> str:
    """The chosen hyperparameters, or the fixed learning rate if nothing was tuned."""
    view = tuning_of(task, group.label)
    if view is None:
        params = group.optimizer.get("params", {})
        return "fixed" if params.get("lr") is None else f"lr {number(params['lr'])} (fixed)"
    return "not chosen" if view.params is None else parameters(view.params)


def pairs(task: TaskAnswer, styles: Styles) -> Table:
    """Differences between optimizers."""
    scale = Scale(task.metric)
    rows = task.pairs
    decimals = scale.decimals(pair.detail.sd for pair in rows)
    return Table(
        f"Paired differences in {scale.words}{', in percentage points' if scale.is_share else ''}",
        [
            Column("pair", [_pair(pair.a, pair.b, styles) for pair in rows], is_text=True),
            Column("n", [str(pair.n) for pair in rows], "Number of seeds with a score for both optimizers."),
            Column("difference", [_signed(scale.text(pair.difference, decimals)) for pair in rows]),
            Column(
                "interval", [scale.interval(pair.interval, decimals) for pair in rows], "95 % interval; see Methods."
            ),
            Column("p", [p_value(pair.p) for pair in rows], "p value of this pair, not corrected for the other pairs."),
            Column(
                "adjusted p",
                [p_value(pair.p_adjusted) for pair in rows],
                "p value corrected for all pairs; see Methods.",
            ),
            Column(
                "significant",
                [_significance(pair) for pair in rows],
                "Whether the difference is significant at a family-wise error rate of 5 %.",
            ),
            *_detail_columns([pair.detail for pair in rows]),
            Column(
                "seeds needed",
                [_seeds(pair.seeds_needed) for pair in rows],
                "Approximate number of seeds for a power of 80 %.",
            ),
        ],
        [*_explanations(rows), *_reasons((f"{pair.a} {MINUS} {pair.b}", pair.cannot_say) for pair in rows)],
        [index for index, pair in enumerate(rows) if pair.significant],
    )


def _detail_columns(details: Sequence[PairDetail]) -> list[Column]:
    """Statistics of the pairs besides the primary test."""
    return [
        Column(
            "r", [fixed(detail.correlation, 2) for detail in details], "Correlation of the two optimizers over seeds."
        ),
        Column(
            "Cliff's δ", [fixed(detail.cliffs_delta, 2) for detail in details], "P(a > b) − P(a < b) over all runs."
        ),
        Column(
            "permutation p",
            [p_value(detail.p_permutation) for detail in details],
            "Sign-flip permutation test, if the differences are skewed.",
        ),
        Column(
            "Wilcoxon p",
            [p_value(detail.p_wilcoxon) for detail in details],
            "Wilcoxon signed-rank test, if the two differ on at least 6 seeds.",
        ),
    ]


def _explanations(rows: Sequence[PairView]) -> list[str]:
    """Notes on the columns with values, because print has no tooltips."""
    notes = []
    if any(pair.detail.correlation is not None for pair in rows):
        notes.append(
            "r: correlation of the two over seeds; the higher it is, the more precise is the paired difference."
        )
    if any(pair.detail.cliffs_delta is not None for pair in rows):
        notes.append(
            "Cliff's δ: probability that a run of the first has the larger value, minus that of a run of the second."
        )
    if any(pair.seeds_needed is not None for pair in rows):
        notes.append("Seeds needed: approximate, assuming the observed difference and spread.")
    return [" ".join(notes)] if notes else []


def _pair(a: str, b: str, styles: Styles) -> Markup:
    return Markup('<span class="pair">{} <span class="named"><span class="minus">{}</span> {}</span></span>').format(
        marked(a, styles), MINUS, marked(b, styles)
    )


def _seeds(needed: int | None) -> str:
    """A number of seeds, or `> 1,000` above the limit of a request."""
    return f"> {count(MAX_SEEDS)}" if needed is not None and needed > MAX_SEEDS else count(needed)


def _signed(text: str) -> str:
    """A positive number with a plus sign."""
    return text if not text or text[0] == MINUS or not text.strip("0.") else f"+{text}"


def _significance(pair: PairView) -> str:
    if pair.difference is None:
        return ""
    return "yes" if pair.significant else "not tested" if pair.p is None else "no"


def tuning(task: TaskAnswer, styles: Styles) -> Table | None:
    """Trials and chosen hyperparameters; None if nothing was tuned."""
    views = task.tuning
    if not views:
        return None
    scale = Scale(views[0].metric)
    decimals = scale.decimals([])
    return Table(
        f"Trials, scored by {scale.words}{' in percent' if scale.is_share else ''}",
        [
            optimizer_column((view.label for view in views), styles),
            Column("trials", [_trials(view) for view in views], is_text=True),
            Column("chosen", ["" if view.params is None else parameters(view.params) for view in views], is_text=True),
            Column("score", [scale.text(_score(view), decimals) for view in views]),
            Column(
                "at the edge",
                [listed(view.at_edge) for view in views],
                "Hyperparameters whose chosen value is the lowest or highest one tried.",
            ),
            Column(
                "good rates", [_good_range(view) for view in views], "Learning rates with a score close to the best."
            ),
            Column("decades", [_decades(view) for view in views], "Width of the good range, in powers of ten."),
            Column(
                "training time",
                [duration(view.seconds or None) for view in views],
                "Total training time of all trials.",
            ),
        ],
        _reasons((view.label, view.good_range.cannot_say if view.good_range else None) for view in views),
    )


def _trials(view: TuningView) -> str:
    """`8`, or `8: 5 finished, 2 waiting, 1 diverged`."""
    statuses = [trial.status for trial in view.trials]
    if len(set(statuses)) == 1:
        return f"{len(statuses)} {statuses[0]}" if statuses[0] != "finished" else str(len(statuses))
    counts = [
        f"{statuses.count(status)} {status}"
        for status in ("finished", "waiting", "diverged", "failed")
        if status in statuses
    ]
    return str(len(statuses)) + (f": {', '.join(counts)}" if statuses.count("finished") < len(statuses) else "")


def _score(view: TuningView) -> float | None:
    return next((trial.score for trial in view.trials if trial.trial == view.chosen), None)


def _good_range(view: TuningView) -> str:
    good = view.good_range
    if good is None:
        return ""
    low, high = (f"{end:.2g}" if known(end) else "" for end in (good.low, good.high))
    return between(f"≤ {low}" if good.open_low and low else low, f"≥ {high}" if good.open_high and high else high)


def _decades(view: TuningView) -> str:
    good = view.good_range
    if good is None:
        return ""
    return ("≥ " if good.open_low or good.open_high else "") + fixed(good.decades, 1) if known(good.decades) else ""


def cost(task: TaskAnswer, styles: Styles) -> Table | None:
    """Time, memory and steps to the target; None while no run has reported them."""
    rows = task.cost
    targets = {entry.label: entry for entry in task.to_target}
    met = [targets.get(row.label) for row in rows]
    columns = [
        Column("ms per step", [_time(row.milliseconds_per_step) for row in rows]),
        Column("ratio", [fixed(row.ratio, 2) for row in rows], "Time per step relative to the fastest optimizer."),
        Column("per run", [duration(row.train_seconds) for row in rows], "Training time of a run, without evaluation."),
        Column(
            "peak memory",
            [size(row.peak_bytes) for row in rows],
            "On a CPU, growth of the process's memory since the start of the run.",
        ),
        Column("optimizer state", [size(row.optimizer_state_bytes) for row in rows]),
        Column("parameters", [count(row.parameters) for row in rows], "Number of trainable parameters."),
        Column("reached target", [f"{entry.reached} of {entry.runs}" if entry and entry.runs else "" for entry in met]),
        Column(
            "steps to target",
            [count(entry.steps) if entry else "" for entry in met],
            "Median over all runs; runs that missed the target are ranked last.",
        ),
        Column(
            "time to target",
            [duration(entry.seconds) if entry else "" for entry in met],
            "Median over all runs; runs that missed the target are ranked last.",
        ),
    ]
    if not any(cell for column in columns for cell in column.cells):
        return None
    notes = []
    if shared := [row.label for row in rows if row.shared]:
        labels = "" if len(shared) == len(rows) else f" ({listed(shared)})"
        notes.append(f"Other jobs may have run on the same devices{labels}: compare times with care.")
    return Table("Medians over the runs", [optimizer_column((row.label for row in rows), styles), *columns], notes)


def _time(milliseconds: float | None) -> str:
    value = known(milliseconds)
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _reasons(views: Iterable[tuple[str, str | None]]) -> list[str]:
    """Each reason once, after the rows that it applies to."""
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in views:
        if reason:
            names_by_reason.setdefault(reason, []).append(name)
    return [
        f"{listed(names) if len(names) <= 4 else counted(len(names), 'row')}: {reason}."
        for reason, names in names_by_reason.items()
    ]
