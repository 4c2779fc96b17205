"""Verdict sentences from decisions. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.comparisons.analysis.decision import Decision, DecisionKind, Lead
from service.comparisons.answers import GroupView, PairView
from service.comparisons.design.requests import MAX_SEEDS, MAX_SEEDS_LOOKS
from service.specs.metric_text import Measure
from service.specs.quantities import p_equation
from service.specs.text import briefly_listed, counted, listed
from service.stats.multiple_testing import ALPHA, MIN_SHARED_SEEDS, Family, first_look_pending


def verdict_text(decision: Decision, measure: Measure, family: Family, noun: str) -> str:
    """The verdict without its caveats. `noun`: what a group is called."""
    return _TEXTS[decision.kind](_Facts(decision, measure, family, noun))


def _correction(family: Family) -> str:
    """Clause on the adjustment of p; follows the p value in a sentence."""
    if family.stopping == "looks":
        pairs = f"{counted(family.pairs, 'pair')} and " if family.pairs > 1 else ""
        return f", adjusted for {pairs}{counted(len(family.looks), 'planned look')}"
    valid = " (always-valid test)" if family.stopping == "any" else ""
    return valid + (f" after Holm's correction over {counted(family.pairs, 'pair')}" if family.pairs > 1 else "")


def diverged_text(groups: Sequence[GroupView]) -> Iterator[str]:
    """Sentences on diverged runs that have no score."""
    for group in groups:
        if group.diverged and group.n:
            yield (
                f"{group.diverged} of {counted(group.diverged + group.n, 'run')} of {group.label} diverged: "
                "its mean covers only the other runs, and it cannot be best."
            )
    if without_mean := [group.label for group in groups if group.diverged and not group.n]:
        yield f"Every run of {briefly_listed(without_mean)} diverged."


@dataclass(frozen=True)
class _Facts:
    """A decision with the formatting of its numbers."""

    decision: Decision
    measure: Measure
    family: Family
    noun: str

    @property
    def leader(self) -> GroupView:
        assert self.decision.leader is not None
        return self.decision.leader

    @property
    def closest(self) -> GroupView:
        assert self.decision.closest is not None
        return self.decision.closest

    @property
    def pair(self) -> PairView:
        assert self.decision.pair is not None
        return self.decision.pair

    @property
    def lead(self) -> str:
        assert self.decision.lead is not None
        return lead_text(self.measure, self.decision.lead)

    @property
    def best_mean(self) -> str:
        """Sentence on the leader."""
        scope = "" if self.decision.leads_all else f" of the {self.noun}s without diverged runs"
        return f"{self.leader.label} has the best mean {self._metric}{scope} ({self._mean})."

    @property
    def stated_mean(self) -> str:
        """The leader's mean."""
        return f"mean {self._metric} of {self._mean}"

    @property
    def _mean(self) -> str:
        assert self.leader.mean is not None
        unit = f" {self.measure.words}" if self.measure.is_speed else ""
        return f"{self.measure.value(self.leader.mean)}{unit} over {counted(self.leader.n, 'seed')}"

    @property
    def _metric(self) -> str:
        return "throughput" if self.measure.is_speed else self.measure.words

    @property
    def seeds(self) -> str:
        """The number of seeds of the pair, with the preposition."""
        seeds = counted(self.pair.n, "seed")
        return f"with {seeds}" + (" at the last complete look" if self.family.stopping == "looks" else "")

    @property
    def also_open(self) -> str:
        """Sentence on further groups that are not significantly behind."""
        also = self.decision.also_open
        return f" {_subject(also)} not significantly behind any other {self.noun}." if also else ""

    @property
    def beaten(self) -> str:
        """Sentence on the groups that are significantly behind."""
        beaten = self.decision.beaten
        return f" {_subject(beaten)} significantly behind at least one other {self.noun}." if beaten else ""


def _subject(labels: Sequence[str]) -> str:
    """`a is`, `a and b are`."""
    return f"{briefly_listed(labels)} {'is' if len(labels) == 1 else 'are'}"


def lead_text(measure: Measure, lead: Lead) -> str:
    """A lead and its interval."""
    return measure.lead(lead.difference, lead.interval)


# --- one text for each kind of decision ------------------------------------------------------------------------------


def _blocked(facts: _Facts) -> str:
    assert facts.decision.obstacle is not None
    if facts.decision.leader is None:
        return facts.decision.obstacle.verdict
    return f"{facts.decision.obstacle.verdict} Over the finished runs, {facts.best_mean}"


def _one_group(facts: _Facts) -> str:
    return f"Only {facts.leader.label} has runs with a score ({facts.stated_mean}), so there is nothing to compare."


