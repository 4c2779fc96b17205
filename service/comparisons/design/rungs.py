"""Rungs of the tuning: numbers of trials, and their shares of the budget."""

from __future__ import annotations

from math import prod

from service.comparisons.design.plan import Rung
from service.comparisons.design.requests import ComparisonRequest, OptimizerRequest, Tuning


def rungs(request: ComparisonRequest) -> list[Rung]:
    """The rungs of a request; one without halving, none without tuning."""
    if request.tuning is None:
        return []
    if request.tuning.method == "halving":
        return halving(request.tuning)
    trials = request.tuning.trials
    if request.tuning.method == "grid":
        trials = max(grid_size(optimizer) for optimizer in request.optimizers if optimizer.space)
    assert trials is not None
    return [Rung(trials=trials, share=1.0)]


def halving(tuning: Tuning) -> list[Rung]:
    """Successive halving: 1 in `reduction` trials reaches the next rung, while at least two remain."""
    assert tuning.trials is not None
    sizes = [tuning.trials]
    while sizes[-1] // tuning.reduction >= 2:
        sizes.append(sizes[-1] // tuning.reduction)
    last = len(sizes) - 1
    return [Rung(trials=size, share=tuning.reduction ** (number - last)) for number, size in enumerate(sizes)]


def grid_size(optimizer: OptimizerRequest) -> int:
    """Number of combinations of the choices of an optimizer, without enumerating them."""
    return prod(len(values.choice or ()) for values in (optimizer.space or {}).values())
