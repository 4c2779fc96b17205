"""From runs to an answer: statistics of the groups, tests between them, and a verdict in plain words.

A group is called best only if its paired difference to each other group is significant after Holm's correction over
all pairs, with at least three seeds a pair, and if none of its runs diverged. Means are over finished runs; a group of
which every run diverged has no mean, and is not in the way of another one's victory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from service.answers import CompareAnswer, GroupView, LeftOut, PairView, VerdictView
from service.errors import Invalid
from service.groups import Group, GroupBy, Run, family, group, held_fixed, shared_setting
from service.spec import JobStatus, Target
from service.stats import Interval, describe, holm, median_to_target, paired_difference

ALPHA = 0.05
"""Family-wise rate of false verdicts."""

FEWEST_PAIRS = 3
"""With two pairs the t interval is 12.7 standard errors wide to each side: a test in name only."""


@dataclass(frozen=True)
class Measure:
    """A metric, which way is better, and how people read it: shares in percent and points, the rest as it is."""

    name: str

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        if self.name.endswith(("accuracy", "per_second")):
            return 1
        if self.name.endswith(("loss", "correlation")):
            return -1
        raise Invalid.field("metric", f"'{self.name}' cannot be compared: neither more nor less of it is better")

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.name.replace("_", " ")

    def value(self, value: float) -> str:
        """A value in a sentence."""
        return f"{100 * value:.1f} %" if self.name.endswith("accuracy") else f"{value:.3g}"

    def lead(self, lead: float, interval: Interval | None) -> str:
        """A difference and its interval in a sentence."""
        if not self.name.endswith("accuracy"):
            return f"{lead:.3g}" + (f" (95 % interval {interval[0]:.3g} to {interval[1]:.3g})" if interval else "")
        low, high = interval or (lead, lead)
        digits = 1 if high - low >= 0.01 or abs(lead) >= 0.1 else 2
        points = [f"{round(100 * x, digits) + 0.0:.{digits}f}" for x in (lead, low, high)]  # + 0.0: no "-0.0"
        return f"{points[0]} points" + (f" (95 % interval {points[1]} to {points[2]})" if interval else "")


def compare_runs(
    runs: Sequence[Run], *, dataset: str, model: str | None, group_by: GroupBy, metric: str, target: Target | None
) -> CompareAnswer:
    """Group `runs` by a field of their specs, pair them by seed, test all pairs and say what is known.

    `target` None takes each job's own target, where all have the same. Raises Invalid for a metric without a better
    direction and for runs of several settings.
    """
    measure = Measure(metric)
    sign = measure.sign
    counted = [run for run in runs if run.counts]
    setting = shared_setting(counted, group_by)
    groups = group(counted, group_by)
    target = target or _common_target(counted)
    views = sorted(
        (_group_view(each, sign, target is not None) for each in groups),
        key=lambda view: (view.mean is None, -sign * (view.mean or 0), view.label),
    )
    by_label = {each.label: each for each in groups}
    ranked = [by_label[view.label] for view in views]
    pairs = _pair_views(ranked)
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
        verdict=_Verdict(measure, views, pairs, fixed).view(),
        left_out=_left_out(runs, sum(len(each.runs) for each in groups)),
    )


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


def _group_view(each: Group, sign: int, has_target: bool) -> GroupView:
    values = list(each.values.values())
    sample = describe(values)
    hits = [None if run.diverged else run.target_hit for run in each.runs] if has_target else []
    return GroupView(
        label=each.label,
        value=each.value,
        optimizer=each.optimizer,
        n=sample.n,
        mean=sample.mean,
        sd=sample.sd,
        interval=sample.interval,
        best=max(values, key=lambda value: sign * value) if values else None,
        steps_to_target=median_to_target([hit.step if hit else None for hit in hits]),
        seconds_to_target=median_to_target([hit.wall_seconds if hit else None for hit in hits]),
        diverged=each.diverged,
        jobs=[run.job for run in each.runs],
        cannot_say=sample.cannot_say,
    )


def _pair_views(ranked: Sequence[Group]) -> list[PairView]:
    """All pairs, the one with the better mean first; p adjusted over those that could be tested."""
    values = {each.label: each.values for each in ranked}
    tested = []
    for a, b in combinations(values, 2):
        seeds = sorted(values[a].keys() & values[b].keys())
        tested.append((a, b, paired_difference([values[a][s] for s in seeds], [values[b][s] for s in seeds])))
    adjusted = holm([paired.p for _, _, paired in tested])
    return [
        PairView(a=a, b=b, p_adjusted=p_adjusted, **vars(paired))
        for (a, b, paired), p_adjusted in zip(tested, adjusted, strict=True)
    ]


# --- the verdict -----------------------------------------------------------------------------------------------------


class _Verdict:
    """Decides, and finds the words."""

    def __init__(
        self, measure: Measure, groups: Sequence[GroupView], pairs: Sequence[PairView], fixed: dict[str, Any]
    ) -> None:
        self.measure = measure
        self.groups = groups
        self.finished = [each for each in groups if each.mean is not None]
        self.pairs = {(pair.a, pair.b): pair for pair in pairs}
        self.fixed = fixed

    def view(self) -> VerdictView:
        """The verdict."""
        leader = next((each for each in self.finished if not each.diverged), None)
        if leader is None or len(self.finished) < 2:
            return self._undecided(self._nothing_to_compare())
        rivals = [each for each in self.finished if each is not leader]
        open_rivals = [each for each in rivals if not self._beats(leader, each)]
        if open_rivals:
            return self._undecided(self._cannot_tell(leader, rivals, open_rivals))
        return VerdictView(decided=True, best=leader.label, text=self._with_caveats(self._is_best(leader, rivals)))

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
        pair = self._pair(leader, rival)
        significant = pair.n >= FEWEST_PAIRS and pair.p_adjusted is not None and pair.p_adjusted < ALPHA
        return significant and self._lead(leader, rival)[0] > 0

    # Headlines: one or two sentences each.

    def _nothing_to_compare(self) -> str:
        if not self.groups:
            return "No finished job matches."
        if not self.finished:
            return "Every run diverged, so there is nothing to compare."
        if len(self.finished) > 1:
            return "No group can be called best, because runs of each one diverged."
        only = self.finished[0]
        return f"Only {self._described(only)} has finished runs: there is nothing to compare it with."

    def _described(self, each: GroupView) -> str:
        assert each.mean is not None
        return f"{each.label} (mean {self.measure.words} {self.measure.value(each.mean)}, {_seeds(each.n)})"

    def _is_best(self, leader: GroupView, rivals: Sequence[GroupView]) -> str:
        closest = min(rivals, key=lambda rival: self._lead(leader, rival)[0])
        pair = self._pair(leader, closest)
        assert pair.p_adjusted is not None
        others = f", and leads the {len(rivals) - 1} others significantly, too" if len(rivals) > 1 else ""
        correction = f" after Holm's correction over {len(self.pairs)} pairs" if len(self.pairs) > 1 else ""
        return (
            f"{self._described(leader)} is best: it leads {closest.label} by "
            f"{self.measure.lead(*self._lead(leader, closest))}, {_p(pair.p_adjusted)}{correction}{others}."
        )

    def _cannot_tell(self, leader: GroupView, rivals: Sequence[GroupView], open_rivals: Sequence[GroupView]) -> str:
        closest = open_rivals[0]
        pair = self._pair(leader, closest)
        lead = self.measure.lead(*self._lead(leader, closest))
        unbroken = "" if leader is self.finished[0] else " without diverged runs"
        best = f"The best mean{unbroken} is that of {self._described(leader)}."
        if pair.n < FEWEST_PAIRS:
            text = (
                f"Too few seeds: {leader.label} and {closest.label} share {_seeds(pair.n)}, and a test needs "
                f"{FEWEST_PAIRS}. {best}"
            )
        elif self._beats(closest, leader):
            lead = self.measure.lead(*self._lead(closest, leader))
            why = "runs of it diverged" if closest.diverged else "over all its seeds its mean is not the highest"
            text = f"{closest.label} leads {leader.label} by {lead}, but cannot be called best, because {why}. {best}"
        else:
            known = f"with {_seeds(pair.n)}{self._corrected(pair)}" if pair.interval else f"({pair.cannot_say})"
            text = f"{leader.label} and {closest.label} cannot be told apart {known}: difference {lead}. {best}"
        also = [each.label for each in open_rivals[1:]]
        beaten = [each.label for each in rivals if each not in open_rivals]
        text += f" Also open: {_listed(also)}." if also else ""
        return text + (f" Significantly behind: {_listed(beaten)}." if beaten else "")

    def _corrected(self, pair: PairView) -> str:
        """Why it is open although the pair's own interval excludes zero, where that is so."""
        if pair.p is None or pair.p >= ALPHA or pair.p_adjusted is None or pair.p_adjusted < ALPHA:
            return ""
        return f" once {len(self.pairs)} pairs are tested ({_p(pair.p_adjusted)} after Holm's correction)"

    # What else has to be said.

    def _with_caveats(self, headline: str) -> str:
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
                f"At the same learning rate {rate:g}, {family(fixed.optimizer)} {self._against(fixed, bases[rate])}; "
                f"with each at the best of its learning rates here, {family(best_ko.optimizer)} "
                f"({_rate(best_ko):g}) {self._against(best_ko, best_base)}."
            )

    def _against(self, one: GroupView, other: GroupView) -> str:
        """`leads adam (0.01) by 1.7 points ...`"""
        verb, a, b = ("leads", one, other) if self._lead(one, other)[0] >= 0 else ("trails", other, one)
        lead = self.measure.lead(*self._lead(a, b))
        return f"{verb} {family(other.optimizer)} ({_rate(other):g}) by {lead}"

    def _diverged(self) -> Iterable[str]:
        for each in self.groups:
            if each.diverged and each.n:
                yield (
                    f"{each.diverged} of {each.diverged + each.n} runs of {each.label} diverged: "
                    "its mean is over the others, and it cannot be best."
                )
        if all_of_them := [each.label for each in self.groups if each.diverged and not each.n]:
            yield f"Every run diverged: {_listed(all_of_them)}."

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


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; beyond `most` names the rest is counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