def _best(facts: _Facts) -> str:
    assert facts.pair.p_adjusted is not None
    others = [label for label in facts.decision.beaten if label != facts.closest.label]
    also = f"; it is also significantly better than {briefly_listed(others)}" if others else ""
    behind = "".join(
        f" {label} is significantly behind {briefly_listed(better)}, though not behind {facts.leader.label}."
        for label, better in facts.decision.beaten_by_others
    )
    p = f"{p_equation(facts.pair.p_adjusted)}{_correction(facts.family)}"
    best = f"{facts.leader.label} is best, with a {facts.stated_mean}"
    return f"{best}: it leads {facts.closest.label} by {facts.lead}, {p}{also}.{behind}"


def _alike(facts: _Facts) -> str:
    names = listed([facts.leader.label, *facts.decision.alike])
    too_few = f" A test needs at least {MIN_SHARED_SEEDS} seeds." if facts.pair.n < MIN_SHARED_SEEDS else ""
    return f"{names} gave the same result in every run ({facts.stated_mean}).{too_few}{facts.also_open}{facts.beaten}"


def _too_few_seeds(facts: _Facts) -> str:
    if facts.family.stopping == "looks" and facts.pair.cannot_say == first_look_pending(facts.family):
        return f"No test yet: {facts.pair.cannot_say}. {facts.best_mean}{facts.beaten}"
    shared = f"only {counted(facts.pair.n, 'seed')}" if facts.pair.n else "no seeds"
    return (
        f"Too few seeds: {facts.leader.label} and {facts.closest.label} share {shared}; a test needs at least "
        f"{MIN_SHARED_SEEDS}. {facts.best_mean}{facts.beaten}"
    )


def _leader_beaten(facts: _Facts) -> str:
    why = (
        ", but cannot be best, because some of its runs diverged"
        if facts.closest.diverged
        else " on the seeds that both have, but its mean over all its seeds is worse, so it is not best"
    )
    lead = f"{facts.closest.label} leads {facts.leader.label} by {facts.lead}{why}."
    return f"{lead} {facts.best_mean}{facts.also_open}{facts.beaten}"


def _open(facts: _Facts) -> str:
    pair, names = facts.pair, f"{facts.leader.label} and {facts.closest.label}"
    difference = _difference(facts)
    if pair.p is None:
        result = f"{names} cannot be tested against each other ({pair.cannot_say}): {difference}."
    else:
        result = f"{names} cannot be distinguished {facts.seeds}{_corrected(facts)}: {difference}."
        if pair.interval is None:
            result += f" There is no interval, because {pair.cannot_say}."
    return f"{result} {facts.best_mean}{_seeds_needed(facts)}{facts.also_open}{facts.beaten}"


def _difference(facts: _Facts) -> str:
    """The difference of an open pair; on the seeds of the pair, the group with the better mean may trail."""
    lead, better = facts.decision.lead, facts.leader
    assert lead is not None
    if lead.difference < 0:
        lead, better = lead.reversed(), facts.closest
    text = lead_text(facts.measure, lead)
    is_shown_as_zero = not text.split()[0].strip("0.")
    if is_shown_as_zero:
        amount = facts.measure.difference(lead.difference, lead.interval)
        return f"the mean difference in {facts.measure.words} is {amount}"
    return f"{better.label} leads by {text}"


def _corrected(facts: _Facts) -> str:
    """Clause for a pair that is open although its own interval excludes zero."""
    pair, family = facts.pair, facts.family
    if pair.p is None or pair.p >= ALPHA or pair.p_adjusted is None or pair.p_adjusted < ALPHA:
        return ""
    adjusted = "adjusted" if family.stopping == "looks" else "Holm-adjusted"
    return f" after correction for {counted(family.pairs, 'pair')} ({adjusted} {p_equation(pair.p_adjusted)})"


def _seeds_needed(facts: _Facts) -> str:
    needed = facts.pair.seeds_needed
    if needed is None:
        return ""
    limit = MAX_SEEDS_LOOKS if facts.family.stopping == "looks" else MAX_SEEDS
    seeds = f"About {needed:,} seeds per {facts.noun}, including those already run,"
    if needed > limit:
        looks = " with planned looks" if facts.family.stopping == "looks" else ""
        seeds = f"More seeds than a comparison{looks} allows ({limit:,} per {facts.noun})"
    return f" {seeds} would be needed to detect a difference of this size with a power of 80 %."


_TEXTS: Mapping[DecisionKind, Callable[[_Facts], str]] = {
    DecisionKind.BLOCKED: _blocked,
    DecisionKind.ALL_DIVERGED: lambda _: "Every run diverged, so there is nothing to compare.",
    DecisionKind.NO_JOBS: lambda _: "No finished job matches the query.",
    DecisionKind.NO_RESULTS: lambda _: "No final run has a result yet.",
    DecisionKind.EACH_DIVERGED: lambda facts: f"No {facts.noun} can be best, because each has runs that diverged.",
    DecisionKind.ONE_GROUP: _one_group,
    DecisionKind.BEST: _best,
    DecisionKind.ALIKE: _alike,
    DecisionKind.TOO_FEW_SEEDS: _too_few_seeds,
    DecisionKind.LEADER_BEATEN: _leader_beaten,
    DecisionKind.OPEN: _open,
}
