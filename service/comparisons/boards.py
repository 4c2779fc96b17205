"""Answers of the leaderboard, shared with the SDK and therefore free of numpy."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.comparisons.answers import Interval
from service.specs.bodies import Output


class Standing(Output):
    """An optimizer with its parameters, within one setting."""

    rank: int
    label: str
    optimizer: dict[str, Any]
    n: int = Field(description="Seeds with a finished run.")
    mean: float | None
    sd: float | None
    interval: Interval | None = Field(description="95 % t interval of the mean.")
    best: float | None
    diverged: int
    behind_first: float | None = Field(description="Mean paired difference from the first, on the seeds of both.")
    interval_behind: Interval | None = Field(description="95 % t interval of that difference, for this pair alone.")
    p_behind: float | None = Field(description="p of its paired t test, adjusted for all pairs of the board's rows.")
    cannot_say: str | None = Field(description="Why a statistic is null.")


class Board(Output):
    """All runs of one setting: data, model, budget, batch size and so on, on one kind of device."""

    setting: dict[str, Any] = Field(description="Dotted path -> value of every field but the optimizer.")
    runs: int
    standings: list[Standing] = Field(description="Best mean first.")


class Leaderboard(Output):
    """Optimizers by mean within each setting; means of different settings cannot be compared."""

    dataset: str
    model: str
    metric: str
    boards: list[Board] = Field(
        description="One board per setting, most runs first, from the 200 combinations of optimizer and setting with "
        "the most runs."
    )
