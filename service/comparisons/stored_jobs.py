"""The stored jobs that match a query of `GET /v1/compare`, and its answer. At most three SQL queries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Row,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from service.comparisons.analysis.compare_runs import compare_runs
from service.comparisons.analysis.runs import StoredRun
from service.comparisons.answers import CompareAnswer
from service.comparisons.design.labels import GroupBy
from service.comparisons.design.results import Result
from service.errors import Invalid
from service.metrics import targets
from service.specs.bodies import ARCHIVED
from service.specs.catalog.datasets import DATASETS, is_own
from service.specs.catalog.model_libraries import is_of_model_library
from service.specs.catalog.models import MODELS
from service.specs.catalog.optimizers import OPTIMIZERS, is_declared
from service.specs.metric_text import out_of_reach
from service.specs.patterns import STORABLE
from service.specs.states import JobStatus, Reason
from service.specs.summary import Target, TargetHit
from service.specs.text import counted, unknown_name
from service.specs.training import TrainSpec
from service.storage.tables import Job, MetricChunk, User

MAX_JOBS = 5000
"""Maximum number of matching runs with a result; a query that matches more is probably a mistake."""

CHOICES = frozenset({"dataset", "model", "optimizer", "schedule"})
"""Fields of a spec that consist of a name and parameters."""


def _one_of(names: Iterable[str], kind: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_name(kind, name, sorted(names)))
        return name

    return AfterValidator(check)


def _tag(tag: str) -> str:
    if not all(tag.partition(":")):
        raise ValueError(f"'{tag}' is not of the form KEY:VALUE")
    return tag


def _where(where: str) -> str:
    path, sign, value = where.partition("=")
    if not (path and sign and value):
        raise ValueError(f"'{where}' is not of the form PATH=VALUE, such as model.params.init_scale=0.1")
    if (root := path.partition(".")[0]) not in {*TrainSpec.model_fields, "environment"}:
        raise ValueError(f"a spec has no '{root}'; it has {', '.join(TrainSpec.model_fields)} and environment")
    if not all(path.split(".")) or path == "environment":
        raise ValueError(f"'{path}' is not a path such as model.params.init_scale or environment.device_kind")
    _value(value)
    return where


def _value(text: str) -> Any:
    """The text parsed as JSON, or unchanged if it is not JSON. Raises ValueError if PostgreSQL cannot store it."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    stored = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if "\\u0000" in stored or not stored.isprintable():
        raise ValueError(f"'{text}' has characters that cannot be stored")
    return value


Words = Annotated[str, Field(max_length=256, pattern=STORABLE)]
"""Free text of a query."""


def _dataset(name: str) -> str:
    if name not in DATASETS and not is_own(name):
        raise ValueError(f"{unknown_name('data set', name, sorted(DATASETS))}, or an uploaded one such as images/NAME")
    return name


def _optimizer(name: str) -> str:
    if name not in OPTIMIZERS and not is_declared(name):
        raise ValueError(
            f"{unknown_name('optimizer', name, sorted(OPTIMIZERS))}, or one of a library or uploaded: LIBRARY/NAME or "
            "USER/NAME@VERSION"
        )
    return name


def _model(name: str) -> str:
    if name not in MODELS and not is_of_model_library(name):
        raise ValueError(f"{unknown_name('model', name, sorted(MODELS))}, or one of a library, such as timm/resnet18")
    return name


DatasetName = Annotated[str, AfterValidator(_dataset)]
OptimizerName = Annotated[str, AfterValidator(_optimizer)]
ModelName = Annotated[str, AfterValidator(_model)]


class CompareQuery(BaseModel):
    """Which stored jobs to compare, and by which field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: DatasetName = Field(examples=["digits"])
    model: ModelName | None = Field(None, description="Required unless models are compared.", examples=["mlp"])
    group_by: GroupBy = "optimizer"
    metric: Words = Field("test_accuracy", min_length=1, description="Metric to compare, at the end of each run.")
    target: float | None = Field(
        None,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="Value to reach in the validation counterpart of `metric` (val_accuracy for test_accuracy); the "
        "jobs' own target if omitted.",
    )
    optimizer: list[OptimizerName] = Field([], description="Only jobs with these optimizers; repeatable.")
    tag: list[Annotated[Words, AfterValidator(_tag)]] = Field(
        [], max_length=32, description="Only jobs with this tag, as KEY:VALUE; repeatable, all must match."
    )
    where: list[Annotated[Words, AfterValidator(_where)]] = Field(
        [],
        max_length=32,
        description="Only jobs with this value in their spec or environment, as PATH=VALUE such as "
        "`model.params.init_scale=0.1`; repeatable, all must match.",
    )
    user: Words | None = Field(None, description="Only this user's jobs.")
    archived: bool = Field(False, description=ARCHIVED)
    looks: Literal["one", "any"] = Field(
        "one",
        description="`any` if seeds were added depending on earlier results: tests then remain valid at any number of "
        "looks, and intervals are wider.",
    )

    @property
    def target_to_reach(self) -> Target | None:
        """The target on the metric's validation counterpart. Raises Invalid if it has none or no run can reach it."""
        if self.target is None:
            return None
        for name in ("accuracy", "loss"):
            if self.metric.endswith(name):
                target = Target.model_validate({"metric": f"val_{name}", "value": self.target})
                if why := out_of_reach(target):
                    raise Invalid.field("target", why)
                return target
        raise Invalid.field("target", f"'{self.metric}' has no validation counterpart that could reach a target")


