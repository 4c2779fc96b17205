"""The methods paragraph of a plan, and the plan in answers."""

from __future__ import annotations

from collections.abc import Sequence

from service.comparisons.analysis.completeness import Obstacle
from service.comparisons.answers import PlanView
from service.comparisons.design.plan import Plan
from service.specs.metric_text import Measure
from service.specs.text import counted, listed
from service.stats import nominal_levels
from service.stats.multiple_testing import ALPHA


def plan_view(plan: Plan) -> PlanView:
    """The plan in answers."""
    document = plan.model_dump(mode="json")
    return PlanView.model_validate(
        {
            **{name: value for name, value in document.items() if name in PlanView.model_fields},
            "nominal_p": list(nominal_levels(tuple(plan.looks), ALPHA / plan.pairs))
            if plan.stopping == "looks"
            else [],
            "pairs": plan.pairs,
        }
    )


def methods(plan: Plan) -> str:
    """Methods paragraph for a paper."""
    return " ".join(
        [_methods_of_tuning(plan), _methods_of_seeds(plan), _methods_of_tests(plan), _methods_of_divergence(plan)]
    )


def conducted(plan: Plan, obstacle: Obstacle | None, incomplete: Sequence[str]) -> str:
    """Methods paragraph with deviations from the plan. `incomplete`: labels of tasks with missing planned runs."""
    if obstacle is not None and obstacle.methods:
        return f"{obstacle.methods} The plan was as follows. {methods(plan)}"
    if not incomplete:
        return methods(plan)
    where = f" on {listed(incomplete)}" if len(plan.tasks) > 1 else ""
    return f"{methods(plan)} Planned runs were missing{where}; affected pairs were not tested."


def _methods_of_tuning(plan: Plan) -> str:
    if plan.tuning is None:
        return "Hyperparameters of the optimizers were fixed in advance and not tuned."
    seeds = counted(plan.tuning.seeds, "seed")
    points = counted(plan.tuning.trials or 0, "point")  # None for a grid
    how = {
        "quasi_random": f"{points} of a shifted Halton sequence (the same values for "
        f"hyperparameters that optimizers share), with {seeds} per point",
        "halving": f"{points} of a shifted Halton sequence by successive halving (reduction "
        f"factor {plan.tuning.reduction}), with {seeds} per point",
        "grid": f"all combinations of the given values, with {seeds} per combination",
    }[plan.tuning.method]
    untuned = [optimizer.label for optimizer in plan.optimizers if not optimizer.is_tuned]
    fixed = f" Hyperparameters of {listed(untuned)} were fixed in advance." if untuned else ""
    return (
        f"Each tuned optimizer was evaluated at {how}. The configuration with the best mean "
        f"{Measure(plan.validation_metric).words} at the last step was chosen and rerun on fresh seeds; tuning runs "
        f"never read the test set.{fixed}"
    )


def _methods_of_seeds(plan: Plan) -> str:
    splits = ", each with its own split of the data" if "split" in plan.vary else ", all on one split of the data"
    fixed = [task.label for number, task in enumerate(plan.tasks) if plan.resplits(number) == "nothing"]
    if "split" in plan.vary and fixed:
        splits += f" (except {listed(fixed)}, whose split is fixed)"
    measure = Measure(plan.metric)
    up_to = "up to " if len(plan.looks) > 1 else ""
    return (
        f"The primary endpoint, fixed in advance, was {measure.words}{measure.weights}. Each optimizer was run with "
        f"{up_to}{counted(len(plan.seeds), 'seed')}{splits}. Runs with the same seed shared initial weights, data "
        "order, augmentation and dropout, and were compared in pairs."
    )


def _methods_of_tests(plan: Plan) -> str:
    unadjusted = ", not adjusted for the number of pairs" if plan.pairs > 1 else ""
    if plan.stopping == "fixed":
        intervals = f"Differences are reported with 95 % t intervals{unadjusted}."
        if plan.pairs == 1:
            return (
                f"The optimizers were compared by a two-sided paired t test at a significance level of 5 %. {intervals}"
            )
        return (
            "The optimizers were compared by two-sided paired t tests; Holm's correction over all "
            f"{plan.pairs:,} pairs controlled the family-wise error rate at 5 %. {intervals}"
        )
    if plan.stopping == "any":
        holm = f", with Holm's correction over {plan.pairs:,} pairs" if plan.pairs > 1 else ""
        return (
            "Seeds were added one by one. The optimizers were compared by an always-valid sequential t test (a t "
            "likelihood ratio with a normal prior on the standardized difference), which remains valid when results "
            f"are examined after every seed{holm}. Differences are reported with "
            f"always-valid 95 % intervals{unadjusted}."
        )
    looks = listed(list(map(str, plan.looks)))
    divided = f", divided by the number of pairs ({plan.pairs:,})," if plan.pairs > 1 else ""
    return (
        f"The optimizers were compared by two-sided group-sequential paired t tests with looks planned at {looks} "
        f"seeds. An alpha of 5 %{divided} was spent by the Lan-DeMets approach with the power-family function "
        "alpha t^2 (Kim and DeMets 1987), where t is the information fraction: the fraction of the planned seeds that "
        "is complete. Differences are reported with repeated confidence intervals"
        f"{', simultaneous over all pairs' if plan.pairs > 1 else ''}."
    )


def _methods_of_divergence(plan: Plan) -> str:
    scores = {task.diverged_score for task in plan.tasks}
    if None in scores:
        return "A diverged run had no score, and an optimizer with a diverged run could not be best."
    values = " or ".join(Measure(plan.metric).value(score) for score in sorted(s for s in scores if s is not None))
    depends = ", depending on the task" if len(scores) > 1 else ""
    return f"A diverged run counted as {values}{depends}."
