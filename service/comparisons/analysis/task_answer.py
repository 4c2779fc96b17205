"""The answer on one task from groups of runs and their tests, for planned and stored runs alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.comparisons.analysis.completeness import Obstacle
from service.comparisons.analysis.decision import Ranking, decide
from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import Run
from service.comparisons.analysis.summaries import group_view, pair_view
from service.comparisons.analysis.verdict import diverged_text, verdict_text
from service.comparisons.answers import CompareAnswer, LeftOut, VerdictView
from service.specs.metric_text import Measure
from service.specs.summary import Target
from service.stats.multiple_testing import Family, Test


@dataclass(frozen=True)
class Question:
    """What is compared on one task, and by which tests."""

    dataset: str
    model: str | None
    """None if models are compared."""
    metric: str
    group_by: str
    target: Target | None
    """The same for all runs, or None."""
    held_fixed: Mapping[str, Any]
    family: Family
    is_scored: bool = False
    """Whether diverged runs have a declared score, so that a group with diverged runs can be best."""
    has_looks: bool = False
    """Whether the plan adds seeds depending on results."""

    @property
    def noun(self) -> str:
        """What a group is called in sentences."""
        return "optimizer" if self.group_by == "optimizer" else "group"


Caveats = Callable[[Question, Ranking], Iterable[str]]
"""Sentences that qualify a verdict, besides those on diverged runs."""


def task_answer(
    question: Question,
    groups: Sequence[Group[Run]],
    tests: Sequence[Test],
    left_out: LeftOut,
    caveats: Caveats,
    blocked_by: Obstacle | None = None,
) -> CompareAnswer:
    """Statistics of the groups, tests of their pairs, and the verdict. `groups` are ordered by mean, best first."""
    measure = Measure(question.metric)
    views = [
        group_view(group, measure.sign, has_target=question.target is not None, has_looks=question.has_looks)
        for group in groups
    ]
    pairs = [pair_view(test, groups, question.family) for test in tests]
    return CompareAnswer(
        dataset=question.dataset,
        model=question.model,
        metric=question.metric,
        group_by=question.group_by,
        target=question.target,
        held_fixed=dict(question.held_fixed),
        groups=views,
        pairs=pairs,
        verdict=_verdict(question, Ranking(measure.sign, views, pairs), caveats, blocked_by),
        left_out=left_out,
    )


def _verdict(question: Question, ranking: Ranking, caveats: Caveats, blocked_by: Obstacle | None) -> VerdictView:
    decision = decide(ranking, is_scored=question.is_scored, blocked_by=blocked_by)
    sentences = [verdict_text(decision, Measure(question.metric), question.family, question.noun)]
    if decision.needs_divergence and not question.is_scored:
        sentences += diverged_text(ranking.groups)
    if decision.needs_caveats:
        sentences += caveats(question, ranking)
    return VerdictView(decided=decision.best is not None, best=decision.best, text=" ".join(sentences))
