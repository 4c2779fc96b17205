"""The answer to a synthetic comparison without finished runs."""

from __future__ import annotations

from service.comparisons.answers import (
    ComparisonAnswer,
    CostView,
    GroupView,
    PairDetail,
    PairView,
    TaskAnswer,
    ToTarget,
    TrialView,
    TuningView,
    VerdictView,
)
from service.specs.states import ComparisonStatus
from tests.unit.service.reports.studies import study

VERDICT = "No verdict yet: the parameters are still being chosen, and one look was planned, at the end."


def unfinished_answer() -> ComparisonAnswer:
    """The answer to a comparison that is tuning: no report run has finished."""
    finished = study().answer
    tasks = [_task(task) for task in finished.tasks]
    return finished.model_copy(
        update={
            "status": ComparisonStatus.RUNNING,
            "finished_at": None,
            "tasks": tasks,
            "across": None,
            "verdict": [f"{task.label}: {task.verdict.text}" for task in tasks],
            "progress": finished.progress.model_copy(
                update={"phase": "tuning", "running": 2, "queued": 40, "succeeded": 6, "seconds_left": 500.0}
            ),
        }
    )


def _task(task: TaskAnswer) -> TaskAnswer:
    return task.model_copy(
        update={
            "groups": [_group(group) for group in task.groups],
            "pairs": [_pair(pair) for pair in task.pairs],
            "tuning": [_tuning(view) for view in task.tuning],
            "cost": [_cost(cost) for cost in task.cost],
            "to_target": [_to_target(view) for view in task.to_target],
            "verdict": VerdictView(decided=False, best=None, text=VERDICT),
        }
    )


def _group(group: GroupView) -> GroupView:
    return group.model_copy(
        update={"n": 0, "mean": None, "sd": None, "interval": None, "best": None, "jobs": []}
        | {"steps_to_target": None, "seconds_to_target": None, "cannot_say": "no run has finished"}
    )


def _pair(pair: PairView) -> PairView:
    return PairView(
        a=pair.a,
        b=pair.b,
        n=0,
        difference=None,
        interval=None,
        p=None,
        p_adjusted=None,
        significant=False,
        seeds_needed=None,
        detail=PairDetail.model_validate(dict.fromkeys(PairDetail.model_fields)),
        cannot_say="a test needs 3 seeds that both have",
    )


def _tuning(view: TuningView) -> TuningView:
    return view.model_copy(
        update={
            "trials": [_trial(trial) for trial in view.trials],
            "chosen": None,
            "params": None,
            "at_edge": [],
            "expected_best": [],
            "good_range": None,
            "seconds": 0.0,
        }
    )


def _trial(trial: TrialView) -> TrialView:
    return trial.model_copy(update={"score": None, "status": "waiting", "seconds": None})


def _cost(cost: CostView) -> CostView:
    return CostView(
        label=cost.label,
        train_seconds=None,
        milliseconds_per_step=None,
        ratio=None,
        peak_bytes=None,
        optimizer_state_bytes=None,
        parameters=None,
        shared=False,
    )


def _to_target(view: ToTarget) -> ToTarget:
    return view.model_copy(update={"runs": 0, "reached": 0, "steps": None, "seconds": None})
