"""Tables of the page: columns of text; empty columns are omitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from service.comparisons.answers import AcrossTasks, ComparisonAnswer, GroupView, PairView, TaskAnswer, TuningView
from service.comparisons.design.requests import MOST_SEEDS
from service.reports.palette import Look
from service.reports.results import tuning_of
from service.reports.wording import (
    MINUS,
    Scale,
    between,
    count,
    fixed,
    listed,
    number,
    parameters,
    space,
    target_in_words,
)
from service.specs.metric_text import many
from service.specs.quantities import duration, known, p_value, size

Looks = Mapping[str, Look]
MOST_MISSING = 50


@dataclass(frozen=True)
class Column:
    """A column; `hint` is the tooltip of its name."""

    name: str
    cells: Sequence[str | Markup]
    hint: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, `strong` are the indices of bold rows."""

    caption: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    strong: Sequence[int] = field(default_factory=tuple)

    @property
    def filled(self) -> list[Column]:
        """The columns with at least one cell that is not empty."""
        return [column for column in self.columns if any(column.cells)]

    @property
    def rows(self) -> list[list[str | Markup]]:
        """The cells of `filled`, by row."""
        return [list(row) for row in zip(*(column.cells for column in self.filled), strict=True)]


def named(label: str, looks: Looks) -> Markup:
    """A label after its marker."""
    return Markup('<span class="named">{}<span>{}</span></span>').format(looks[label].swatch, label)


def _names(labels: Iterable[str], looks: Looks, name: str = "optimizer") -> Column:
    return Column(name, [named(label, looks) for label in labels], is_text=True)


def _reasons(views: Iterable[tuple[str, str | None]]) -> list[str]:
    """Each reason once, after the names that it applies to."""
    found: dict[str, list[str]] = {}
    for name, reason in views:
        if reason:
            found.setdefault(reason, []).append(name)
    return [
        f"{listed(names) if len(names) <= 4 else many(len(names), 'row')}: {reason}." for reason, names in found.items()
    ]


# --- a task ----------------------------------------------------------------------------------------------------------


def groups(task: TaskAnswer, looks: Looks, strong: Sequence[str]) -> Table:
    """The optimizers, best mean first."""
    scale = Scale(task.metric)
    rows = task.groups
    decimals = scale.decimals(group.sd for group in rows)
    unit = " (%)" if scale.is_share else ""
    bold = ["Bold: the best mean and all means that are not significantly worse than another."] * (
        0 < len(strong) < len(rows)
    )
    return Table(
        f"{scale.words.capitalize()} of the reported runs{', in percent' if scale.is_share else ''}",
        [
            _names((group.label for group in rows), looks),
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
            Column("parameters", [_parameters(task, group) for group in rows], is_text=True),
        ],
        [*bold, *_reasons((group.label, group.cannot_say) for group in rows)],
        [index for index, group in enumerate(rows) if bold and group.label in strong],
    )


def _plus_minus(mean: str, sd: str) -> str:
    return f"{mean} ± {sd}" if mean and sd else mean


def _parameters(task: TaskAnswer, group: GroupView) -> str:
    """The chosen parameters, or those given if nothing was tuned."""
    view = tuning_of(task, group.label)
    if view is None:
        given = group.optimizer.get("params", {})
        return f"lr {number(given['lr'])} (given)" if "lr" in given else "given"
    return "not chosen" if view.params is None else parameters(view.params)


def pairs(task: TaskAnswer, looks: Looks) -> Table:
    """The differences between optimizers."""
    scale = Scale(task.metric)
    rows = task.pairs
    decimals = scale.decimals(pair.detail.sd for pair in rows)
    detail = [pair.detail for pair in rows]
    return Table(
        f"Paired differences in {scale.words}{', in points' if scale.is_share else ''}",
        [
            Column("pair", [_pair(pair.a, pair.b, looks) for pair in rows], is_text=True),
            Column("n", [str(pair.n) for pair in rows], "Number of seeds with a score of both optimizers."),
            Column("difference", [_signed(scale.text(pair.difference, decimals)) for pair in rows]),
            Column(
                "interval", [scale.interval(pair.interval, decimals) for pair in rows], "95 % interval; see Methods."
            ),
            Column("p", [p_value(pair.p) for pair in rows], "p value of this pair, not corrected for the other pairs."),
            Column(
                "p adjusted",
                [p_value(pair.p_adjusted) for pair in rows],
                "p value corrected for all pairs; see Methods.",
            ),
            Column(
                "decided",
                [_decided(pair) for pair in rows],
                "Whether the difference is significant at a family-wise error rate of 5 %.",
            ),
            Column("r", [fixed(one.correlation, 2) for one in detail], "Correlation of the two optimizers over seeds."),
            Column("Cliff's δ", [fixed(one.cliffs_delta, 2) for one in detail], "P(a > b) − P(a < b) over all runs."),
            Column(
                "p permut.",
                [p_value(one.p_permutation) for one in detail],
                "Sign-flip permutation test, if the differences are skewed.",
            ),
            Column(
                "p Wilcoxon",
                [p_value(one.p_wilcoxon) for one in detail],
                "Wilcoxon signed-rank test, for 6 or more seeds.",
            ),
            Column(
                "seeds needed",
                [_seeds(pair.seeds_needed) for pair in rows],
                "Approximate number of seeds for a power of 0.8.",
            ),
        ],
        [*_about(rows), *_reasons((f"{pair.a} {MINUS} {pair.b}", pair.cannot_say) for pair in rows)],
        [index for index, pair in enumerate(rows) if pair.significant],
    )


