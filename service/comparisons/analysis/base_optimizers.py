"""KO compared with its base optimizer, if the base ran at several learning rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from service.comparisons.analysis.decision import Ranking
from service.comparisons.analysis.verdict import lead_text
from service.comparisons.answers import GroupView
from service.specs.metric_text import Measure
from service.specs.optimizer_family import optimizer_family
from service.stats.multiple_testing import MIN_SHARED_SEEDS


def leads_over_base(ranking: Ranking, measure: Measure) -> Iterator[str]:
    """Sentences on KO's lead over each base, at the same learning rate and with each at its best rate."""
    rated = [group for group in ranking.finished if isinstance(group.optimizer["params"].get("lr"), int | float)]
    plain = [group for group in rated if "base" not in group.optimizer["params"]]
    for name in sorted({group.optimizer["name"] for group in plain}):
        bases = {_rate(group): group for group in reversed(plain) if group.optimizer["name"] == name}
        kos = [
            group for group in rated if group.optimizer["name"] == "ko" and group.optimizer["params"]["base"] == name
        ]
        shared = Counter(_rate(ko) for ko in kos if _rate(ko) in bases)
        if len(bases) < 2 or not shared:
            continue
        rate = min(shared, key=lambda rate: (-shared[rate], rate))  # the most frequent, not the one with the best lead
        fixed = next(ko for ko in kos if _rate(ko) == rate)
        best_ko, best_base = kos[0], next(group for group in plain if group.optimizer["name"] == name)
        if min(ranking.pair(fixed, bases[rate]).n, ranking.pair(best_ko, best_base).n) < MIN_SHARED_SEEDS:
            continue
        yield (
            f"At the same learning rate ({rate:g}), {optimizer_family(fixed.optimizer)} "
            f"{_against(ranking, measure, fixed, bases[rate])}; "
            f"with each at its best learning rate, {optimizer_family(best_ko.optimizer)} "
            f"({_rate(best_ko):g}) {_against(ranking, measure, best_ko, best_base)}."
        )


def _against(ranking: Ranking, measure: Measure, ko: GroupView, base: GroupView) -> str:
    """`leads adam (0.01) by 1.7 percentage points ...`"""
    verb, a, b = ("leads", ko, base) if ranking.lead(ko, base).difference >= 0 else ("trails", base, ko)
    lead = lead_text(measure, ranking.lead(a, b))
    return f"{verb} {optimizer_family(base.optimizer)} ({_rate(base):g}) by {lead}"


def _rate(group: GroupView) -> float:
    return float(group.optimizer["params"]["lr"])
