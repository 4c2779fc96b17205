"""The child process: trains one job and reports to its supervisor over a pipe.

It has no access to the database or to secrets. `workers.messages` defines the messages on the pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from service.code import isolation
from service.datasets.layouts import locate
from service.specs.states import Reason
from service.specs.summary import Summary
from service.specs.training import TrainSpec
from workers import messages
from workers.messages import Assignment, CodeCheck, memory_text
from workers.thinning import Point, Thinner
from workers.training import conformance, failures, handover, memory, uploaded
from workers.training.checkpoint import CheckpointWriter, Saved
from workers.training.loop import Start, train
from workers.training.stopping import Stop

SEND_SECONDS = 0.2
"""Interval at which collected metric points are sent."""
KEEPALIVE_SECONDS = 1.0
"""Maximum interval between messages; without metric points, an empty message is sent."""
POLL_SECONDS = 0.02
"""Interval of checks for messages: one takes 20 microseconds, too long for every step of a small network."""
TRACEBACK_CHARACTERS = 8_000


def main(pipe: Connection, assignment: Assignment) -> None:
    """Entry point of the process: train the job and send its result."""
    if assignment.code and not assignment.is_trusted:
        try:
            _isolate(pipe, assignment)
        except OSError as error:
            messages.send(pipe, messages.Unable(f"it cannot isolate uploaded code: {error}"))
            return
    messenger = _Messenger(pipe)
    limit: memory.Limit | None = None
    try:
        limit = _settle(assignment)
        uploaded.receive(assignment.code)
        uploaded.check_plugins(assignment.spec["optimizer"])
        spec = TrainSpec.model_validate(assignment.spec)
        summary = train(
            spec,
            messenger.report,
            messenger.should_stop,
            data_dir=assignment.data_dir,
            report_start=messenger.report_start,
            checkpoints=CheckpointWriter(
                assignment.folder,
                assignment.checkpoint_seconds,
                messenger.report_saved,
                messenger.report_checkpoint_failure,
            ),
            resume=assignment.resume,
            hand_over=assignment.folder if assignment.code else None,
        )
        messenger.send_result(summary)
    except failures.AbsentData as absence:
        messages.send(pipe, messages.Unable(_cut(str(absence))))
    except BaseException as error:
        messenger.send_failure(*_failure(error, limit))


def measure(pipe: Connection, assignment: Assignment) -> None:
    """Entry point of the process that measures the weights of a job with uploaded code, which it does not execute."""
    summary = assignment.ended
    assert summary is not None
    if not assignment.is_trusted:  # the weights come from a process that has executed the code
        _isolate(pipe, assignment)
    messenger = _Messenger(pipe, summary.steps, summary.total_seconds)
    limit: memory.Limit | None = None
    try:
        limit = _settle(assignment)
        uploaded.receive(assignment.code)  # for the names of the parameters
        spec = TrainSpec.model_validate(assignment.spec)
        metrics, environment = handover.measure(spec, assignment.data_dir, assignment.folder, messenger.should_stop)
        messenger.report(summary.steps, {name: value for name, value in metrics.items() if "test" in name})
        messenger.send_measured(metrics, environment)
    except handover.Cancelled:
        pass
    except failures.AbsentData as absence:
        messages.send(pipe, messages.Unable(_cut(str(absence))))
    except BaseException as error:
        messenger.send_failure(*_failure(error, limit))


def check(pipe: Connection, task: CodeCheck) -> None:
    """Entry point of the process that runs the conformance test of uploaded code."""
    if not task.is_trusted:
        try:
            os.setsid()
            isolation.isolate(isolation.Limits((), task.folder, (pipe.fileno(),)))
        except OSError as error:
            messages.send(pipe, messages.Unable(f"it cannot isolate uploaded code: {error}"))
            return
    limit: memory.Limit | None = None
    try:
        os.nice(10)  # jobs come first
        torch.set_num_threads(task.threads)
        limit = memory.Limit(task.memory_bytes, task.threads)
        results = conformance.check(uploaded.candidate(task.code))
        messages.send(pipe, messages.Checked([(r.name, r.outcome, _cut(r.text)) for r in results]))
    except BaseException as error:
        messages.send(pipe, messages.Failure(*_wire(_failure(error, limit))))


def _wire(failure: tuple[Reason, str]) -> tuple[Any, str]:
    """A failure as a message has it."""
    return failure[0].value, _cut(failure[1])


def _isolate(pipe: Connection, assignment: Assignment) -> None:
    """Continue in an isolated process, which may read the job's data set and checkpoint. Raises OSError."""
    os.setsid()
    assignment.folder.mkdir(parents=True, exist_ok=True)
    located = locate(assignment.spec["dataset"]["name"], assignment.data_dir)
    readable: list[Path] = []
    if located:  # its folder, or its files if that is the folder of all data sets
        is_alone = located.root != assignment.data_dir
        files = (file for part in located.layout.parts for file in located.files(part))
        readable += [located.root] if is_alone else files
    if assignment.resume is not None:
        readable.append(assignment.resume)
    has_gpu = assignment.cuda_device is not None
    isolation.isolate(isolation.Limits(tuple(readable), assignment.folder, (pipe.fileno(),), has_gpu))