def compare(session: Session, query: CompareQuery) -> CompareAnswer:
    """Compare the stored jobs that match. Raises Invalid for a query without a model and for mixed settings."""
    if query.model is None and query.group_by != "model":
        raise Invalid.field("model", "name a model, or compare models with group_by=model")
    target = query.target_to_reach
    runs = _runs(session, query) if target is None else _with_hits(session, query, target)
    return compare_runs(
        runs,
        dataset=query.dataset,
        model=query.model,
        group_by=query.group_by,
        metric=query.metric,
        target=target,
        stopping="any" if query.looks == "any" else "fixed",
        uncounted=_uncounted(session, query),
    )


def _runs(session: Session, query: CompareQuery) -> list[StoredRun]:
    return _read(_rows(session, _matching(query)))


def _rows(session: Session, matching: Select[Any]) -> Sequence[Row[Any]]:
    rows = session.execute(matching.limit(MAX_JOBS + 1)).all()
    if len(rows) > MAX_JOBS:
        raise Invalid.field(
            "tag", f"more than {MAX_JOBS} runs with a result match: narrow it with tag, where, optimizer or user"
        )
    return rows


def _read(rows: Sequence[Row[Any]]) -> list[StoredRun]:
    parsed = cache(json.loads)  # most runs share one text; parsing all would take half of the time
    return [
        StoredRun(
            job=row.id,
            spec=parsed(row.spec),
            seed=row.seed,
            environment=parsed(row.environment or "{}"),
            result=Result(JobStatus(row.status), Reason(row.reason) if row.reason else None, row.value),
            hit=TargetHit.model_validate(row.hit) if row.hit else None,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


def _uncounted(session: Session, query: CompareQuery) -> dict[JobStatus, int]:
    """Number of matching jobs without a result, by status."""
    counts = select(Job.status, func.count()).where(*_conditions(query), not_(_has_result(query))).group_by(Job.status)
    return {JobStatus(status): number for status, number in session.execute(counts)}


def _matching(query: CompareQuery) -> Select[Any]:
    """Select all matching jobs with a result, with the metric's last value and the recorded target hit."""
    return select(
        Job.id,
        cast(Job.spec.op("-")(cast("seed", Text)), Text).label("spec"),
        cast(Job.spec["seed"].as_string(), BigInteger).label("seed"),
        cast(Job.environment, Text).label("environment"),
        Job.status,
        Job.reason,
        Job.finished_at,
        _value_of(query).label("value"),
        Job.summary["target"].label("hit"),
    ).where(*_conditions(query), _has_result(query))


def _value_of(query: CompareQuery) -> ColumnElement[Any]:
    return cast(func.jsonb_extract_path_text(Job.summary, "metrics", query.metric), Double)


def _has_result(query: CompareQuery) -> ColumnElement[bool]:
    """As `Run.counts`; never null."""
    succeeded = and_(Job.status == JobStatus.SUCCEEDED, _value_of(query).is_not(None))
    return or_(Job.reason.is_not_distinct_from(Reason.DIVERGED), succeeded)


def _conditions(query: CompareQuery) -> list[ColumnElement[bool]]:
    conditions = [Job.dataset == query.dataset]
    if not query.archived:
        conditions.append(Job.archived_at.is_(None))
    if query.model is not None:
        conditions.append(Job.model == query.model)
    if query.optimizer:
        conditions.append(Job.optimizer.in_(query.optimizer))
    if query.user is not None:
        conditions.append(Job.user_id == select(User.id).where(User.name == query.user).scalar_subquery())
    for tag in query.tag:
        key, _, value = tag.partition(":")
        conditions.append(Job.tags.contains({key: value}))
    return conditions + [_condition(where) for where in query.where]


def _condition(where: str) -> ColumnElement[bool]:
    """`PATH=VALUE` in SQL: VALUE is JSON or else text, 1 equals 1.0, and the path of a choice stands for its name."""
    dotted, _, value = where.partition("=")
    path = [*dotted.split("."), *(["name"] if dotted in CHOICES else [])]
    column = Job.environment if path[0] == "environment" else Job.spec
    if path[0] == "environment":
        path = path[1:]
    return func.jsonb_extract_path(column, *path, type_=JSONB) == literal(_value(value), JSONB(none_as_null=False))


def _with_hits(session: Session, query: CompareQuery, target: Target) -> list[StoredRun]:
    """The runs with the first stored point that meets the target, instead of their recorded hits.

    A run whose points `service.operations.retention` has removed keeps its recorded hit. Raises Invalid if that hit
    belongs to another target, because the run would count as a miss.
    """
    has_points = exists().where(MetricChunk.job_id == Job.id).label("has_points")
    rows = _rows(session, _matching(query).add_columns(has_points))
    runs = _read(rows)
    hits = targets.first_hits(session, [run.job for run in runs], target)
    watched = target.model_dump(mode="json")
    with_hits, unknown = [], 0
    for run, row in zip(runs, rows, strict=True):
        if row.has_points or run.result.diverged:
            with_hits.append(replace(run, hit=hits.get(run.job)))
        else:
            with_hits.append(run)
            unknown += run.spec.get("target") != watched
    if unknown:
        raise Invalid.field(
            "target",
            f"the points of {counted(unknown, 'run')} that match are no longer stored, so the step that reached "
            f"{target.value:g} is unknown: omit the target, use the target of the runs, or select newer runs",
        )
    return with_hits
