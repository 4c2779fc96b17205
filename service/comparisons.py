"""Read a verdict back: which stored jobs a question means, as runs for `service.verdicts`. Two queries at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from service import metrics
from service.answers import CompareAnswer
from service.catalog import DATASETS, MODELS, OPTIMIZERS
from service.errors import Invalid
from service.groups import GroupBy, Run
from service.models import Job, User
from service.spec import JobStatus, Reason, Target, TargetHit, TrainSpec
from service.verdicts import compare_runs

MOST_JOBS = 5000
"""Jobs that one question may mean; more are no comparison but a mistake."""

CHOICES = frozenset({"dataset", "model", "optimizer", "schedule"})
"""Fields of a spec that have a name and parameters."""


def _one_of(names: dict[str, Any]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"'{name}' is not known; there is {', '.join(sorted(names))}")
        return name

    return AfterValidator(check)


def _tag(text: str) -> str:
    if not all(text.partition(":")):
        raise ValueError(f"'{text}' is not of the form KEY:VALUE")
    return text


def _where(text: str) -> str:
    path, sign, value = text.partition("=")
    if not (path and sign and value):
        raise ValueError(f"'{text}' is not of the form PATH=VALUE, such as model.params.init_scale=0.1")
    if (root := path.partition(".")[0]) not in {*TrainSpec.model_fields, "environment"}:
        raise ValueError(f"a spec has no '{root}'; it has {', '.join(TrainSpec.model_fields)} and environment")
    return text


class CompareQuery(BaseModel):
    """Which jobs to compare, by what, on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Annotated[str, _one_of(DATASETS)]
    model: Annotated[str, _one_of(MODELS)] | None = Field(None, description="Needed unless models are compared.")
    group_by: GroupBy = "optimizer"
    metric: str = Field("test_accuracy", max_length=128, description="Compared at the end of each run.")
    target: float | None = Field(
        None,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="Value of the validation metric to reach; each job's own target where unset.",
    )
    optimizer: list[Annotated[str, _one_of(OPTIMIZERS)]] = Field([], description="Only these; repeatable.")
    tag: list[Annotated[str, AfterValidator(_tag)]] = Field(
        [], max_length=32, description="Only jobs with this KEY:VALUE; repeatable, all have to match."
    )
    where: list[Annotated[str, AfterValidator(_where)]] = Field(
        [],
        max_length=32,
        description="Only jobs with this PATH=VALUE in their spec or environment, such as "
        "`model.params.init_scale=0.1`; repeatable, all have to match.",
    )
    user: str | None = Field(None, description="Only this user's jobs.")

    @property
    def target_to_reach(self) -> Target | None:
        """The target, on the validation counterpart of the metric. Raises Invalid where there is none."""
        if self.target is None:
            return None
        for name in ("accuracy", "loss"):
            if self.metric.endswith(name):
                return Target.model_validate({"metric": f"val_{name}", "value": self.target})
        raise Invalid.field("target", f"'{self.metric}' has no validation counterpart that could reach a target")


def compare(session: Session, query: CompareQuery) -> CompareAnswer:
    """Compare the stored jobs that match. Raises Invalid where the question is not one or mixes settings."""
    if query.model is None and query.group_by != "model":
        raise Invalid.field("model", "name a model, or compare models with group_by=model")
    target = query.target_to_reach
    runs = _runs(session, query)
    if target is not None:
        runs = _with_hits(session, runs, target)
    return compare_runs(
        runs,
        dataset=query.dataset,
        model=query.model,
        group_by=query.group_by,
        metric=query.metric,
        target=target,
    )


def _runs(session: Session, query: CompareQuery) -> list[Run]:
    rows = session.execute(_matching(query).limit(MOST_JOBS + 1)).all()
    if len(rows) > MOST_JOBS:
        raise Invalid.field("tag", f"more than {MOST_JOBS} jobs match: narrow it with tag, where, optimizer or user")
    return [
        Run(
            job=row.id,
            spec=row.spec,
            environment=row.environment or {},
            status=JobStatus(row.status),
            reason=Reason(row.reason) if row.reason else None,
            value=row.value,
            target_hit=TargetHit.model_validate(row.hit) if row.hit else None,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


def _matching(query: CompareQuery) -> Select[Any]:
    """All jobs of the question, whatever became of them, with the metric's last value and the recorded target hit."""
    chosen = [Job.dataset == query.dataset]
    if query.model is not None:
        chosen.append(Job.model == query.model)
    if query.optimizer:
        chosen.append(Job.optimizer.in_(query.optimizer))
    if query.user is not None:
        chosen.append(Job.user_id == select(User.id).where(User.name == query.user).scalar_subquery())
    for tag in query.tag:
        key, _, value = tag.partition(":")
        chosen.append(Job.tags.contains({key: value}))
    return select(
        Job.id,
        Job.spec,
        Job.environment,
        Job.status,
        Job.reason,
        Job.finished_at,
        Job.summary[("metrics", query.metric)].as_float().label("value"),
        Job.summary["target"].label("hit"),
    ).where(*chosen, *map(_condition, query.where))


def _condition(where: str) -> ColumnElement[bool]:
    """`PATH=VALUE` in SQL: VALUE as JSON where it is, else as text; a choice is meant by its name. 1 equals 1.0."""
    text, _, value = where.partition("=")
    path = [*text.split("."), *(["name"] if text in CHOICES else [])]
    column = Job.environment if path[0] == "environment" else Job.spec
    if path[0] == "environment":
        path = path[1:]
    try:
        wanted = json.loads(value)
    except ValueError:
        wanted = value
    return func.jsonb_extract_path(column, *path, type_=JSONB) == literal(wanted, JSONB(none_as_null=False))


def _with_hits(session: Session, runs: Sequence[Run], target: Target) -> list[Run]:
    """The runs with the first stored point that meets the target, in place of what they recorded."""
    curves = metrics.read(session, [run.job for run in runs if run.counts], [target.metric])
    hits = {job: _first_hit(by_name[target.metric], target) for job, by_name in curves.items()}
    return [replace(run, target_hit=hits.get(run.job)) for run in runs]


def _first_hit(curve: metrics.Curve, target: Target) -> TargetHit | None:
    reached = np.flatnonzero([target.reached_by(value) for value in curve.values])
    if not len(reached):
        return None
    first = reached[0]
    return TargetHit(step=int(curve.steps[first]), wall_seconds=float(curve.wall_seconds[first]))
