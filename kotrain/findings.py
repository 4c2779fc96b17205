"""What the demo has found, as tables and text."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from kotrain import study, tables
from kotrain.study import ADAM, BOUNDED, FIXED_RATE, HARD, SOFT, Arm, Candidate, Lead, Outcome, Plan, Run
from service.schemas import JobView

Chosen = Mapping[tuple[str, Candidate], Arm]

CAVEATS = """\
gamma 0.1, rate 0.5 and the grid of learning rates were first chosen on these very test data (docs/ko.md): the table
is checked against its reference there, and is no evidence for other data. Intervals are t intervals over the seeds of
one split, each by itself. A tuned rate has the best mean validation accuracy of the last step, over seeds other than
the reported ones; ties, frequent with 200 validation records, go to the lower validation loss. sd has ddof 1; seconds
are those of the training steps alone, with as many jobs beside each other as there are cores."""


def write(
    out: Console, plan: Plan, outcomes: Mapping[str, Outcome], ended: Mapping[Run, JobView], chosen: Chosen
) -> bool:
    """Print all of it; whether every mean agrees with the reference table, as far as that is for this plan."""
    all_agree = True
    for init, outcome in outcomes.items():
        tuned = [chosen[init, candidate] for candidate in study.TUNED]
        arms = {
            **{(arm, "fixed"): _seconds(arm, ended) for arm in study.fixed_arms() if arm.init == init},
            **{(arm, "tuned"): _seconds(arm, ended) for arm in tuned},
        }
        scale = study.INITS[init]
        out.print(f"\n[bold]{init.capitalize()} initialization[/] (init_scale {scale:g}): test accuracy on digits\n")
        out.print(_accuracies(plan, outcome, arms))
        out.print()
        out.print(_choices(init, study.validation(ended)))
        out.print()
        out.print(_leads(outcome, *tuned))
        out.print()
        if plan.is_reference:
            for arm in dict.fromkeys(arm for arm, _ in arms):
                all_agree &= _check(out, outcome, arm)
        out.print(sentences(outcome, *tuned), soft_wrap=True)
    out.print()
    out.print(CAVEATS, style="dim", soft_wrap=True)
    return all_agree


def _seconds(arm: Arm, ended: Mapping[Run, JobView]) -> float | None:
    return study.seconds_per_run([job for run, job in ended.items() if run.arm == arm and not run.tuning])


def _check(out: Console, outcome: Outcome, arm: Arm) -> bool:
    """Whether the arm agrees with the reference table; a line where it does not, or only by its own spread."""
    deviation, agrees = outcome.deviation(arm), outcome.agrees(arm)
    if deviation is None or abs(deviation) > study.TOLERANCE:
        off = "has no mean" if deviation is None else f"is {abs(deviation):.4f} off its reference"
        out.print(f"{arm.title} {off}, {'which its own spread over seeds explains' if agrees else 'which is too far'}.")
    return agrees


def _accuracies(plan: Plan, outcome: Outcome, arms: Mapping[tuple[Arm, str], float | None]) -> Table:
    """A line an arm, beside the reference table's mean."""
    numbers = ("lr", "n", "seconds", "reference", "deviation")
    table = tables.plain("optimizer", "lr", "", "n", "mean ± sd", "95 % interval", *numbers[2:], right=numbers)
    for (arm, how), seconds in arms.items():
        group = outcome.group(arm)
        deviation = outcome.deviation(arm) if plan.is_reference else None
        table.add_row(
            arm.candidate.title,
            f"{arm.lr:g}",
            how,
            str(group.n),
            tables.spread(group),
            tables.interval(group.interval),
            "-" if seconds is None else f"{seconds:.2f}",
            f"{arm.reference:.4f}" if plan.is_reference else "-",
            "-" if deviation is None else f"{round(deviation, 4) + 0.0:+.4f}",
        )
    return table


def _choices(init: str, scores: Mapping[Arm, tuple[float, float]]) -> Table:
    """What the learning rates were chosen by."""
    rates = [f"lr {rate:g}" for rate in study.RATES]
    table = tables.plain("mean validation accuracy", *rates, right=rates)
    for candidate in study.TUNED:
        found = [scores.get(Arm(init, candidate, rate)) for rate in study.RATES]
        table.add_row(candidate.title, *("-" if score is None else f"{score[0]:.4f}" for score in found))
    return table


def _leads(outcome: Outcome, adam: Arm, hard: Arm) -> Table:
    """How far each form of KO leads Adam, at the fixed rate and once Adam is tuned."""
    given = Arm(outcome.init, ADAM, FIXED_RATE)
    at_fixed = [Arm(outcome.init, candidate, FIXED_RATE) for candidate in (SOFT, BOUNDED, HARD)]
    table = tables.plain("lead of", "over", "points", "95 % interval", right=("points",))
    for of, over, how in [
        *((arm, given, "fixed") for arm in at_fixed),
        (at_fixed[0], adam, "tuned"),
        (hard, adam, "tuned"),
    ]:
        lead = outcome.lead(of, over)
        points = f"{100 * lead.difference:+.2f}" if lead else "-"
        interval = " .. ".join(f"{100 * end:+.2f}" for end in lead.interval) if lead and lead.interval else "-"
        table.add_row(of.title, f"{over.title} ({how})", points, interval)
    return table


def sentences(outcome: Outcome, adam: Arm, hard: Arm) -> str:
    """Both halves of the truth: the lead at a fixed learning rate, and what remains of it once Adam is tuned."""
    given, soft = Arm(outcome.init, ADAM, FIXED_RATE), Arm(outcome.init, SOFT, FIXED_RATE)
    at_fixed = phrase("KO soft", "Adam", outcome.lead(soft, given))
    left_alone = phrase(f"KO soft, left at {FIXED_RATE:g},", "it", outcome.lead(soft, adam))
    both_tuned = phrase(f"KO hard, tuned likewise ({hard.lr:g}),", "it", outcome.lead(hard, adam))
    return (
        f"At the fixed learning rate {FIXED_RATE:g}, {at_fixed}.\n"
        f"Tuned on validation, Adam takes {adam.lr:g}: {left_alone};\n{both_tuned}."
    )


def phrase(who: str, whom: str, lead: Lead | None) -> str:
    """One lead in words, in points of accuracy (hundredths)."""
    if lead is None:
        return f"nothing can be said of {who.rstrip(',')}"
    points = f"{100 * abs(lead.difference):.1f} points"
    verb = "leads" if lead.difference > 0 else "trails"
    if lead.interval is None:
        return f"{who} {verb} {whom} by {points} ({lead.n} paired seeds, too alike for an interval)"
    low, high = (100 * end for end in lead.interval)
    doubt = ", no difference included" if low <= 0 <= high else ""
    return f"{who} {verb} {whom} by {points} (95 % interval {low:+.1f} to {high:+.1f}{doubt}; {lead.n} paired seeds)"
