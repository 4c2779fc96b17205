"""The methods paragraph of a plan, and the plan in answers."""

from __future__ import annotations

from collections.abc import Sequence

from service.comparisons.analysis.completeness import Obstacle
from service.comparisons.answers import PlanView
from service.comparisons.design.plan import Plan
from service.specs.metric_text import Measure, listed, many
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
        return f"{methods(plan)} {obstacle.methods}"
    if not incomplete:
        return methods(plan)
    where = f" on {listed(incomplete, most=None)}" if len(plan.tasks) > 1 else ""
    return f"{methods(plan)} Planned runs are missing{where}; pairs that lack one were not tested."


def _methods_of_tuning(plan: Plan) -> str:
    if plan.tuning is None:
        return "Optimizer parameters were given in advance and not tuned."
    runs = many(plan.tuning.seeds, "seed")
    how = {
        "quasi_random": f"{plan.tuning.trials} points of a shifted Halton sequence, the same for shared parameters",
        "halving": f"{plan.tuning.trials} points of a shifted Halton sequence, with successive halving by "
        f"{plan.tuning.reduction}",
        "grid": "all combinations of the given values",
    }[plan.tuning.method]
    return (
        f"Each tuned optimizer was run at {how}, with {runs} each; the point with the best mean "
        f"{Measure(plan.validation_metric).words} at the last step was chosen, in runs that never read the "
        "test set, and rerun on fresh seeds."
    )


def _methods_of_seeds(plan: Plan) -> str:
    splits = ", each with its own split of the data" if "split" in plan.vary else ", on one split of the data"
    fixed = [task.label for number, task in enumerate(plan.tasks) if plan.resplits(number) == "nothing"]
    if "split" in plan.vary and fixed:
        splits += f" (except {listed(fixed, most=None)}, whose split is fixed)"
    measure = Measure(plan.metric)
    up_to = "up to " if len(plan.looks) > 1 else ""
    return (
        f"The primary endpoint, fixed in the plan, is {measure.words}{measure.weights}, on {up_to}"
        f"{many(len(plan.seeds), 'seed')}{splits}; runs of one seed share initial weights, data order, augmentation "
        "and dropout, and are compared in pairs."
    )


def _methods_of_tests(plan: Plan) -> str:
    if plan.stopping == "fixed":
        return (
            f"Two-sided paired t tests; Holm's correction over all {plan.pairs} pairs controls the family-wise "
            "error rate at 5 %."
            if plan.pairs > 1
            else "A two-sided paired t test at 5 %."
        )
    if plan.stopping == "any":
        return (
            "Seeds were added one by one; an always-valid sequential t test (a t likelihood ratio with a normal prior "
            "on the standardized difference) remains valid with a look after each, with Holm's correction over "
            f"{many(plan.pairs, 'pair')}."
        )
    looks = ", ".join(map(str, plan.looks))
    return (
        f"Two-sided group-sequential paired t tests with looks planned at {looks} seeds (Lan-DeMets spending, "
        f"alpha t^2), the error rate of 5 % divided over {many(plan.pairs, 'pair')}; intervals are "
        "repeated confidence intervals."
    )


def _methods_of_divergence(plan: Plan) -> str:
    scores = {task.diverged_score for task in plan.tasks}
    if None in scores:
        return "A diverged run has no score, and an optimizer with a diverged run cannot be best."
    values = " or ".join(Measure(plan.metric).value(score) for score in sorted(s for s in scores if s is not None))
    return f"A diverged run counts as {values}."
