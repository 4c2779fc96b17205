"""Whether one group of a task is best, and the facts behind the decision; `verdict` words them.

A group is best if it is the only one that no other group beats significantly, with at least three seeds per pair.
Unless the plan declares a score for diverged runs, none of its runs may have diverged. A group whose runs all diverged
has no mean and is not a rival. A missing planned run prevents a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto

from service.comparisons.analysis.completeness import Obstacle
from service.comparisons.answers import GroupView, PairView
from service.stats import Interval
from service.stats.multiple_testing import MIN_SHARED_SEEDS


class DecisionKind(StrEnum):
    """The kinds of decision."""

    BLOCKED = auto()
    """The comparison is still running or ended early, or planned runs of the task are missing."""
    ALL_DIVERGED = auto()
    """Every run of every group diverged."""
    NO_JOBS = auto()
    """No finished job matches."""
    NO_RESULTS = auto()
    """No final run has a result yet."""
    EACH_DIVERGED = auto()
    """Each group has runs that diverged, so none can be best."""
    ONE_GROUP = auto()
    """Only one group has results."""
    BEST = auto()
    """The leader is best."""
    ALIKE = auto()
    """The leader and other groups have the same result in every run."""
    TOO_FEW_SEEDS = auto()
    """The leader and its closest rival share fewer seeds than a test needs."""
    LEADER_BEATEN = auto()
    """The closest rival is significantly better than the leader, but cannot be best."""
    OPEN = auto()
    """The leader and its closest rival cannot be distinguished."""


@dataclass(frozen=True)
class Lead:
    """Difference by which a group is better than another one; positive is better, for any direction of the metric."""

    difference: float
    interval: Interval | None

    def reversed(self) -> Lead:
        """The lead of the other group."""
        return Lead(-self.difference, self.interval and (-self.interval[1], -self.interval[0]))


@dataclass(frozen=True)
class Decision:
    """The kind of decision, and the facts that its verdict states."""

    kind: DecisionKind
    leader: GroupView | None = None
    """The group with the best mean among those that can be best."""
    closest: GroupView | None = None
    """The open rival with the best mean; if the leader is best, the rival with the smallest lead over it."""
    pair: PairView | None = None
    """The pair of the leader and its closest rival."""
    lead: Lead | None = None
    """The lead of the better group of this pair: the leader's, unless it is beaten."""
    leads_all: bool = True
    """Whether no group has a better mean than the leader, including those that cannot be best."""
    alike: tuple[str, ...] = ()
    """Groups with the leader's result in every run."""
    also_open: tuple[str, ...] = ()
    """Further rivals that are not significantly behind another group."""
    beaten: tuple[str, ...] = ()
    """Rivals that are significantly behind another group; if the leader is best, those behind the leader."""
    beaten_by_others: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Rivals of the best group that are not significantly behind it, each with the rivals that it is behind."""
    obstacle: Obstacle | None = None
    """Why the task is blocked."""

    @property
    def best(self) -> str | None:
        """The best group, if there is one."""
        return self.leader.label if self.kind is DecisionKind.BEST and self.leader else None

    @property
    def needs_divergence(self) -> bool:
        """Whether the verdict needs sentences on diverged runs."""
        return self.kind not in (DecisionKind.BLOCKED, DecisionKind.ALL_DIVERGED)

    @property
    def needs_caveats(self) -> bool:
        """Whether the verdict needs sentences on how far its result applies."""
        return self.needs_divergence and self.kind is not DecisionKind.NO_RESULTS


class Ranking:
    """The groups of a task, best mean first, with their pairwise leads."""

    def __init__(self, sign: int, groups: Sequence[GroupView], pairs: Sequence[PairView]) -> None:
        self.groups = groups
        self.finished = [group for group in groups if group.mean is not None]
        self._sign = sign
        self._pairs = {(pair.a, pair.b): pair for pair in pairs}

    def candidates(self, *, is_scored: bool) -> list[GroupView]:
        """The groups that can be best. `is_scored`: diverged runs have a declared score."""
        return [group for group in self.finished if is_scored or not group.diverged]

    def leaders(self, *, is_scored: bool) -> list[GroupView]:
        """The candidate with the best mean, and all candidates that no group beats."""
        candidates = self.candidates(is_scored=is_scored)
        return [group for group in candidates if group is candidates[0] or not self.is_beaten(group)]

    def pair(self, a: GroupView, b: GroupView) -> PairView:
        """The pair of two groups, in either order."""
        return self._pairs.get((a.label, b.label)) or self._pairs[b.label, a.label]

    def lead(self, a: GroupView, b: GroupView) -> Lead:
        """The lead of `a` over `b`."""
        pair = self.pair(a, b)
        sign = self._sign * (1 if pair.a == a.label else -1)
        ends = sorted(sign * end for end in pair.interval) if pair.interval else None
        return Lead(sign * (pair.difference or 0.0), (ends[0], ends[1]) if ends else None)

    def beats(self, a: GroupView, b: GroupView) -> bool:
        """Whether `a` is significantly better than `b`."""
        return self.pair(a, b).significant and self.lead(a, b).difference > 0

    def is_beaten(self, group: GroupView) -> bool:
        """Whether any group is significantly better.

        The only group that is not beaten is best even if not all of its pairs were tested at the last look, because all
        significant differences hold simultaneously.
        """
        return any(self.beats(other, group) for other in self.finished if other is not group)

    def is_alike(self, a: GroupView, b: GroupView) -> bool:
        """Whether two groups have the same result in every run; often they are the same training under two names."""
        pair = self.pair(a, b)
        return pair.n == a.n == b.n and pair.difference == 0 and not pair.detail.sd


def decide(ranking: Ranking, *, is_scored: bool, blocked_by: Obstacle | None) -> Decision:
    """Decide whether one group is best. `is_scored`: diverged runs have a declared score."""
    leader = next(iter(ranking.candidates(is_scored=is_scored)), None)
    if blocked_by is not None:
        shown = leader if blocked_by.is_of_task else None
        leads_all = shown is None or shown is ranking.finished[0]
        return Decision(DecisionKind.BLOCKED, shown, leads_all=leads_all, obstacle=blocked_by)
    if ranking.groups and all(_has_only_diverged(group, is_scored) for group in ranking.groups):
        return Decision(DecisionKind.ALL_DIVERGED)
    if leader is None or len(ranking.finished) < 2:
        return _without_rivals(ranking)
    rivals = [group for group in ranking.finished if group is not leader]
    open_rivals = [group for group in rivals if not ranking.is_beaten(group)]
    if open_rivals:
        return _undecided(ranking, leader, rivals, open_rivals)
    return _best(ranking, leader, rivals)


def _has_only_diverged(group: GroupView, is_scored: bool) -> bool:
    """Whether all runs of a group diverged; with a declared score they are counted in `n`."""
    return group.diverged > 0 and group.n == (group.diverged if is_scored else 0)


def _without_rivals(ranking: Ranking) -> Decision:
    if not ranking.groups:
        return Decision(DecisionKind.NO_JOBS)
    if not ranking.finished:
        return Decision(DecisionKind.NO_RESULTS)
    if len(ranking.finished) > 1:
        return Decision(DecisionKind.EACH_DIVERGED)
    return Decision(DecisionKind.ONE_GROUP, ranking.finished[0])


def _best(ranking: Ranking, leader: GroupView, rivals: Sequence[GroupView]) -> Decision:
    beaten = [rival for rival in rivals if ranking.beats(leader, rival)]
    closest = min(beaten, key=lambda rival: ranking.lead(leader, rival).difference)
    return Decision(
        DecisionKind.BEST,
        leader,
        closest,
        ranking.pair(leader, closest),
        ranking.lead(leader, closest),
        beaten=_labels(beaten),
        beaten_by_others=tuple(
            (rival.label, _labels(other for other in rivals if other is not rival and ranking.beats(other, rival)))
            for rival in rivals
            if rival not in beaten
        ),
    )


def _undecided(
    ranking: Ranking, leader: GroupView, rivals: Sequence[GroupView], open_rivals: Sequence[GroupView]
) -> Decision:
    closest = open_rivals[0]
    alike = [rival for rival in open_rivals if ranking.is_alike(leader, rival)]
    kind, lead = DecisionKind.OPEN, ranking.lead(leader, closest)
    if alike:
        kind = DecisionKind.ALIKE
    elif ranking.pair(leader, closest).n < MIN_SHARED_SEEDS:
        kind = DecisionKind.TOO_FEW_SEEDS
    elif ranking.beats(closest, leader):
        kind, lead = DecisionKind.LEADER_BEATEN, ranking.lead(closest, leader)
    named = alike or [closest]
    return Decision(
        kind,
        leader,
        closest,
        ranking.pair(leader, closest),
        lead,
        leads_all=leader is ranking.finished[0],
        alike=_labels(alike),
        also_open=_labels(rival for rival in open_rivals if rival not in named),
        beaten=_labels(rival for rival in rivals if rival not in open_rivals),
    )


def _labels(groups: Iterable[GroupView]) -> tuple[str, ...]:
    return tuple(group.label for group in groups)
