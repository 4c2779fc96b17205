"""Trains a spec: starts or continues the run, reports its metrics and returns its summary."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from service.specs.summary import Environment, Summary
from service.specs.training import TrainSpec
from workers.training import checkpoint, failures
from workers.training.device import deterministic
from workers.training.run import OnMetrics, Run
from workers.training.stopping import Stop


class Start(NamedTuple):
    """Facts about a run before its next step."""

    environment: Environment
    total_steps: int | None
    """Steps of the budget; None for a budget in seconds."""
    position: checkpoint.Position = checkpoint.Position()
    """Position of the checkpoint that the run continues from; the beginning without one."""
    seconds: float = 0.0
    """Wall-clock seconds of the run so far."""
    notes: tuple[str, ...] = ()
    """What is unusual about the data and the schedule, and why a checkpoint was not used."""


def train(
    spec: TrainSpec,
    report: OnMetrics,
    should_stop: Callable[[], Stop | None],
    *,
    data_dir: Path,
    report_start: Callable[[Start], None] | None = None,
    checkpoints: checkpoint.CheckpointWriter | None = None,
    resume: Path | None = None,
    hand_over: Path | None = None,
) -> Summary:
    """Train a spec and return its summary.

    Args:
        spec: the resolved spec.
        report: called with the training metrics every `log_every_steps` and the validation metrics at each validation,
            both before the next step, and once with the test metrics, at the very end.
        should_stop: called after each step and each batch of an evaluation. Unless it returns None, the run ends as
            cancelled, without a test; for `Stop.PAUSE` it first writes a checkpoint.
        data_dir: the folder of data sets.
        report_start: called once, before the first step, with the environment (versions, device, data hash, seeds) and
            the position from which the run starts.
        checkpoints: writes checkpoints; None: none are written.
        resume: a checkpoint to continue from. If it cannot be used (other data, engine, torch or kind of device), the
            run starts from the beginning, and `Start.notes` gives the reason.
        hand_over: folder into which the final weights are written for a test by another process (`handover`), instead
            of a test by this one.

    Raises:
        ValueError: this machine cannot run the spec (no GPU, precision), or the batch is larger than the data.
        AbsentData: the data set is not present.
    """
    with deterministic():
        run, reason = _prepare(spec, report, data_dir, checkpoints, resume, hand_over)
        if report_start is not None:
            cut = run.spec.cut_warmup(run.progress.total_steps)
            notes = (*run.notes, *filter(None, [reason, cut]))
            report_start(Start(run.environment(), run.progress.total_steps, run.position, run.seconds, notes))
        return run.execute(should_stop)


def _prepare(
    spec: TrainSpec,
    report: OnMetrics,
    data_dir: Path,
    checkpoints: checkpoint.CheckpointWriter | None,
    resume: Path | None,
    hand_over: Path | None,
) -> tuple[Run, str | None]:
    """The run, restored from its checkpoint if possible, and the reason if not."""
    if not spec.optimizer.is_resumable:
        base = getattr(spec.optimizer.params, "base", None)
        name = f"{spec.optimizer.name} on {base}" if base else spec.optimizer.name
        note = f"no checkpoints are written, because {name} would not continue from them bit for bit"
        begins = f"starts from the beginning, and {note}" if resume else note
        return Run(spec, report, data_dir, None, hand_over), begins
    run = Run(spec, report, data_dir, checkpoints, hand_over)
    if resume is None:
        return run, None
    reason = _restore(run, resume)
    if reason is None:
        return run, None
    del run  # memory may not suffice for two runs
    gc.collect()
    return Run(spec, report, data_dir, checkpoints, hand_over), reason


def _restore(run: Run, resume: Path) -> str | None:
    """Restore the run from a checkpoint. Returns the reason if that is impossible, else None.

    Raises:
        OSError and others: a temporary problem of this machine; a retry may use the checkpoint.
    """
    try:
        run.restore(checkpoint.read(resume))
    except Exception as error:
        if isinstance(error, OSError) or failures.is_infrastructure_error(error) or failures.is_out_of_memory(error):
            raise
        # With any other error, the run can still start from the beginning.
        return f"starts from the beginning, because its checkpoint cannot be used: {error}"
    return None
