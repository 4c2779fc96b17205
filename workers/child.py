"""The child process: trains one job and talks to its supervisor over a pipe.

It knows no database and no secret. What is said over the pipe stands in `workers.messages`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from service.specs.outcome import Summary
from service.specs.states import Reason
from service.specs.training import TrainSpec
from workers import lifetime
from workers.messages import CHECKPOINT, FAILURE, NOTE, PAUSE, POINTS, RESULT, STARTED, UNABLE, Assignment, may_have
from workers.training import failures
from workers.training.checkpoint import Keeper, Saved
from workers.training.loop import Start, train
from workers.training.stopping import Stop

SEND_SECONDS = 0.2
"""Points are sent together once so much time has passed."""
LIFE_SECONDS = 1.0
"""Without points, so much later something is sent all the same."""
LOOK_SECONDS = 0.02
"""Between looks for a message: one takes 20 microseconds, too much for every step of a small network."""
TRACEBACK_CHARACTERS = 8_000


def main(pipe: Connection, assignment: Assignment) -> None:
    """Entry point of the process: train, and send what came of it."""
    messenger = _Messenger(pipe)
    try:
        _settle(assignment)
        spec = TrainSpec.model_validate(assignment.spec)
        summary = train(
            spec,
            messenger.report,
            messenger.should_stop,
            data_dir=assignment.data_dir,
            report_start=messenger.report_start,
            keeper=Keeper(assignment.folder, assignment.checkpoint_seconds, messenger.report_saved, messenger.warn),
            resume=assignment.resume,
        )
        messenger.send_result(summary)
    except failures.AbsentData as absence:
        pipe.send((UNABLE, str(absence)))
    except BaseException as error:
        messenger.send_failure(_reason_of(error), _describe(error, assignment.memory_bytes))


def _settle(assignment: Assignment) -> None:
    """Become the leader of an own process group that dies with its parent, within the given limits."""
    os.setsid()
    lifetime.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor decides, over the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the kernel's out-of-memory killer takes this process first, not the worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    if assignment.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = assignment.memory_bytes if hard == resource.RLIM_INFINITY else min(assignment.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.environ["CUDA_VISIBLE_DEVICES"] = assignment.cuda_device or ""
    torch.set_num_threads(assignment.threads)


class _Messenger:
    """The child's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._started = time.perf_counter()
        self._sent_at = self._looked_at = self._started
        self._step = 0
        self._stop: Stop | None = None
        self._points: dict[str, tuple[list[int], list[float], list[float]]] = {}

    def report_start(self, start: Start) -> None:
        self._step = start.place.step
        self._started = time.perf_counter() - start.seconds  # the run's clock, which checkpoints carry on
        if start.note is not None:
            self.warn(start.note)
        step, told = start.place
        self._pipe.send((STARTED, start.environment, start.total_steps, step, sorted(told), start.seconds))

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        self._step = step
        for name, value in metrics.items():
            steps, values, wall_seconds = self._points.setdefault(name, ([], [], []))
            steps.append(step)
            values.append(value)
            wall_seconds.append(now - self._started)
        if now - self._sent_at >= SEND_SECONDS:
            self._send_points(now)

    def report_saved(self, saved: Saved) -> None:
        self._send_points(time.perf_counter())  # a checkpoint counts only with all that was measured until then
        self._pipe.send((CHECKPOINT, *saved))

    def warn(self, text: str) -> None:
        self._pipe.send((NOTE, text))

    def should_stop(self) -> Stop | None:
        now = time.perf_counter()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            if self._stop is None and self._pipe.poll():
                self._stop = Stop.PAUSE if self._pipe.recv() == PAUSE else Stop.CANCEL
            if now - self._sent_at >= LIFE_SECONDS:
                self._send_points(now)
        return self._stop

    def send_result(self, summary: Summary) -> None:
        self._send_points(time.perf_counter())
        self._pipe.send((RESULT, summary.model_dump(mode="json")))

    def send_failure(self, reason: Reason, message: str) -> None:
        self._send_points(time.perf_counter())
        self._pipe.send((FAILURE, reason.value, message))

    def _send_points(self, now: float) -> None:
        self._sent_at = now
        self._pipe.send((POINTS, self._step, self._points))
        self._points = {}


def _reason_of(error: BaseException) -> Reason:
    """What an exception says about the end of the job."""
    if failures.is_out_of_memory(error):
        return Reason.OUT_OF_MEMORY
    if failures.is_infrastructure_error(error):
        return Reason.CHILD_LOST
    return Reason.INVALID if isinstance(error, ValueError) else Reason.ERROR


def _describe(error: BaseException, memory_bytes: int | None) -> str:
    """The last lines of the traceback; of an invalid job, and of too little memory, one sentence."""
    if type(error) is ValueError:
        return str(error)
    if failures.is_out_of_memory(error):
        said = traceback.format_exception_only(error)[-1].strip()
        return f"out of memory: {said}{'' if memory_bytes is None else f' ({may_have(memory_bytes)})'}"
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
