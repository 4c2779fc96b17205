"""The answer of `GET /v1/compare` from stored runs of one setting. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

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
from service.comparisons.analysis.runs import StoredRun
from service.comparisons.analysis.summaries import left_out
from service.comparisons.analysis.task_answer import Question, task_answer
from service.comparisons.answers import CompareAnswer
from service.comparisons.design.labels import GroupBy
from service.specs.metric_text import Measure
from service.specs.states import JobStatus
from service.specs.summary import Target
from service.stats.multiple_testing import Family, adjusted_tests

SHOWN_ELSEWHERE = frozenset({"dataset.name", "model.name", "stop_at_target"})
"""Fields of the setting that the answer shows elsewhere, or that concern its target only."""


def compare_runs(
    runs: Sequence[StoredRun],
    *,
    dataset: str,
    model: str | None,
    group_by: GroupBy,
    metric: str,
    target: Target | None,
    stopping: Literal["fixed", "any"] = "fixed",
    uncounted: Mapping[JobStatus, int] | None = None,
) -> CompareAnswer:
    """Group runs by a field of their specs, pair them by seed, test all pairs and give the verdict.

    Args:
        runs: those that match the query.
        dataset: of all runs.
        model: of all runs, ignored if models are compared.
        group_by: the field.
        metric: its value at the end of each run is compared.
        target: that of the `hit` of each run; None: the target that all runs recorded, if it is the same.
        stopping: "any" for tests that are valid at any number of seeds.
        uncounted: further runs that match, without a result, by status.

    Raises:
        Invalid: the metric has no better direction, or the runs are of several settings.
    """
    measure = Measure(metric)
    counted = [run for run in runs if run.counts]
    groups = by_mean(group(counted, group_by), measure.sign)
    setting = shared_parameters(groups, group_by)
    setting |= shared_setting(counted, group_by, is_speed=measure.is_speed)
    question = Question(
        dataset=dataset,
        model=None if group_by == "model" else model,
        metric=metric,
        group_by=group_by,
        target=target or _common_target(counted),
        held_fixed=held_fixed(setting, SHOWN_ELSEWHERE | {group_by, f"{group_by}.name"}),
        family=Family(max(1, len(groups) * (len(groups) - 1) // 2), stopping, sign=measure.sign),
    )
    (tests,) = adjusted_tests([task_scores(groups)], question.family)
    repeated = len(counted) - sum(len(of_value.runs) for of_value in groups)
    without_result = Counter(run.result.status for run in runs if not run.counts) + Counter(uncounted)
    return task_answer(question, groups, tests, left_out(without_result, repeated), _caveats)


def _common_target(runs: Sequence[StoredRun]) -> Target | None:
    """The target that all jobs recorded; None if they differ, since their steps are not comparable."""
    targets = [run.spec.get("target") for run in runs]
    is_common = targets and targets[0] and targets.count(targets[0]) == len(targets)
    return Target.model_validate(targets[0]) if is_common else None


def _caveats(question: Question, ranking: Ranking) -> Iterator[str]:
    yield from leads_over_base(ranking, Measure(question.metric))
    if not ranking.groups:
        return
    rate = question.held_fixed.get("lr")
    if rate is not None:
        yield (
            f"The result applies only to learning rate {rate:g}, which was not tuned per {question.noun}, and to one "
            "split of the data."
        )
    elif any("lr" in group.optimizer["params"] for group in ranking.groups if group.optimizer):
        yield (
            f"Each {question.noun} ran at the learning rate in its label; whether these rates were tuned with equal "
            "effort is not recorded. The result applies to one split of the data only."
        )
    else:
        yield "The result applies to one split of the data only."
