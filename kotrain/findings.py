"""What the demo has found, as tables and text."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kotrain import tables
from kotrain.first_look import FIXED_RATE, INIT_SCALES, RATES, TOLERANCE, agrees, rate, reference
from service.comparisons.answers import ComparisonAnswer, GroupView, PairView, TaskAnswer

LEADS = (
    ("KO soft", "Adam"),
    ("KO bounded", "Adam"),
    ("KO hard", "Adam"),
    ("KO soft", "Adam tuned"),
    ("KO hard tuned", "Adam tuned"),
)

CAVEATS = """\
gamma 0.1, rate 0.5 and the grid of learning rates were first chosen on these very test data (docs/ko.md): the table
is checked against its reference there, and is no evidence for other data. Intervals are t intervals over the seeds of
one split, each by itself; p (Holm) is for all pairs of both tasks together. A tuned rate has the best mean validation
accuracy of the last step, over seeds other than the reported ones; ties, frequent with 200 validation records, go to
the lower validation loss. sd has ddof 1; seconds are the median of the training steps alone, with as many jobs beside
each other as there are cores."""


def write(out: Console, answer: ComparisonAnswer, *, is_reference: bool) -> bool:
    """Print all of it; whether every mean agrees with the reference table, where that is for these seeds and epochs."""
    order = [optimizer["label"] for optimizer in answer.plan.optimizers]
    all_agree = True
    for task in answer.tasks:
        groups = sorted(task.groups, key=lambda group: order.index(group.label))
        scale = INIT_SCALES[task.label]
        title = f"{task.label.capitalize()} initialization[/] (init_scale {scale:g}): test accuracy on digits"
        for part in (f"[bold]{title}", _accuracies(task, groups, is_reference), _choices(task), _leads(task)):
            out.print()
            out.print(part)
        out.print()
        if is_reference:
            for group in groups:
                all_agree &= _check(out, task.label, group)
        out.print(sentences(task), soft_wrap=True)
    out.print(f"\n[bold]Verdict of the comparison[/], {answer.plan.pairs} pairs tested together\n")
    for sentence in answer.verdict:
        out.print(Text(sentence), soft_wrap=True)
    out.print()
    out.print(CAVEATS, style="dim", soft_wrap=True)
    return all_agree


def _check(out: Console, task: str, group: GroupView) -> bool:
    """Whether the group agrees with the reference table; a line where it does not, or only by the spread."""
    agreed = agrees(task, group)
    off = math.inf if group.mean is None else abs(group.mean - reference(task, group).mean)
    if off > TOLERANCE:
        how = "has no mean" if group.mean is None else f"is {off:.4f} off its reference"
        why = ", which the spread over seeds explains" if agreed else ""
        out.print(f"{group.label} at {rate(group):g} {how}{why}.")
    return agreed


def _accuracies(task: TaskAnswer, groups: list[GroupView], is_reference: bool) -> Table:
    """A line a group, beside the reference table's mean."""
    numbers = ("lr", "n", "seconds", "reference", "deviation")
    table = tables.plain("optimizer", "lr", "", "n", "mean ± sd", "95 % interval", *numbers[2:], right=numbers)
    seconds = {cost.label: cost.train_seconds for cost in task.cost}
    for group in groups:
        expected = reference(task.label, group).mean if is_reference else None
        deviation = None if expected is None or group.mean is None else round(group.mean - expected, 4) + 0.0
        table.add_row(
            group.label.removesuffix(" tuned"),
            f"{rate(group):g}",
            "tuned" if group.label.endswith(" tuned") else "fixed",
            str(group.n),
            tables.spread(group),
            tables.interval(group.interval),
            _number(seconds[group.label], ".2f"),
            _number(expected, ".4f"),
            _number(deviation, "+.4f"),
        )
    return table


def _choices(task: TaskAnswer) -> Table:
    """What the learning rates were chosen by."""
    rates = [f"lr {rate:g}" for rate in RATES]
    table = tables.plain("mean validation accuracy", *rates, "chosen", right=[*rates, "chosen"])
    for view in task.tuning:
        scores = [_number(trial.score, ".4f") for trial in view.trials]
        table.add_row(view.label, *scores, _number(view.params["lr"] if view.params else None, "g"))
    return table


def _leads(task: TaskAnswer) -> Table:
    """How far each form of KO leads Adam, at the fixed rate and once Adam is tuned."""
    table = tables.plain("lead of", "over", "points", "95 % interval", "p (Holm)", right=("points", "p (Holm)"))
    for of, over in LEADS:
        pair = lead(task, of, over)
        if pair is None:
            table.add_row(of, over, "-", "-", "-")
            continue
        interval = " .. ".join(_number(end, "+.2f", 100) for end in pair.interval) if pair.interval else "-"
        table.add_row(of, over, _number(pair.difference, "+.2f", 100), interval, tables.p_value(pair.p_adjusted))
    return table


def lead(task: TaskAnswer, of: str, over: str) -> PairView | None:
    """How far `of` leads `over`, whichever way the pair is stored; None where nothing can be said."""
    for pair in task.pairs:
        if pair.difference is None or {pair.a, pair.b} != {of, over}:
            continue
        if pair.a == of:
            return pair
        ends = None if pair.interval is None else (-pair.interval[1], -pair.interval[0])
        return pair.model_copy(update={"a": of, "b": over, "difference": -pair.difference, "interval": ends})
    return None


def sentences(task: TaskAnswer) -> str:
    """Both halves of the truth: the lead at a fixed learning rate, and what remains of it once Adam is tuned."""
    rates = {group.label: f"{rate(group):g}" for group in task.groups}
    at_fixed = phrase("KO soft", "Adam", lead(task, "KO soft", "Adam"))
    left_alone = phrase(f"KO soft, left at {FIXED_RATE:g},", "it", lead(task, "KO soft", "Adam tuned"))
    both_tuned = phrase(
        f"KO hard, tuned likewise ({rates['KO hard tuned']}),", "it", lead(task, "KO hard tuned", "Adam tuned")
    )
    return (
        f"At the fixed learning rate {FIXED_RATE:g}, {at_fixed}.\n"
        f"Tuned on validation, Adam takes {rates['Adam tuned']}: {left_alone};\n{both_tuned}."
    )


def phrase(who: str, whom: str, pair: PairView | None) -> str:
    """One lead in words, in points of accuracy (hundredths)."""
    if pair is None or pair.difference is None:
        return f"nothing can be said of {who.rstrip(',')}"
    points = f"{100 * abs(pair.difference):.1f} points"
    verb = "leads" if pair.difference > 0 else "trails"
    if pair.interval is None:
        return f"{who} {verb} {whom} by {points} ({pair.n} paired seeds, too alike for an interval)"
    low, high = (100 * end for end in pair.interval)
    doubt = ", no difference included" if low <= 0 <= high else ""
    return f"{who} {verb} {whom} by {points} (95 % interval {low:+.1f} to {high:+.1f}{doubt}; {pair.n} paired seeds)"


def _number(value: float | None, form: str, times: float = 1) -> str:
    return "-" if value is None else format(times * value, form)
