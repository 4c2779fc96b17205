"""From stored runs of one setting to the answer of `GET /v1/compare`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from service.comparisons.analysis.base_optimizers import leads_over_base
from service.comparisons.analysis.decision import Ranking
from service.comparisons.analysis.grouping import (
    by_mean,
    group,
    held_fixed,
    shared_parameters,
    shared_setting,
    task_scores,
)
from service.comparisons.analysis.summaries import left_out
from service.comparisons.analysis.task_answer import Question, task_answer
from service.comparisons.analysis.verdict import diverged_text
from service.comparisons.answers import CompareAnswer
from service.comparisons.design.labels import GroupBy
from service.comparisons.design.runs import StoredRun
from service.specs.metric_text import Measure
from service.specs.training import Target
from service.stats.multiple_testing import Family, adjusted_tests


def compare_runs(
    runs: Sequence[StoredRun],
    *,
    dataset: str,
    model: str | None,
    group_by: GroupBy,
    metric: str,
    target: Target | None,
    stopping: Literal["fixed", "any"] = "fixed",
) -> CompareAnswer:
    """Group runs by a field of their specs, pair them by seed, test all pairs and give the verdict.

    Args:
        runs: all that match the question.
        dataset: of all runs.
        model: of all runs, ignored if models are compared.
        group_by: the field.
        metric: compared at the end of each run.
        target: whose `hit` the runs have; None: their own target, if all have the same.
        stopping: "any" for tests that are valid at any number of seeds.

    Raises:
        Invalid: neither more nor less of the metric is better, or the runs are of several settings.
    """
    measure = Measure(metric)
    sign = measure.sign
    counted = [run for run in runs if run.counts]
    setting = shared_setting(counted, group_by)
    groups = by_mean(group(counted, group_by), sign)
    shown_elsewhere = {"dataset.name", "model.name", "stop_at_target", group_by, f"{group_by}.name"}
    family = Family(pairs=max(1, len(groups) * (len(groups) - 1) // 2), stopping=stopping, sign=sign)
    question = Question(
        dataset=dataset,
        model=None if group_by == "model" else model,
        metric=metric,
        group_by=group_by,
        target=target or _common_target(counted),
        held_fixed=held_fixed(shared_parameters(groups, group_by) | setting, shown_elsewhere),
        family=family,
    )
    (tests,) = adjusted_tests([task_scores(groups)], family)
    repeated = len(counted) - sum(len(of_value.runs) for of_value in groups)
    return task_answer(
        question,
        groups,
        tests,
        left_out(runs, repeated),
        lambda ranking: _caveats(ranking, measure, question.held_fixed),
    )


def _common_target(runs: Sequence[StoredRun]) -> Target | None:
    """The target that all jobs recorded; None if they differ, since their steps are not comparable."""
    targets = [run.spec.get("target") for run in runs]
    is_common = targets and targets[0] and targets.count(targets[0]) == len(targets)
    return Target.model_validate(targets[0]) if is_common else None


def _caveats(ranking: Ranking, measure: Measure, fixed: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on how far the verdict holds."""
    yield from leads_over_base(ranking, measure)
    yield from diverged_text(ranking.groups)
    if not ranking.groups:
        return
    if "lr" in fixed:
        yield f"This holds at learning rate {fixed['lr']:g}, not tuned for each, on this split of the data."
    else:
        yield (
            "Each ran at the learning rate that its label names; whether these were tuned with equal effort is not "
            "known here. This holds on this split of the data."
        )
