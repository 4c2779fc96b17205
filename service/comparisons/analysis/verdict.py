"""From runs to an answer: statistics of the groups, tests between them, and a verdict in plain words.

A group is called best where it is alone in not being significantly behind another one, with at least three seeds a
pair, and, unless a plan declares what a diverged run scores, if none of its runs diverged. A group of which every run
diverged has no mean, and is not in the way of another one's victory; a planned run that is missing is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.comparisons.analysis.grouping import Group, Run, group, held_fixed, shared_setting
from service.comparisons.analysis.summaries import group_view, pair_view
from service.comparisons.answers import CompareAnswer, GroupView, LeftOut, PairView, VerdictView
from service.comparisons.design.labels import GroupBy
from service.comparisons.design.labels import family as kind
from service.comparisons.design.requests import MOST_SEEDS
from service.specs.metric_text import Measure, listed, many
from service.specs.training import JobStatus, Target
from service.stats import Interval
from service.stats.multiple_testing import ALPHA, FEWEST_PAIRS, Family, Sampled, test_all


@dataclass(frozen=True)
class Protocol:
    """What the words have to say of how the runs came about.

    `correction`: what a p is after, to follow it (" after Holm's correction over 3 pairs"). `scored`: whether a
    diverged run counts with a declared score, and so is no obstacle. `missing`: what planned runs are missing, in
    sentences; where there are any, none is best. `caveats`: sentences at the end, instead of the usual ones.
    """

    correction: str = ""
    scored: bool = False
    missing: str = ""
    caveats: tuple[str, ...] | None = None


def compare_runs(
    runs: Sequence[Run],
    *,
    dataset: str,
    model: str | None,
    group_by: GroupBy,
    metric: str,
    target: Target | None,
    stopping: Literal["fixed", "any"] = "fixed",
) -> CompareAnswer:
    """Group `runs` by a field of their specs, pair them by seed, test all pairs and say what is known.

    `target` None takes each job's own target, where all have the same. `stopping` "any" tests so that it does not
    matter how often somebody looked. Raises Invalid for a metric without a better direction and for runs of several
    settings.
    """
    measure = Measure(metric)
    sign = measure.sign
    counted = [run for run in runs if run.counts]
    setting = shared_setting(counted, group_by)
    groups = group(counted, group_by)
    target = target or _common_target(counted)
    views = sorted((_view_of(each, sign, target is not None) for each in groups), key=by_mean(sign))
    by_label = {each.label: each for each in groups}
    ranked = [by_label[view.label] for view in views]
    family = Family(pairs=max(1, len(ranked) * (len(ranked) - 1) // 2), stopping=stopping, sign=sign)
    values = [each.values for each in ranked]
    (tests,) = test_all([Sampled(values)], family)
    pairs = [pair_view(test, [each.label for each in ranked], values, family) for test in tests]
    fixed = held_fixed(setting, groups, group_by)
    return CompareAnswer(
        dataset=dataset,
        model=None if group_by == "model" else model,
        metric=metric,
        group_by=group_by,
        target=target,
        held_fixed=fixed,
        groups=views,
        pairs=pairs,
        verdict=verdict(measure, views, pairs, fixed, Protocol(correction_in_words(family))),
        left_out=_left_out(runs, sum(len(each.runs) for each in groups)),
    )


def correction_in_words(family: Family) -> str:
    """What an adjusted p is after, to follow it in a sentence."""
    if family.stopping == "looks":
        over = f"{family.pairs} pairs and " if family.pairs > 1 else ""
        return f" over {over}{len(family.looks)} planned looks"
    valid = " by a test that is valid at any number of seeds" if family.stopping == "any" else ""
    return valid + (f" after Holm's correction over {family.pairs} pairs" if family.pairs > 1 else "")


def by_mean(sign: int) -> Callable[[GroupView], tuple[bool, float, str]]:
    """The order of groups: best mean first, those without a mean last."""
    return lambda view: (view.mean is None, -sign * (view.mean or 0), view.label)


def _common_target(runs: Sequence[Run]) -> Target | None:
    """The target that all jobs recorded; None where they differ, since their steps are then not comparable."""
    targets = [run.spec.get("target") for run in runs]
    return (
        Target.model_validate(targets[0])
        if targets and targets[0] and targets.count(targets[0]) == len(targets)
        else None
    )


def _left_out(runs: Sequence[Run], used: int) -> LeftOut:
    statuses = [run.status for run in runs if not run.counts]
    return LeftOut(
        unfinished=sum(not status.is_final for status in statuses),
        failed=statuses.count(JobStatus.FAILED),
        cancelled=statuses.count(JobStatus.CANCELLED),
        without_metric=statuses.count(JobStatus.SUCCEEDED),
        repeated=len(runs) - len(statuses) - used,
    )


def _view_of(each: Group, sign: int, has_target: bool) -> GroupView:
    hits = [None if run.diverged else run.target_hit for run in each.runs] if has_target else []
    return group_view(each.label, each.value, each.optimizer, each.values, hits, each.diverged, sign).model_copy(
        update={
            "jobs": [run.job for run in each.runs],
            "diverged_jobs": [run.job for run in each.runs if run.diverged],
        }
    )


# --- the verdict -----------------------------------------------------------------------------------------------------


def verdict(
    measure: Measure,
    groups: Sequence[GroupView],
    pairs: Sequence[PairView],
    fixed: Mapping[str, Any],
    protocol: Protocol,
) -> VerdictView:
    """Whether one group is best, and what is known, in words. `groups` are sorted by mean, the best first."""
    return _Verdict(measure, groups, pairs, fixed, protocol).view()


class _Verdict:
    """Decides, and finds the words."""

    def __init__(
        self,
        measure: Measure,
        groups: Sequence[GroupView],
        pairs: Sequence[PairView],
        fixed: Mapping[str, Any],
        protocol: Protocol,
    ) -> None:
        self.measure, self.protocol = measure, protocol
        self.groups = groups
        self.finished = [each for each in groups if each.mean is not None]
        self.pairs = {(pair.a, pair.b): pair for pair in pairs}
        self.fixed = fixed

    def view(self) -> VerdictView:
        """The verdict."""
        leader = next((each for each in self.finished if self.protocol.scored or not each.diverged), None)
        if self.groups and all(self._is_lost(each) for each in self.groups) and not self.protocol.missing:
            return self._silent("Every run diverged, so there is nothing to compare.")
        if self.protocol.missing:
            return self._silent(self._runs_are_missing(leader))
        if leader is None or len(self.finished) < 2:
            return self._undecided(self._nothing_to_compare())
        rivals = [each for each in self.finished if each is not leader]
        open_rivals = [each for each in rivals if not self._is_beaten(each)]
        if open_rivals:
            return self._undecided(self._cannot_tell(leader, rivals, open_rivals))
        return VerdictView(decided=True, best=leader.label, text=self._with_caveats(self._is_best(leader, rivals)))

    def _silent(self, text: str) -> VerdictView:
        """Nothing is said, so nothing has to be said of how far it holds."""
        return VerdictView(decided=False, best=None, text=text)

    def _undecided(self, headline: str) -> VerdictView:
        return VerdictView(decided=False, best=None, text=self._with_caveats(headline))

    def _pair(self, leader: GroupView, rival: GroupView) -> PairView:
        return self.pairs.get((leader.label, rival.label)) or self.pairs[rival.label, leader.label]

    def _lead(self, leader: GroupView, rival: GroupView) -> tuple[float, Interval | None]:
        """How much better the leader is, with its interval: positive is better whatever the metric's direction."""
        pair = self._pair(leader, rival)
        sign = self.measure.sign * (1 if pair.a == leader.label else -1)
        ends = sorted(sign * end for end in pair.interval) if pair.interval else None
        return sign * (pair.difference or 0.0), (ends[0], ends[1]) if ends else None

    def _beats(self, leader: GroupView, rival: GroupView) -> bool:
        return self._pair(leader, rival).significant and self._lead(leader, rival)[0] > 0

    def _is_beaten(self, each: GroupView) -> bool:
        """Whether some group beats it: who is alone in not being beaten is best, even where not every pair was tested
        to the end, since all significant differences hold at once."""
        return any(self._beats(other, each) for other in self.finished if other is not each)

    def _is_lost(self, each: GroupView) -> bool:
        """Whether all runs of a group diverged; those that have a declared score are counted in `n`."""
        return each.diverged > 0 and each.n == (each.diverged if self.protocol.scored else 0)

    def _is_like(self, leader: GroupView, rival: GroupView) -> bool:
        """Whether two groups came to the same in every run: the same training under two names, often."""
        pair = self._pair(leader, rival)
        return pair.n == leader.n == rival.n and pair.difference == 0 and not pair.detail.sd

    # Headlines: one or two sentences each.

    def _nothing_to_compare(self) -> str:
        if not self.groups:
            return "No finished job matches."
        if not self.finished:
            return "Nothing to compare yet: no reported run has ended with a result."
        if len(self.finished) > 1:
            return "No group can be called best, because runs of each one diverged."
        only = self.finished[0]
        return f"Only {self._described(only)} has finished runs: there is nothing to compare it with."

    def _runs_are_missing(self, leader: GroupView | None) -> str:
        if leader is None:
            return self.protocol.missing
        return f"{self.protocol.missing} The best mean of what is there is that of {self._described(leader)}."

    def _described(self, each: GroupView) -> str:
        assert each.mean is not None
        value = self.measure.value(each.mean)
        return f"{each.label} (mean {self.measure.words} {value}, {many(each.n, 'seed')})"

    def _is_best(self, leader: GroupView, rivals: Sequence[GroupView]) -> str:
        beaten = [each for each in rivals if self._beats(leader, each)]
        closest = min(beaten, key=lambda rival: self._lead(leader, rival)[0])
        pair = self._pair(leader, closest)
        assert pair.p_adjusted is not None
        more = len(beaten) - 1
        others = f", and leads {'the other' if more == 1 else f'the {more} others'} significantly, too" if more else ""
        by_others = [each.label for each in rivals if each not in beaten]
        behind = (
            f" {listed(by_others)} {'is' if len(by_others) == 1 else 'are'} behind one of these." if by_others else ""
        )
        p = f"{_p(pair.p_adjusted)}{self.protocol.correction}"
        lead = self.measure.lead(*self._lead(leader, closest))
        return f"{self._described(leader)} is best: it leads {closest.label} by {lead}, {p}{others}.{behind}"

    def _cannot_tell(self, leader: GroupView, rivals: Sequence[GroupView], open_rivals: Sequence[GroupView]) -> str:
        closest = open_rivals[0]
        pair = self._pair(leader, closest)
        lead = self.measure.lead(*self._lead(leader, closest))
        unbroken = "" if leader is self.finished[0] else " without diverged runs"
        best = f"The best mean{unbroken} is that of {self._described(leader)}."
        alike = [each for each in open_rivals if self._is_like(leader, each)]
        if alike:
            assert leader.mean is not None
            names = listed([each.label for each in (leader, *alike)], most=None)
            text = f"{names} gave the same result in every run"
            text += f" (mean {self.measure.words} {self.measure.value(leader.mean)}, {many(leader.n, 'seed')})."
            text += f" Too few seeds to say more: a test needs {FEWEST_PAIRS}." if pair.n < FEWEST_PAIRS else ""
            open_rivals = [leader, *(each for each in open_rivals if each not in alike)]
            rivals = [each for each in rivals if each not in alike]
        elif pair.n < FEWEST_PAIRS:
            text = (
                f"Too few seeds: {leader.label} and {closest.label} share {many(pair.n, 'seed')}, and a test needs "
                f"{FEWEST_PAIRS}. {best}"
            )
        elif self._beats(closest, leader):
            lead = self.measure.lead(*self._lead(closest, leader))
            why = "runs of it diverged" if closest.diverged else "over all its seeds its mean is not the highest"
            text = f"{closest.label} leads {leader.label} by {lead}, but cannot be called best, because {why}. {best}"
        else:
            known = f"with {many(pair.n, 'seed')}{self._corrected(pair)}" if pair.interval else f"({pair.cannot_say})"
            text = f"{leader.label} and {closest.label} cannot be told apart {known}: difference {lead}. {best}"
            text += self._seeds_needed(pair)
        also = [each.label for each in open_rivals[1:]]
        beaten = [each.label for each in rivals if each not in open_rivals]
        text += f" Also open: {listed(also)}." if also else ""
        return text + (f" Significantly behind: {listed(beaten)}." if beaten else "")

    def _seeds_needed(self, pair: PairView) -> str:
        if pair.seeds_needed is None:
            return ""
        about = f"About {pair.seeds_needed} seeds"
        if pair.seeds_needed > MOST_SEEDS:
            about = f"More seeds than the {MOST_SEEDS:,} that can be asked for"
        return f" {about} would tell, if the difference is what it seems."

    def _corrected(self, pair: PairView) -> str:
        """Why it is open although the pair's own interval excludes zero, where that is so."""
        if pair.p is None or pair.p >= ALPHA or pair.p_adjusted is None or pair.p_adjusted < ALPHA:
            return ""
        return f" once all pairs are tested ({_p(pair.p_adjusted)}{self.protocol.correction})"

    # What else has to be said.

    def _with_caveats(self, headline: str) -> str:
        if self.protocol.caveats is not None:
            return " ".join([headline, *self._diverged(), *self.protocol.caveats])
        return " ".join([headline, *self._base_optimizers(), *self._diverged(), *self._held_fixed()])

    def _base_optimizers(self) -> Iterable[str]:
        """For KO on a base that ran at several learning rates: its lead at one rate, and with each at its best."""
        plain = [each for each in self.finished if "base" not in each.optimizer["params"]]
        for name in sorted({each.optimizer["name"] for each in plain}):
            bases = {_rate(each): each for each in reversed(plain) if each.optimizer["name"] == name}
            kos = [each for each in self.finished if each.optimizer["params"].get("base") == name]
            shared = Counter(_rate(ko) for ko in kos if _rate(ko) in bases)
            if len(bases) < 2 or not shared:
                continue
            rate = min(shared, key=lambda rate: (-shared[rate], rate))  # not the one where KO leads most
            fixed = next(ko for ko in kos if _rate(ko) == rate)
            best_ko, best_base = kos[0], next(each for each in plain if each.optimizer["name"] == name)
            if min(self._pair(fixed, bases[rate]).n, self._pair(best_ko, best_base).n) < FEWEST_PAIRS:
                continue
            yield (
                f"At the same learning rate {rate:g}, {kind(fixed.optimizer)} {self._against(fixed, bases[rate])}; "
                f"with each at the best of its learning rates here, {kind(best_ko.optimizer)} "
                f"({_rate(best_ko):g}) {self._against(best_ko, best_base)}."
            )

    def _against(self, one: GroupView, other: GroupView) -> str:
        """`leads adam (0.01) by 1.7 points ...`"""
        verb, a, b = ("leads", one, other) if self._lead(one, other)[0] >= 0 else ("trails", other, one)
        lead = self.measure.lead(*self._lead(a, b))
        return f"{verb} {kind(other.optimizer)} ({_rate(other):g}) by {lead}"

    def _diverged(self) -> Iterable[str]:
        if self.protocol.scored:
            return
        for each in self.groups:
            if each.diverged and each.n:
                yield (
                    f"{each.diverged} of {each.diverged + each.n} runs of {each.label} diverged: "
                    "its mean is over the others, and it cannot be best."
                )
        if all_of_them := [each.label for each in self.groups if each.diverged and not each.n]:
            yield f"Every run of {listed(all_of_them)} diverged."

    def _held_fixed(self) -> Iterable[str]:
        if not self.groups:
            return
        if "lr" in self.fixed:
            yield f"This holds at learning rate {self.fixed['lr']:g}, not tuned for each, on this split of the data."
        else:
            yield (
                "Each ran at the learning rate that its label names; whether these were tuned with equal effort is not "
                "known here. This holds on this split of the data."
            )


def _rate(each: GroupView) -> float:
    return float(each.optimizer["params"]["lr"])


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
