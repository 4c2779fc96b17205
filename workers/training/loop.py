"""The training loop: one spec in, metrics while it runs, a summary at its end."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from service.specs.outcome import Environment, Summary
from service.specs.training import TrainSpec
from workers.training import checkpoint, failures
from workers.training.device import deterministic
from workers.training.run import Report, Run
from workers.training.stopping import Stop


class Start(NamedTuple):
    """What is known of a run before its next step."""

    environment: Environment
    total_steps: int | None
    """Steps that the budget allows; None if it is in seconds."""
    place: checkpoint.Place = checkpoint.Place()
    """Where a checkpoint had come to; the beginning if there is none."""
    seconds: float = 0.0
    """Wall-clock that this took."""
    note: str | None = None
    """Why a checkpoint was not used."""


def train(
    spec: TrainSpec,
    report: Report,
    should_stop: Callable[[], Stop | None],
    *,
    data_dir: Path,
    report_start: Callable[[Start], None] | None = None,
    keeper: checkpoint.Keeper | None = None,
    resume: Path | None = None,
) -> Summary:
    """Train what `spec` says, and tell how it went.

    Args:
        report: gets training metrics every `log_every_steps` and validation metrics at each validation, both before
            the next step; the test metrics once, at the very end.
        should_stop: asked after each step and each batch of an evaluation. At anything but None the run ends as
            cancelled, without a test; with `Stop.PAUSE` it writes a checkpoint first.
        data_dir: the folder that data sets lie in.
        report_start: gets the environment (versions, device, data hash, seeds) and where the run starts, once, before
            the first step.
        keeper: writes checkpoints; None: none are written.
        resume: a checkpoint to continue from. One that cannot be used (other data, engine, torch or kind of device)
            is not: the run starts from the beginning and says so in `Start.note`.

    Raises:
        ValueError: this machine cannot do it (no GPU, precision), or the batch is larger than the data.
        AbsentData: the data is not there.
    """
    with deterministic():
        run, note = _started(spec, report, data_dir, keeper, resume)
        if report_start is not None:
            report_start(Start(run.environment(), run.progress.total_steps, run.place, run.seconds, note))
        return run.execute(should_stop)


def _started(
    spec: TrainSpec, report: Report, data_dir: Path, keeper: checkpoint.Keeper | None, resume: Path | None
) -> tuple[Run, str | None]:
    """The run as its checkpoint has it, or from the beginning and why."""
    run = Run(spec, report, data_dir, keeper)
    if resume is None:
        return run, None
    why = _not_restored(run, resume)
    if why is None:
        return run, None
    del run  # there may be no room for two
    gc.collect()
    return Run(spec, report, data_dir, keeper), why


def _not_restored(run: Run, resume: Path) -> str | None:
    """Have the run be where its checkpoint is; else why that is not possible.

    Raises:
        OSError and others: what this machine is short of; the checkpoint may do on another try.
    """
    try:
        run.restore(checkpoint.read(resume))
    except Exception as error:
        if isinstance(error, OSError) or failures.is_infrastructure_error(error) or failures.is_out_of_memory(error):
            raise
        # whatever else it is, the run can be made without
        return f"starts from the beginning, its checkpoint is of no use: {error}"
    return None