def _about(rows: Sequence[PairView]) -> list[str]:
    """Explanations of the columns with values: tooltips are missing in print."""
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


def _pair(a: str, b: str, looks: Looks) -> Markup:
    return Markup('<span class="pair">{} <span class="named"><span class="minus">{}</span> {}</span></span>').format(
        named(a, looks), MINUS, named(b, looks)
    )


def _seeds(needed: int | None) -> str:
    """A number of seeds; above the limit of a request only that it is exceeded."""
    return f"> {count(MOST_SEEDS)}" if needed is not None and needed > MOST_SEEDS else count(needed)


def _signed(text: str) -> str:
    """A positive number with a plus sign."""
    return text if not text or text[0] == MINUS or not text.strip("0.") else f"+{text}"


def _decided(pair: PairView) -> str:
    if pair.difference is None:
        return ""
    return "yes" if pair.significant else "not tested" if pair.p is None else "open"


def tuning(task: TaskAnswer, looks: Looks) -> Table | None:
    """Trials and chosen parameters; None if nothing was tuned."""
    views = task.tuning
    if not views:
        return None
    scale = Scale(views[0].metric)
    decimals = scale.decimals([])
    return Table(
        f"Trials, scored by {scale.words}{' in percent' if scale.is_share else ''}",
        [
            _names((view.label for view in views), looks),
            Column("trials", [_trials(view) for view in views], is_text=True),
            Column("chosen", ["" if view.params is None else parameters(view.params) for view in views], is_text=True),
            Column("score", [scale.text(_score(view), decimals) for view in views]),
            Column(
                "at the edge",
                [listed(view.at_edge) for view in views],
                "Parameters whose chosen value is at the edge of the searched range.",
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
        f"{statuses.count(one)} {one}" for one in ("finished", "waiting", "diverged", "failed") if one in statuses
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


def cost(task: TaskAnswer, looks: Looks) -> Table | None:
    """Time, memory and steps to the target; None while no run has reported them."""
    rows = task.cost
    targets = {one.label: one for one in task.to_target}
    met = [targets.get(row.label) for row in rows]
    columns = [
        Column("ms per step", [_time(row.milliseconds_per_step) for row in rows]),
        Column("ratio", [fixed(row.ratio, 2) for row in rows], "Time per step relative to the fastest optimizer."),
        Column("per run", [duration(row.train_seconds) for row in rows], "Training time of a run, without evaluation."),
        Column(
            "peak memory",
            [size(row.peak_bytes) for row in rows],
            "On a CPU, memory above that of the process at its start.",
        ),
        Column("optimizer state", [size(row.optimizer_state_bytes) for row in rows]),
        Column("weights", [count(row.parameters) for row in rows], "Number of trainable parameters."),
        Column("reached target", [f"{one.reached} of {one.runs}" if one and one.runs else "" for one in met]),
        Column(
            "steps to target",
            [count(one.steps) if one else "" for one in met],
            "Median over all runs; a run that misses the target counts as infinite.",
        ),
        Column(
            "time to target",
            [duration(one.seconds) if one else "" for one in met],
            "Median over all runs; a run that misses the target counts as infinite.",
        ),
    ]
    if not any(cell for column in columns for cell in column.cells):
        return None
    notes = []
    if shared := [row.label for row in rows if row.shared]:
        which = "" if len(shared) == len(rows) else f" ({listed(shared)})"
        notes.append(f"Jobs shared their machine with other jobs{which}: compare times with care.")
    return Table("Medians over the runs", [_names((row.label for row in rows), looks), *columns], notes)


def _time(milliseconds: float | None) -> str:
    value = known(milliseconds)
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


# --- all tasks -------------------------------------------------------------------------------------------------------


def ranks(across: AcrossTasks, metric: str, looks: Looks) -> Table:
    """The optimizers over all tasks."""
    scale = Scale(metric)
    decimals = scale.decimals(
        (one.iqm_interval[1] - one.iqm_interval[0]) / 2 if one.iqm_interval else None for one in across.ranks
    )
    unit = " (%)" if scale.is_share else ""
    return Table(
        f"Summary over {across.tasks} tasks",
        [
            _names((one.label for one in across.ranks), looks),
            Column("mean rank", [fixed(one.mean_rank, 2) for one in across.ranks], "By mean score; 1 is best."),
            Column(
                f"IQM{unit}",
                [scale.text(one.iqm, decimals) for one in across.ranks],
                "Interquartile mean: the mean of the middle half of all runs.",
            ),
            Column("95 % interval", [scale.interval(one.iqm_interval, decimals) for one in across.ranks]),
            Column(
                "AlgoPerf",
                [fixed(one.algoperf, 3) for one in across.ranks],
                "AlgoPerf score, at most 1; depends on which optimizers are compared.",
            ),
        ],
        [f"Friedman's test of the ranks: p {_equals(across.friedman_p)}."]
        if known(across.friedman_p) is not None
        else [],
    )


def _equals(p: float | None) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


# --- details ---------------------------------------------------------------------------------------------------------


def missing(answer: ComparisonAnswer, looks: Looks) -> Table | None:
    """The runs that are excluded from the statistics; None if there are none."""
    rows = [(task.label, one) for task in answer.tasks for one in task.missing]
    if not rows:
        return None
    shown = rows[:MOST_MISSING]
    return Table(
        f"{many(len(rows), 'run')} missing",
        [
            Column("job", [Markup("<code>{}</code>").format(one.job) for _, one in shown], is_text=True),
            Column("task", [label for label, _ in shown], is_text=True),
            Column("optimizer", [one.label for _, one in shown], is_text=True),
            Column("phase", [one.phase for _, one in shown], is_text=True),
            Column("seed", [str(one.seed) for _, one in shown]),
            Column("reason", [one.why for _, one in shown], is_text=True),
        ],
        [f"{len(rows) - len(shown)} more are in the JSON report."] if len(rows) > len(shown) else [],
    )


def planned_tasks(answer: ComparisonAnswer) -> Table:
    """The tasks of the plan."""
    rows = answer.plan.tasks
    specs = [row.get("spec", {}) for row in rows]
    scale = Scale(answer.plan.metric)
    return Table(
        "Tasks",
        [
            Column("task", [str(row.get("label", "")) for row in rows], is_text=True),
            Column("data set", [_choice(spec.get("dataset")) for spec in specs], is_text=True),
            Column("model", [_choice(spec.get("model")) for spec in specs], is_text=True),
            Column("budget", [parameters(_swapped(spec.get("budget"))) for spec in specs], is_text=True),
            Column("batch", [number(spec.get("batch_size")) for spec in specs]),
            Column("schedule", [_choice(spec.get("schedule")) for spec in specs], is_text=True),
            Column("target", [target_in_words(spec.get("target")) for spec in specs], is_text=True),
            Column(
                "diverged counts as",
                [
                    "no score" if (score := row.get("diverged_score")) is None else scale.with_percent(score)
                    for row in rows
                ],
            ),
        ],
    )


def _swapped(budget: Mapping[str, object] | None) -> dict[str, object]:
    return {unit: amount for unit, amount in (budget or {}).items() if amount is not None}


def _choice(choice: Mapping[str, Mapping[str, object]] | None) -> str:
    """`mlp (hidden [256, 256])`."""
    if not choice:
        return ""
    params = parameters(choice.get("params", {}))
    return f"{choice.get('name', '')} ({params})" if params else str(choice.get("name", ""))


def planned_optimizers(answer: ComparisonAnswer, looks: Looks) -> Table:
    """The optimizers of the plan, with searched and fixed parameters."""
    rows = answer.plan.optimizers
    return Table(
        "Optimizers",
        [
            _names((str(row.get("label", "")) for row in rows), looks),
            Column("name", [str(row.get("name", "")) for row in rows], is_text=True),
            Column("searched", [_searched(row) for row in rows], is_text=True),
            Column("trials", [str(len(row.get("trials", []))) if row.get("space") else "" for row in rows]),
            Column("fixed", [_fixed(row) for row in rows], is_text=True),
        ],
    )


def _searched(row: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    return "; ".join(f"{name} {space(values)}" for name, values in (row.get("space") or {}).items())


def _fixed(row: Mapping[str, object]) -> str:
    trials, searched = row.get("trials") or [{}], row.get("space") or {}
    assert isinstance(trials, list)
    assert isinstance(searched, Mapping)
    return parameters({name: value for name, value in trials[0].items() if name not in searched})
