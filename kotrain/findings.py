"""What the demo has found, as tables and text."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from kotrain import study, tables
from kotrain.study import ADAM, BOUNDED, FIXED_RATE, HARD, SOFT, Arm, Candidate, Lead, Outcome, Run
from service.schemas import JobView

Chosen = Mapping[tuple[str, Candidate], Arm]

CAVEATS = """\
Fixed: gamma 0.1, rate 0.5 and the grid were first chosen on these very test data (docs/ko.md), so this table is
checked against its reference, not evidence for other data. An interval is a t interval over 5 seeds of one split,
each pair by itself; tuned rates have the best mean validation accuracy of the last step over 3 other seeds (200
records: ties are frequent and go to the lower validation loss). sd has ddof 1; seconds are training steps alone."""


def write(out: Console, outcomes: Mapping[str, Outcome], ended: Mapping[Run, JobView], chosen: Chosen) -> bool:
    """Print all of it; whether every mean lies within the tolerance of the reference table."""
    agrees = True
    for init, outcome in outcomes.items():
        tuned = [chosen[init, candidate] for candidate in study.TUNED]
        fixed = [Arm(init, candidate, lr) for candidate, lr in study.FIXED.items()]
        out.print()
        out.print(
            f"[bold]{init.capitalize()} initialization[/] (init_scale {study.INITS[init]:g}), digits, test accuracy"
        )
        out.print()
        off = _accuracies(out, outcome, fixed, tuned, ended)
        agrees = agrees and not off
        out.print()
        _leads(out, outcome, tuned[0], tuned[1])
        out.print()
        for arm in off:
            out.print(f"[red]{arm.title} is more than {study.TOLERANCE} off the reference table.[/]")
        out.print(sentences(outcome, tuned[0], tuned[1]))
    out.print()
    out.print(CAVEATS, style="dim")
    return agrees


def _accuracies(
    out: Console, outcome: Outcome, fixed: list[Arm], tuned: list[Arm], ended: Mapping[Run, JobView]
) -> list[Arm]:
    """Print a line an arm; answer those whose mean is off the reference table."""
    numbers = ("lr", "n", "seconds", "reference", "deviation")
    table = tables.plain("optimizer", "lr", "", "n", "mean ± sd", "95 % interval", *numbers[2:], right=numbers)
    off: list[Arm] = []
    for arm, how in [*((arm, "fixed") for arm in fixed), *((arm, "tuned") for arm in tuned)]:
        group, deviation = outcome.group(arm), outcome.deviation(arm)
        seconds = study.seconds_per_run([job for run, job in ended.items() if run.arm == arm and not run.tuning])
        if (deviation is None or abs(deviation) > study.TOLERANCE) and arm not in off:
            off.append(arm)
        table.add_row(
            arm.candidate.title,
            f"{arm.lr:g}",
            how,
            str(group.n),
            tables.spread(group),
            tables.interval(group.interval),
            "-" if seconds is None else f"{seconds:.2f}",
            f"{arm.reference:.4f}",
            "-" if deviation is None else f"{deviation:+.4f}",
        )
    out.print(table)
    return off


def _leads(out: Console, outcome: Outcome, adam: Arm, hard: Arm) -> None:
    """Print how far each form of KO leads Adam, at the fixed rate and once Adam is tuned."""
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
    out.print(table)


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
