"""Optimizers by mean, in each setting that they were run in. Two queries, whatever the number of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service import stats
from service.answers import Board, Leaderboard, Standing
from service.groups import ENVIRONMENT_SETTING, NOT_A_SETTING
from service.labels import flat, labels
from service.measures import sign
from service.models import Job

MOST_BOARDS, MOST_STANDINGS = 50, 200
"""Shown; the boards with fewer runs, and the rows behind, are left out."""

# The latest run of each seed counts. `setting` is the fingerprint without the seed, so that no document is parsed here.
RUNS = text(
    """
    SELECT setting, device_kind, torch, data_hash, engine_version, max(job::text)::uuid AS example,
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
    """
)


@dataclass(frozen=True)
class _Row:
    optimizer: dict[str, Any]
    values: dict[int, float]
    diverged: int


def leaderboard(session: Session, dataset: str, model: str, metric: str) -> Leaderboard:
    """All settings of a data set and model that have finished runs. Raises Invalid for a metric without a direction."""
    direction = sign(metric)
    rows = session.execute(RUNS, {"dataset": dataset, "model": model, "metric": metric}).all()
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
    found = [_board(setting, members, direction) for setting, members in boards.values()]
    found.sort(key=lambda board: (-board.runs, json.dumps(board.setting)))
    return Leaderboard(dataset=dataset, model=model, metric=metric, boards=found[:MOST_BOARDS])


def _specs(session: Session, jobs: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    return {row.id: row.spec for row in session.execute(select(Job.id, Job.spec).where(Job.id.in_(jobs)))}


def _board(setting: dict[str, Any], members: Sequence[_Row], direction: int) -> Board:
    names = labels([one.optimizer for one in members], "optimizer")
    described = [stats.describe(list(one.values.values())) for one in members]
    order = sorted(
        range(len(members)),
        key=lambda index: (described[index].mean is None, -direction * (described[index].mean or 0.0), names[index]),
    )
    first = members[order[0]]
    behind = [_behind(members[index], first) for index in order]
    adjusted = stats.holm([None if one is None else one.p for one in behind])
    standings = []
    for rank, (index, pair, p) in enumerate(zip(order, behind, adjusted, strict=True), 1):
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
        runs=sum(len(one.values) + one.diverged for one in members),
        standings=standings[:MOST_STANDINGS],
    )


def _behind(one: _Row, first: _Row) -> stats.Paired | None:
    if one is first:
        return None
    both = sorted(one.values.keys() & first.values.keys())
    return stats.paired_difference([one.values[seed] for seed in both], [first.values[seed] for seed in both])
