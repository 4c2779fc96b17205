"""Optimizers by mean, in each setting that they were run in. Two queries, whatever the number of runs.

Which optimizer is first is seen in the same values that it is then tested with. Therefore p is adjusted for all pairs
that could have been tested, not only for those against the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service import stats
from service.comparisons.analysis.grouping import ENVIRONMENT_SETTING, NOT_A_SETTING
from service.comparisons.answers import Board, Leaderboard, Standing
from service.comparisons.design.labels import flat, labels
from service.specs.metric_text import sign
from service.storage.tables import Job

MOST_BOARDS = 50
"""Shown; those with fewer runs are left out."""
MOST_ROWS = 200
"""Choices of optimizer and setting that are read: those with most runs, among equals those that ran last."""
MOST_PAIRED = 40
"""Rows of a board of which every pair is tested, for Holm's adjustment; with more it is Bonferroni's."""

# The latest run of each seed counts. `setting` is the fingerprint without the seed, so that no document is parsed here.
RUNS = text(
    """
    SELECT setting, device_kind, torch, data_hash, engine_version, (array_agg(job))[1] AS example,
           array_agg(seed) AS seeds, array_agg(CASE WHEN NOT diverged THEN value END) AS values
    FROM (SELECT DISTINCT ON (setting, device_kind, torch, data_hash, engine_version, seed) *
          FROM (SELECT id AS job, setting, (spec ->> 'seed')::bigint AS seed, finished_at,
                       environment ->> 'device_kind' AS device_kind, environment ->> 'torch' AS torch,
                       environment ->> 'data_hash' AS data_hash, environment ->> 'engine_version' AS engine_version,
                       (summary -> 'metrics' ->> :metric)::float8 AS value,
                       reason IS NOT DISTINCT FROM 'diverged' AS diverged
                FROM jobs
                WHERE dataset = :dataset AND model = :model AND (status = 'succeeded' OR reason = 'diverged')) AS run
          WHERE diverged OR value IS NOT NULL
          ORDER BY setting, device_kind, torch, data_hash, engine_version, seed, finished_at DESC, job DESC) AS latest
    GROUP BY setting, device_kind, torch, data_hash, engine_version
    ORDER BY count(*) DESC, max(finished_at) DESC, setting, device_kind, torch, data_hash, engine_version
    LIMIT :rows
    """
)


@dataclass(frozen=True)
class _Row:
    optimizer: dict[str, Any]
    values: dict[int, float]
    diverged: int

    @property
    def runs(self) -> int:
        return len(self.values) + self.diverged


def leaderboard(session: Session, dataset: str, model: str, metric: str) -> Leaderboard:
    """The settings of a data set and model with most runs. Raises Invalid for a metric without a direction."""
    direction = sign(metric)
    named = {"dataset": dataset, "model": model, "metric": metric, "rows": MOST_ROWS}
    rows = session.execute(RUNS, named).all()
    specs = _specs(session, [row.example for row in rows])
    boards: dict[str, tuple[dict[str, Any], list[_Row]]] = {}
    for row in rows:
        spec = specs[row.example]
        setting = {name: value for name, value in spec.items() if name not in NOT_A_SETTING | {"optimizer", "seed"}}
        if not spec["stop_at_target"]:
            setting.pop("target")
        setting["environment"] = {name: getattr(row, name) for name in ENVIRONMENT_SETTING}
        _, members = boards.setdefault(json.dumps(setting, sort_keys=True), (setting, []))
        values = {seed: value for seed, value in zip(row.seeds, row.values, strict=True) if value is not None}
        members.append(_Row(spec["optimizer"], values, len(row.seeds) - len(values)))
    shown = sorted(boards, key=lambda setting: (-sum(one.runs for one in boards[setting][1]), setting))[:MOST_BOARDS]
    found = [_board(*boards[setting], direction) for setting in shown]
    return Leaderboard(dataset=dataset, model=model, metric=metric, boards=found)


def _specs(session: Session, jobs: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    return {row.id: row.spec for row in session.execute(select(Job.id, Job.spec).where(Job.id.in_(jobs)))}


def _board(setting: dict[str, Any], members: Sequence[_Row], direction: int) -> Board:
    names = labels([one.optimizer for one in members], "optimizer")
    described = [stats.describe(list(one.values.values())) for one in members]
    order = sorted(
        range(len(members)),
        key=lambda index: (described[index].mean is None, -direction * (described[index].mean or 0.0), names[index]),
    )
    behind, adjusted = behind_first([members[index].values for index in order])
    standings = []
    for rank, (index, pair, p) in enumerate(zip(order, [None, *behind], [None, *adjusted], strict=True), 1):
        one, sample = members[index], described[index]
        standings.append(
            Standing(
                rank=rank,
                label=names[index],
                optimizer=one.optimizer,
                n=sample.n,
                mean=sample.mean,
                sd=sample.sd,
                interval=sample.interval,
                best=direction * max(direction * value for value in one.values.values()) if one.values else None,
                diverged=one.diverged,
                behind_first=None if pair is None else pair.difference,
                interval_behind=None if pair is None else pair.interval,
                p_behind=p,
                cannot_say=sample.cannot_say or (pair.cannot_say if pair else None),
            )
        )
    told = {path: value for path, value in flat(setting).items() if value is not None and not path.endswith(".name")}
    return Board(
        setting=told,
        runs=sum(one.runs for one in members),
        standings=standings,
    )


def behind_first(rows: Sequence[Mapping[int, float]]) -> tuple[list[stats.Paired], list[float | None]]:
    """How far each row (seed -> value) but the first is from the first, and p of that, adjusted for all pairs of rows.

    The adjusted p holds whichever row comes first, and for whatever reason; None where a pair cannot be tested.
    """
    behind = [_paired(row, rows[0]) for row in rows[1:]]
    p = [one.p for one in behind]
    if len(rows) <= MOST_PAIRED:
        others = [_paired(*pair).p for pair in combinations(rows[1:], 2)]
        return behind, stats.holm([*p, *others])[: len(p)]
    pairs = len(rows) * (len(rows) - 1) // 2
    return behind, [None if one is None else min(1.0, pairs * one) for one in p]


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> stats.Paired:
    both = sorted(one.keys() & other.keys())
    return stats.paired_difference([one[seed] for seed in both], [other[seed] for seed in both])