def _settle(assignment: Assignment) -> memory.Limit | None:
    """Start a process group, and apply the limits of the assignment."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor stops jobs over the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the out-of-memory killer prefers this process to the worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.environ["CUDA_VISIBLE_DEVICES"] = assignment.cuda_device or ""
    torch.set_num_threads(assignment.threads)  # starts threads, whose stacks the limit would count
    return None if assignment.memory_bytes is None else memory.Limit(assignment.memory_bytes, assignment.threads)


class _Messenger:
    """Sends messages of the child and receives those of its supervisor."""

    def __init__(self, pipe: Connection, step: int = 0, seconds: float = 0.0) -> None:
        self._pipe = pipe
        self._sent_at = self._polled_at = time.perf_counter()
        self._started = self._sent_at - seconds
        self._step = step
        self._stop: Stop | None = None
        self._points: dict[str, messages.Columns] = {}
        self._thinners: defaultdict[str, Thinner] = defaultdict(Thinner)

    def report_start(self, start: Start) -> None:
        self._step = start.position.step
        self._started = time.perf_counter() - start.seconds  # the clock of the run, continued from its checkpoint
        for note in start.notes:
            self._send(messages.Note(_cut(note)))
        step, reported = start.position
        self._send(messages.Started(start.environment, start.total_steps, step, sorted(reported), start.seconds))

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        self._step = step
        points = {
            name: self._thinners[name].add(Point(step, value, now - self._started)) for name, value in metrics.items()
        }
        if any(points.values()):  # readers expect that no metric has later points of a step that they have seen
            for name, thinner in self._thinners.items():
                self._collect(name, points.get(name) or thinner.flush())
        if now - self._sent_at >= SEND_SECONDS:
            self._send_points(now)

    def _collect(self, name: str, points: Iterable[Point]) -> None:
        for point in points:
            steps, values, wall_seconds = self._points.setdefault(name, ([], [], []))
            steps.append(point.step)
            values.append(float(point.value))
            wall_seconds.append(point.wall_seconds)

    def report_saved(self, saved: Saved) -> None:
        self._send_all_points()  # all points up to the checkpoint must precede it
        self._send(messages.Checkpoint(*saved))

    def report_checkpoint_failure(self, text: str) -> None:
        self._send(messages.CheckpointFailed(_cut(text)))

    def should_stop(self) -> Stop | None:
        now = time.perf_counter()
        if now - self._polled_at >= POLL_SECONDS:
            self._polled_at = now
            if self._stop is None and self._pipe.poll():
                self._stop = Stop.PAUSE if self._pipe.recv_bytes() == messages.PAUSE else Stop.CANCEL
            if now - self._sent_at >= KEEPALIVE_SECONDS:
                self._send_points(now)
        return self._stop

    def send_result(self, summary: Summary) -> None:
        self._send_all_points()
        self._send(messages.Result(summary))

    def send_measured(self, metrics: dict[str, float], environment: Mapping[str, Any]) -> None:
        self._send_all_points()
        self._send(messages.Measured(metrics, dict(environment)))

    def send_failure(self, reason: Reason, message: str) -> None:
        self._send_all_points()
        self._send(messages.Failure(*_wire((reason, message))))

    def _send_all_points(self) -> None:
        for name, thinner in self._thinners.items():
            self._collect(name, thinner.flush(with_last=True))
        self._send_points(time.perf_counter())

    def _send_points(self, now: float) -> None:
        self._sent_at = now
        self._send(messages.Points(self._step, self._points))
        self._points = {}

    def _send(self, message: messages.Message) -> None:
        messages.send(self._pipe, message)


def _cut(text: str) -> str:
    """The end of a text that is too long for a message, with escapes for halves of characters from file names."""
    return text[-TRACEBACK_CHARACTERS:].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _failure(error: BaseException, limit: memory.Limit | None) -> tuple[Reason, str]:
    """The reason for the end of the job, and its message. Lifts the limit, because a report needs memory, too."""
    if limit is None:  # on a GPU, whose errors give the figures; or there was none yet
        return _reason_of(error), _describe(error)
    used_bytes, is_near = limit.used(), limit.is_near()  # `error` refers to the frames that still use the memory
    limit.lift()
    reason = Reason.OUT_OF_MEMORY if is_near else _reason_of(error)
    if reason is Reason.OUT_OF_MEMORY:
        return reason, f"out of memory: {memory_text(used_bytes, limit.bytes)}; {_sentence(error)}"
    return reason, _describe(error)


def _reason_of(error: BaseException) -> Reason:
    """The reason for the end of the job, by its exception."""
    if failures.is_out_of_memory(error):
        return Reason.OUT_OF_MEMORY
    if failures.is_infrastructure_error(error):
        return Reason.CHILD_LOST
    return Reason.INVALID if isinstance(error, ValueError) else Reason.ERROR


def _describe(error: BaseException) -> str:
    """The end of the traceback; a single sentence for an invalid job or if memory ran out."""
    # A ValidationError: accepted by another version of kotrain.
    if type(error) in (ValueError, ValidationError) and str(error):
        return str(error)
    if failures.is_out_of_memory(error):
        return f"out of memory: {_sentence(error)}"
    return _cut("".join(traceback.format_exception(error)))


def _sentence(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
