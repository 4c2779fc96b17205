"""Optimizers ranked by mean within each setting, read by two queries.

The same values rank the optimizers and test them. Therefore p is adjusted for all pairs of a board, not only for the
pairs with the first.
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
from service.comparisons.analysis.grouping import setting_of
from service.comparisons.boards import Board, Leaderboard, Standing
from service.comparisons.design.labels import flat, labels
from service.specs.metric_text import Measure, sign
from service.storage.tables import Job

MAX_BOARDS = 50
"""Maximum number of boards; those with most runs are shown."""
MAX_ROWS = 200
"""Maximum number of combinations of optimizer and setting; those with most runs are read, then the latest."""
MAX_PAIRED = 40
"""Maximum number of rows for Holm's adjustment, which tests every pair; larger boards use Bonferroni's."""

# The latest run of each seed counts. `setting` is the fingerprint without the seed, so that no document is parsed. What
# costs time belongs to the setting of times (`grouping.setting_of`).
RUNS = text(
    """
    SELECT setting, device_kind, torch, data_hash, engine_version, timing, (array_agg(job))[1] AS example,
           array_agg(seed) AS seeds, array_agg(CASE WHEN NOT diverged THEN value END) AS values
    FROM (SELECT DISTINCT ON (setting, device_kind, torch, data_hash, engine_version, timing, seed) *
          FROM (SELECT id AS job, setting, (spec ->> 'seed')::bigint AS seed, finished_at,
                       environment ->> 'device_kind' AS device_kind, environment ->> 'torch' AS torch,
                       environment ->> 'data_hash' AS data_hash, environment ->> 'engine_version' AS engine_version,
                       CASE WHEN :is_speed OR spec #>> '{budget,seconds}' IS NOT NULL
                            THEN jsonb_build_array(spec -> 'log_every_steps', spec -> 'diagnostics_every_steps',
                                                   environment -> 'device_name') END AS timing,
                       (summary -> 'metrics' ->> :metric)::float8 AS value,
                       reason IS NOT DISTINCT FROM 'diverged' AS diverged
                FROM jobs
                WHERE dataset = :dataset AND model = :model AND (status = 'succeeded' OR reason = 'diverged')
                      AND (:archived OR archived_at IS NULL)) AS run
          WHERE diverged OR value IS NOT NULL
          ORDER BY setting, device_kind, torch, data_hash, engine_version, timing, seed,
                   finished_at DESC, job DESC) AS latest
    GROUP BY setting, device_kind, torch, data_hash, engine_version, timing
    ORDER BY count(*) DESC, max(finished_at) DESC, setting, device_kind, torch, data_hash, engine_version, timing
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


def leaderboard(session: Session, dataset: str, model: str, metric: str, *, archived: bool = False) -> Leaderboard:
    """The boards of a data set and model. Raises Invalid if the metric has no better direction."""
    direction = sign(metric)
    parameters = {
        "dataset": dataset,
        "model": model,
        "metric": metric,
        "is_speed": Measure(metric).is_speed,
        "rows": MAX_ROWS,
        "archived": archived,
    }
    rows = session.execute(RUNS, parameters).all()
    examples = _examples(session, [row.example for row in rows])
    boards: dict[str, tuple[dict[str, Any], list[_Row]]] = {}
    for row in rows:
        spec, environment = examples[row.example]
        setting = setting_of(spec, environment, {"optimizer", "seed"}, is_speed=Measure(metric).is_speed)
        _, members = boards.setdefault(json.dumps(setting, sort_keys=True), (setting, []))
        values = {seed: value for seed, value in zip(row.seeds, row.values, strict=True) if value is not None}
        members.append(_Row(spec["optimizer"], values, len(row.seeds) - len(values)))
    shown = sorted(boards, key=lambda setting: (-sum(row.runs for row in boards[setting][1]), setting))[:MAX_BOARDS]
    return Leaderboard(
        dataset=dataset,
        model=model,
        metric=metric,
        boards=[_board(*boards[setting], direction) for setting in shown],
    )


def _examples(session: Session, jobs: Sequence[UUID]) -> dict[UUID, tuple[dict[str, Any], dict[str, Any]]]:
    """Spec and environment of each job."""
    query = select(Job.id, Job.spec, Job.environment).where(Job.id.in_(jobs))
    return {row.id: (row.spec, row.environment or {}) for row in session.execute(query)}


def _board(setting: dict[str, Any], members: Sequence[_Row], direction: int) -> Board:
    names = labels([row.optimizer for row in members], "optimizer")
    samples = [stats.describe(list(row.values.values())) for row in members]
    order = sorted(
        range(len(members)),
        key=lambda index: (samples[index].mean is None, -direction * (samples[index].mean or 0.0), names[index]),
    )
    behind, adjusted = behind_first([members[index].values for index in order])
    shown = {path: value for path, value in flat(setting).items() if value is not None and not path.endswith(".name")}
    return Board(
        setting=shown,
        runs=sum(row.runs for row in members),
        standings=[
            _standing(rank, names[index], members[index], samples[index], direction, pair, p)
            for rank, (index, pair, p) in enumerate(zip(order, [None, *behind], [None, *adjusted], strict=True), 1)
        ],
    )


def _standing(
    rank: int,
    label: str,
    row: _Row,
    sample: stats.Sample,
    direction: int,
    behind: stats.Paired | None,
    p_behind: float | None,
) -> Standing:
    return Standing(
        rank=rank,
        label=label,
        optimizer=row.optimizer,
        n=sample.n,
        mean=sample.mean,
        sd=sample.sd,
        interval=sample.interval,
        best=direction * max(direction * value for value in row.values.values()) if row.values else None,
        diverged=row.diverged,
        behind_first=None if behind is None else behind.difference,
        interval_behind=None if behind is None else behind.interval,
        p_behind=p_behind,
        cannot_say=sample.cannot_say or (behind.cannot_say if behind else None),
    )


def behind_first(rows: Sequence[Mapping[int, float]]) -> tuple[list[stats.Paired], list[float | None]]:
    """The difference of each further row (seed -> value) from the first, and its p, adjusted for all pairs of rows.

    The adjusted p holds whichever row is first; it is None for a pair that cannot be tested.
    """
    behind = [_paired(row, rows[0]) for row in rows[1:]]
    p = [pair.p for pair in behind]
    if len(rows) <= MAX_PAIRED:
        others = [_paired(*pair).p for pair in combinations(rows[1:], 2)]
        return behind, stats.holm([*p, *others])[: len(p)]
    pairs = len(rows) * (len(rows) - 1) // 2
    return behind, [None if unadjusted is None else min(1.0, pairs * unadjusted) for unadjusted in p]


def _paired(a: Mapping[int, float], b: Mapping[int, float]) -> stats.Paired:
    common = sorted(a.keys() & b.keys())
    return stats.paired_difference([a[seed] for seed in common], [b[seed] for seed in common])
