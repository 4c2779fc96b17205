"""The life cycle of comparisons: create, advance, answer, cancel.

Nothing here waits. `advance` submits the runs that are due; it is called when a comparison is created, and by the
workers' maintenance when jobs have ended. It is idempotent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from itertools import product
from threading import Lock
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service.code import versions
from service.comparisons import cells, estimates
from service.comparisons.analysis import conclusion, methods_text
from service.comparisons.analysis.comparability import settled
from service.comparisons.answers import ComparisonAnswer, ComparisonDryRun, ComparisonProgress, ComparisonSummary
from service.comparisons.design import durations, schedule
from service.comparisons.design.plan import Cell, Plan, PlannedOptimizer
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.config import settings
from service.datasets import layouts
from service.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from service.jobs import actions, submission, workers
from service.specs.bodies import ComparisonChanges
from service.specs.catalog import uploaded
from service.specs.catalog.datasets import default_dataset
from service.specs.states import ComparisonStatus
from service.specs.training import TrainSpec
from service.storage.database import storable, transaction
from service.storage.tables import Comparison, User, Worker
from service.validation import field_errors


class Brief(NamedTuple):
    """The part of an answer that lists of comparisons show."""

    verdict: list[str]
    progress: ComparisonProgress


# Serializes the submission of runs, so that two comparisons that need the same run share a job.
LOCK = text("SELECT pg_advisory_xact_lock(hashtext('kotrain.cells'))")


# The cache key of an answer: everything it depends on except estimates. Computing an answer on 400 jobs takes 20 times
# as long as this query.
STATE = text(
    """
    SELECT count(*), count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running'),
           max(jobs.finished_at)
    FROM comparison_cells JOIN jobs ON jobs.id = job_id WHERE comparison_id = :comparison
    """
)
MAX_CACHED = 40_000
"""Maximum number of runs and pairs in all cached answers, about 100 MB; the largest comparison has 20,000."""
MAX_BRIEFS = 1000
"""Maximum number of remembered verdicts with their progress, a few kB each."""
_answers: OrderedDict[tuple[Any, ...], ComparisonAnswer] = OrderedDict()
_briefs: OrderedDict[UUID, tuple[tuple[Any, ...], Brief]] = OrderedDict()
_lock = Lock()


# --- requests of users -----------------------------------------------------------------------------------------------


def resolved_plan(request: ComparisonRequest) -> Plan:
    """The plan of a request on the current workers. Raises Invalid with pointers into the request.

    No transaction is open while it is made, which takes up to a second and may count the records of data sets.
    """
    with transaction() as session:
        device = _device(session)
    record_count = cache(lambda name: layouts.train_records(default_dataset(name), settings().data))
    return resolve(
        request,
        {"auto": device},
        max_jobs=settings().max_comparison_jobs,
        records=record_count,
        classes=lambda dataset: layouts.classes(dataset, settings().data),
    )


def _device(session: Session) -> str:
    """The device that `auto` means for all runs, so that they are comparable: a GPU if a worker has one."""
    devices = session.scalars(select(Worker.devices).where(workers.is_up())).all()
    if not devices:
        return "auto"
    return "cuda" if any(map(workers.has_cuda, devices)) else "cpu"


def _check(session: Session, plan: Plan) -> None:
    """Raise Invalid for tasks whose jobs would be refused."""
    errors: list[FieldError] = []
    for index, planned in enumerate(plan.optimizers):
        names = versions.names_in_trials(planned.name, planned.trials)
        versions.hold(session, names, f"/optimizers/{index}")
    for number, optimizer in product(range(len(plan.tasks)), _first_and_largest(plan)):
        try:
            spec = plan.spec(Cell("report", number, optimizer, 0, 0, plan.seeds[0]))
        except ValidationError as error:  # the request is valid, but not on these workers
            of_spec = field_errors(error, plan.tasks[number].spec)
            errors += [FieldError(f"/tasks/{number}{field.pointer}", field.detail) for field in of_spec]
            continue
        try:
            submission.check(session, TrainSpec.model_validate(spec))
        except Invalid as invalid:
            errors += [FieldError(f"/tasks/{number}{error.pointer}", error.detail) for error in invalid.errors]
    if errors:
        raise Invalid.fields(list(dict.fromkeys(errors)))


def _first_and_largest(plan: Plan) -> list[int]:
    """The numbers of the first optimizer, and of the one that keeps the most state if that is another.

    What is checked before jobs are queued depends on the task, and on the memory of the optimizer.
    """

    def states(number: int) -> int:
        try:
            spec = plan.spec(Cell("report", 0, number, 0, 0, plan.seeds[0]))
        except ValidationError:  # it does not fit the first task
            return 0
        return TrainSpec.model_validate(spec).optimizer.least_states

    counts = [states(number) for number in range(len(plan.optimizers))]
    return list(dict.fromkeys([0, counts.index(max(counts))]))


def dry_run(request: ComparisonRequest) -> ComparisonDryRun:
    """The plan of a comparison, its number of jobs and its duration."""
    plan = resolved_plan(request)
    first = schedule.due(plan, {})
    with transaction() as session:
        _check(session, plan)
        expected = estimates.estimate(session, plan)
        reused = len(cells.find(session, plan, first))
    return ComparisonDryRun(
        plan=methods_text.plan_view(plan),
        methods=methods_text.methods(plan),
        jobs_at_least=plan.jobs(seeds=plan.looks[0]),
        jobs_at_most=plan.jobs(),
        reused=reused,
        seconds_at_most=durations.max_seconds(plan, expected),
        estimates=list(expected.values()),
    )


def create(session: Session, user: User, plan: Plan) -> Comparison:
    """Store the plan and submit its first runs. Raises Invalid for tasks whose jobs would be refused."""
    _check(session, plan)
    comparison = Comparison(
        id=uuid7(), user=user, name=plan.name, plan=plan.model_dump(mode="json"), status=ComparisonStatus.RUNNING
    )
    session.add(comparison)
    session.flush()
    advance(session, comparison)
    session.refresh(comparison)
    return comparison


def get(session: Session, comparison_id: UUID) -> Comparison:
    """The comparison. Raises NotFound."""
    comparison = session.get(Comparison, comparison_id)
    if comparison is None:
        raise NotFound(f"comparison {comparison_id} not found")
    return comparison


def find(
    session: Session, limit: int, after: UUID | None, *, archived: bool = False
) -> tuple[Sequence[Comparison], bool]:
    """Up to `limit` comparisons older than `after`, newest first, and whether more follow."""
    query = select(Comparison).order_by(Comparison.id.desc()).limit(limit + 1)
    if not archived:
        query = query.where(Comparison.archived_at.is_(None))
    if after is not None:
        query = query.where(Comparison.id < after)
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def summary(comparison: Comparison) -> ComparisonSummary:
    """The row as a list entry."""
    names = ComparisonSummary.model_fields.keys() - {"user", "tags"}
    values = {name: getattr(comparison, name) for name in names}
    return ComparisonSummary.model_validate({**values, "user": comparison.user.name, "tags": cells.tags(comparison)})


def cancel(session: Session, user: User, comparison_id: UUID) -> Comparison:
    """Cancel a comparison and those of its jobs that only it needs. Idempotent."""
    comparison = _owned(session, user, comparison_id)
    if comparison.status == ComparisonStatus.CANCELLED:
        return comparison
    if comparison.status != ComparisonStatus.RUNNING:
        raise Conflict(f"comparison {comparison_id} has already {comparison.status}", current_status=comparison.status)
    _end_early(session, comparison, ComparisonStatus.CANCELLED)
    session.refresh(comparison)
    return comparison


def change(session: Session, user: User, comparison_id: UUID, changes: ComparisonChanges) -> Comparison:
    """Change the name, tags or note of a comparison, archive it or bring it back. Raises Conflict while it runs."""
    comparison = _owned(session, user, comparison_id)
    if changes.archive and comparison.status == ComparisonStatus.RUNNING:
        raise Conflict(
            f"comparison {comparison_id} is running: cancel it first, to archive it", current_status=comparison.status
        )
    for name, value in changes.values.items():
        setattr(comparison, name, value)
    if changes.archive is not None and changes.archive != (comparison.archived_at is not None):
        session.execute(LOCK)
        at = session.scalar(select(func.clock_timestamp())) if changes.archive else None
        cells.archive(session, comparison, at)
        comparison.archived_at = at
    session.flush()
    return comparison


def _owned(session: Session, user: User, comparison_id: UUID) -> Comparison:
    """The comparison, locked. Raises NotFound and Forbidden."""
    comparison = session.scalar(select(Comparison).where(Comparison.id == comparison_id).with_for_update(of=Comparison))
    if comparison is None:
        raise NotFound(f"comparison {comparison_id} not found")
    if comparison.user_id != user.id and not user.is_admin:
        raise Forbidden(f"comparison {comparison_id} belongs to {comparison.user.name}")
    return comparison


def answer(session: Session, comparison: Comparison) -> ComparisonAnswer:
    """The answer to a comparison; computed once for each state of its jobs."""
    return _remembered(session, comparison, _state(session, comparison))


def brief(session: Session, comparison: Comparison) -> Brief:
    """Verdict and progress, remembered for many more comparisons than whole answers."""
    state = _state(session, comparison)
    with _lock:
        known = _briefs.get(comparison.id)
    if known is None or known[0] != state:
        whole = _remembered(session, comparison, state)
        known = state, Brief(whole.verdict, whole.progress)
    with _lock:
        _briefs[comparison.id] = known
        _briefs.move_to_end(comparison.id)
        if len(_briefs) > MAX_BRIEFS:
            _briefs.popitem(last=False)
    return known[1]


def _state(session: Session, comparison: Comparison) -> tuple[Any, ...]:
    shown = summary(comparison).model_dump_json()
    return comparison.id, shown, *session.execute(STATE, {"comparison": comparison.id}).one()


def _remembered(session: Session, comparison: Comparison, state: tuple[Any, ...]) -> ComparisonAnswer:
    with _lock:
        if state in _answers:
            _answers.move_to_end(state)
            return _answers[state]
    current = _answer(session, comparison)
    with _lock:
        for older in [other for other in _answers if other[0] == comparison.id]:
            del _answers[older]
        _answers[state] = current
        total = sum(map(_weight, _answers.values()))
        while total > MAX_CACHED:
            total -= _weight(_answers.popitem(last=False)[1])
    return current


def _weight(answer: ComparisonAnswer) -> int:
    return answer.progress.jobs + answer.plan.pairs


def _answer(session: Session, comparison: Comparison) -> ComparisonAnswer:
    plan = stored_plan(comparison)
    runs = cells.load(session, comparison, plan)
    expected = estimates.estimate(session, plan) if comparison.status == ComparisonStatus.RUNNING else {}
    return conclusion.conclude(summary(comparison), plan, runs, expected)


def stored_plan(comparison: Comparison) -> Plan:
    """The stored plan. Raises Conflict if this version of kotrain cannot run it, or lacks a plug-in that it needs.

    A comparison that has ended needs no plug-ins: an administrator may have updated or removed them since.
    """
    try:
        plan = Plan.model_validate(comparison.plan)
        reasons = [_why_unusable(optimizer) for optimizer in plan.optimizers]
        usable = [number for number, reason in enumerate(reasons) if reason is None]
        for task, optimizer in (*product(range(len(plan.tasks)), usable[:1]), *product([0], usable)):
            plan.spec(Cell("report", task, optimizer, 0, 0, plan.seeds[0]))
    except (ValidationError, LookupError) as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
        problem = "is of another version of kotrain and cannot be read by this one"
        raise _unreadable(comparison, f"{problem} ({why})") from error
    missing = next(filter(None, reasons), None)
    if missing is not None and comparison.status == ComparisonStatus.RUNNING:
        raise _unreadable(comparison, f"needs an optimizer that this server does not have ({missing})")
    return plan


def _why_unusable(optimizer: PlannedOptimizer) -> str | None:
    """Why the uploaded code and the plug-ins that an optimizer of a plan uses are not available; None if they are."""
    for params in optimizer.trials:
        for name in uploaded.names_in({"name": optimizer.name, "params": params}):
            if (why := uploaded.why_unusable(name)) is not None:
                return why
    return None


def _unreadable(comparison: Comparison, problem: str) -> Conflict:
    return Conflict(
        f"the plan of comparison {comparison.id} {problem}: submit the comparison again",
        current_status=comparison.status,
        message=comparison.message,
    )


# --- maintenance -----------------------------------------------------------------------------------------------------


def advance_one(session: Session, comparison_id: UUID) -> None:
    """Advance a comparison, unless another process has locked it or it has ended."""
    session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # a large plan takes long to schedule
    comparison = session.scalar(
        select(Comparison)
        .where(Comparison.id == comparison_id, Comparison.status == ComparisonStatus.RUNNING)
        .with_for_update(of=Comparison, skip_locked=True)
    )
    if comparison is not None:
        advance(session, comparison)


def fail(session: Session, comparison_id: UUID, message: str) -> None:
    """Fail a comparison that cannot continue, and cancel the jobs that only it needs; no effect if it has ended."""
    comparison = session.scalar(
        select(Comparison)
        .where(Comparison.id == comparison_id, Comparison.status == ComparisonStatus.RUNNING)
        .with_for_update(of=Comparison)
    )
    if comparison is None:
        return
    comparison.message = storable(message)
    _end_early(session, comparison, ComparisonStatus.FAILED)


def advance(session: Session, comparison: Comparison) -> None:
    """Submit the runs that are due, or end the comparison if all have ended."""
    plan = stored_plan(comparison)
    while True:
        runs = cells.load(session, comparison, plan)
        lost = set(cells.lost(runs))
        results = {run.cell: run.result for run in settled(plan, [run for run in runs if run.cell not in lost])}
        missing = [cell for cell in schedule.due(plan, results) if cell not in results]
        if not missing:
            break
        session.execute(LOCK)
        cells.forget(session, comparison, sorted(lost))
        cells.provide(session, comparison, plan, missing)  # a reused job may have ended, so that more cells are due
    if all(result.is_final for result in results.values()):
        reported = [result for cell, result in results.items() if cell.phase == "report"]
        tasks = [schedule.TaskResults(plan, results, task) for task in range(len(plan.tasks))]
        complete = all(len(task.chosen) == len(plan.optimizers) for task in tasks)
        failed = any(result.failed for result in reported) or not complete
        _end(session, comparison, ComparisonStatus.FAILED if failed else ComparisonStatus.SUCCEEDED)


def _end_early(session: Session, comparison: Comparison, status: ComparisonStatus) -> None:
    """End a comparison, and cancel the jobs that only it needs."""
    session.execute(LOCK)
    actions.cancel_many(session, cells.unneeded(session, comparison))
    _end(session, comparison, status)


def _end(session: Session, comparison: Comparison, status: ComparisonStatus) -> None:
    comparison.status = status
    comparison.finished_at = session.scalar(select(func.clock_timestamp()))
    session.flush()
