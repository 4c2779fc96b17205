"""Verdict sentences from decisions. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.comparisons.analysis.decision import Decision, DecisionKind, Lead
from service.comparisons.answers import GroupView, PairView
from service.comparisons.design.requests import MAX_SEEDS
from service.specs.metric_text import Measure
from service.specs.quantities import p_equation
from service.specs.text import briefly_listed, counted, listed
from service.stats.multiple_testing import ALPHA, MIN_SHARED_SEEDS, Family


def verdict_text(decision: Decision, measure: Measure, family: Family, noun: str) -> str:
    """The verdict without its caveats. `noun`: what a group is called."""
    return _TEXTS[decision.kind](_Facts(decision, measure, family, noun))


def _correction(family: Family) -> str:
    """Clause on the adjustment of p; follows the p value in a sentence."""
    if family.stopping == "looks":
        pairs = f"{family.pairs} pairs and " if family.pairs > 1 else ""
        return f", adjusted for {pairs}{counted(len(family.looks), 'planned look')}"
    valid = " (always-valid test)" if family.stopping == "any" else ""
    return valid + (f" after Holm's correction over {family.pairs} pairs" if family.pairs > 1 else "")


def diverged_text(groups: Sequence[GroupView]) -> Iterator[str]:
    """Sentences on diverged runs that have no score."""
    for group in groups:
        if group.diverged and group.n:
            yield (
                f"{group.diverged} of {group.diverged + group.n} runs of {group.label} diverged: "
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
        return f"{self.described} has the best mean{scope}."

    @property
    def described(self) -> str:
        """Label and mean of the leader."""
        return f"{self.leader.label} ({self.mean})"

    @property
    def mean(self) -> str:
        assert self.leader.mean is not None
        return f"mean {self.measure.words} {self.measure.value(self.leader.mean)}, {counted(self.leader.n, 'seed')}"

    @property
    def others(self) -> str:
        """Sentences on the other groups."""
        also, beaten = self.decision.also_open, self.decision.beaten
        text = f" {_subject(also)} not significantly behind any other {self.noun} either." if also else ""
        return text + (f" {_subject(beaten)} significantly behind another {self.noun}." if beaten else "")


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
    return f"{facts.decision.obstacle.verdict} Over the finished runs, {facts.described} has the best mean."


def _one_group(facts: _Facts) -> str:
    return f"Only {facts.described} has runs with a score, so there is nothing to compare."


def _best(facts: _Facts) -> str:
    assert facts.pair.p_adjusted is not None
    others = [label for label in facts.decision.beaten if label != facts.closest.label]
    also = f"; it is also significantly better than {briefly_listed(others)}" if others else ""
    behind = "".join(
        f" {label} is significantly behind {briefly_listed(better)}, though not behind {facts.leader.label}."
        for label, better in facts.decision.beaten_by_others
    )
    p = f"{p_equation(facts.pair.p_adjusted)}{_correction(facts.family)}"
    return f"{facts.described} is best: it leads {facts.closest.label} by {facts.lead}, {p}{also}.{behind}"


def _alike(facts: _Facts) -> str:
    names = listed([facts.leader.label, *facts.decision.alike])
    too_few = f" A test needs at least {MIN_SHARED_SEEDS} seeds." if facts.pair.n < MIN_SHARED_SEEDS else ""
    return f"{names} gave the same result in every run ({facts.mean}).{too_few}{facts.others}"


def _too_few_seeds(facts: _Facts) -> str:
    shared = f"only {counted(facts.pair.n, 'seed')}" if facts.pair.n else "no seeds"
    return (
        f"Too few seeds: {facts.leader.label} and {facts.closest.label} share {shared}; a test needs at least "
        f"{MIN_SHARED_SEEDS}. {facts.best_mean}{facts.others}"
    )


def _leader_beaten(facts: _Facts) -> str:
    why = (
        ", but cannot be best, because some of its runs diverged"
        if facts.closest.diverged
        else " on the seeds that both have, but its mean over all its seeds is worse, so it is not best"
    )
    return f"{facts.closest.label} leads {facts.leader.label} by {facts.lead}{why}. {facts.best_mean}{facts.others}"


def _open(facts: _Facts) -> str:
    pair, names = facts.pair, f"{facts.leader.label} and {facts.closest.label}"
    if pair.interval:
        result = (
            f"{names} cannot be distinguished with {counted(pair.n, 'seed')}{_corrected(facts)}: {_difference(facts)}."
        )
    else:
        result = f"{names} cannot be tested against each other, because {pair.cannot_say}: {_difference(facts)}."
    return f"{result} {facts.best_mean}{_seeds_needed(pair)}{facts.others}"


def _difference(facts: _Facts) -> str:
    """The difference of an open pair; on the seeds of the pair, the group with the better mean may trail."""
    lead, better = facts.decision.lead, facts.leader
    assert lead is not None
    if lead.difference < 0:
        lead, better = lead.reversed(), facts.closest
    text = lead_text(facts.measure, lead)
    is_shown_as_zero = not text.split()[0].strip("0.")
    return f"the mean difference is {text}" if is_shown_as_zero else f"{better.label} leads by {text}"


def _corrected(facts: _Facts) -> str:
    """Clause for a pair that is open although its own interval excludes zero."""
    pair, family = facts.pair, facts.family
    if pair.p is None or pair.p >= ALPHA or pair.p_adjusted is None or pair.p_adjusted < ALPHA:
        return ""
    adjusted = "adjusted" if family.stopping == "looks" else "Holm-adjusted"
    return f" after correction for {family.pairs} pairs ({adjusted} {p_equation(pair.p_adjusted)})"


def _seeds_needed(pair: PairView) -> str:
    if pair.seeds_needed is None:
        return ""
    about = f"About {pair.seeds_needed} seeds in total"
    if pair.seeds_needed > MAX_SEEDS:
        about = f"More than {MAX_SEEDS:,} seeds, the limit of a comparison,"
    return f" {about} would be needed to confirm a difference of this size."


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
