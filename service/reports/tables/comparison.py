"""Tables of a whole comparison: ranks over all tasks, missing runs, the plan."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from service.comparisons.answers import AcrossTasks, ComparisonAnswer
from service.reports.tables.table import Column, Styles, Table, optimizer_column
from service.reports.wording import Scale, fixed, number, parameters, space, target_in_words
from service.specs.quantities import p_equation
from service.specs.text import agreeing, counted

MAX_MISSING = 50
PHASES = {"tuning": "tuning", "report": "final"}
"""Phase of a run in the answer -> its name in the table."""


def ranks(across: AcrossTasks, metric: str, styles: Styles) -> Table:
    """Statistics of the optimizers over all tasks."""
    scale = Scale(metric)
    decimals = scale.decimals(
        (rank.iqm_interval[1] - rank.iqm_interval[0]) / 2 if rank.iqm_interval else None for rank in across.ranks
    )
    unit = " (%)" if scale.is_share else ""
    return Table(
        f"Summary over {across.tasks} tasks",
        [
            optimizer_column((rank.label for rank in across.ranks), styles),
            Column("mean rank", [fixed(rank.mean_rank, 2) for rank in across.ranks], "By mean score; 1 is best."),
            Column(
                f"IQM{unit}",
                [scale.text(rank.iqm, decimals) for rank in across.ranks],
                "Interquartile mean: the mean of the middle half of all runs.",
            ),
            Column("95 % interval", [scale.interval(rank.iqm_interval, decimals) for rank in across.ranks]),
            Column(
                "AlgoPerf",
                [fixed(rank.algoperf, 3) for rank in across.ranks],
                "AlgoPerf score, at most 1; depends on which optimizers are compared.",
            ),
        ],
        [] if across.friedman_p is None else [f"Friedman's test of the ranks: {p_equation(across.friedman_p)}."],
    )


def missing(answer: ComparisonAnswer) -> Table | None:
    """The runs that are excluded from the statistics; None if there are none."""
    rows = [(task.label, run) for task in answer.tasks for run in task.missing]
    if not rows:
        return None
    shown, left_out = rows[:MAX_MISSING], len(rows[MAX_MISSING:])
    return Table(
        f"{counted(len(rows), 'run')} missing",
        [
            Column("job", [Markup("<code>{}</code>").format(run.job) for _, run in shown], is_text=True),
            Column("task", [label for label, _ in shown], is_text=True),
            Column("optimizer", [run.label for _, run in shown], is_text=True),
            Column("phase", [PHASES[run.phase] for _, run in shown], is_text=True),
            Column("seed", [str(run.seed) for _, run in shown]),
            Column("reason", [run.why for _, run in shown], is_text=True),
        ],
        [f"{left_out} more {agreeing(left_out, 'is', 'are')} in the JSON report."] if left_out else [],
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
            Column("budget", [parameters(_budget(spec.get("budget"))) for spec in specs], is_text=True),
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


def _budget(budget: Mapping[str, object] | None) -> dict[str, object]:
    """The unit that is used, and its amount."""
    return {unit: amount for unit, amount in (budget or {}).items() if amount is not None}


def _choice(choice: Mapping[str, Mapping[str, object]] | None) -> str:
    """Name and parameters of a catalog entry: `mlp (hidden [256, 256])`."""
    if not choice:
        return ""
    params = parameters(choice.get("params", {}))
    return f"{choice.get('name', '')} ({params})" if params else str(choice.get("name", ""))


def planned_optimizers(answer: ComparisonAnswer, styles: Styles) -> Table:
    """The optimizers of the plan, with searched and fixed hyperparameters."""
    rows = answer.plan.optimizers
    return Table(
        "Optimizers",
        [
            optimizer_column((str(row.get("label", "")) for row in rows), styles),
            Column("name", [str(row.get("name", "")) for row in rows], is_text=True),
            Column("search space", [_searched(row) for row in rows], is_text=True),
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
