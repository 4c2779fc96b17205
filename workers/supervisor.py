"""Supervises one job: starts its process, passes on its metrics, stops it on request and stores its outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.config import settings
from service.jobs import checkpoints, claims
from service.jobs.checkpoints import Written, name_of
from service.jobs.claims import Claim
from service.jobs.heartbeats import Instruction
from service.specs.states import Reason
from service.storage.files import Absent, store
from workers import entry, messages, own_folder
from workers.checkpoint_transfer import TransferCancelled, Uploads, fetch_newest_valid
from workers.ending import Interruption, Outcome, may_continue, store_outcome
from workers.heartbeat import AttemptState, HeartbeatThread, retry_while_database_is_down
from workers.host import Host
from workers.job_code import CodeUnavailable, code_of
from workers.measurement import ENDS_TO_MEASURE, differences, is_test, measured_summary, without_test
from workers.process import Process

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Interval of checks for a cancellation, a time limit or a shutdown."""
MEMORY_SECONDS = 0.5
"""Interval of checks of memory use."""
MAX_POINTS, MAX_POINTS_WITH_DIAGNOSTICS = 10**7, 10**8
"""Points of all metrics of a job with uploaded code. A run has about 20 metrics, with diagnostics some more per layer,
and `workers.thinning` leaves at most 200,000 points of each."""
UNKILLABLE_SECONDS, DYING_SECONDS = 30.0, 3.0
"""Time to wait for a killed process; longer, it is blocked by a hanging device or disk. The second applies while the
worker shuts down."""


@dataclass
class Times:
    """The times of an attempt, which the measurement of its weights shares."""

    started: float = field(default_factory=time.monotonic)
    """Since when the time limit counts."""
    drain_until: float = float("inf")
    """When the worker kills what still runs, because it shuts down."""


class Interrupted(Exception):
    """The attempt is stopped before training starts; only its end may be stored."""

    def __init__(self, stop: Interruption) -> None:
        super().__init__(stop.name)
        self.stop = stop


def supervise(claim: Claim, host: Host, heartbeat_thread: HeartbeatThread) -> bool:
    """Train a claimed job in a child process and store its outcome.

    Returns False if this machine cannot run jobs at present.
    """
    state, outcome = heartbeat_thread.register(claim), Outcome()
    is_able = True
    try:
        _run(claim, host, state, outcome)
    except Interrupted as interruption:
        outcome.stop = interruption.stop
    except Exception as error:  # no process or no store: a problem of this machine, not of the job
        log.exception("job %s: training was interrupted by an error", claim.job_id)
        is_able = False
        if outcome.summary is None and outcome.failure is None:  # else the run has ended, and the error came later
            outcome.unable = f"worker {host.id} could not run it: {error}"
    finally:
        heartbeat_thread.unregister(state)
    if outcome.stop is not Interruption.LOST:
        store_outcome(claim, state, outcome, host)
        host.job_ended.set()
    return is_able


def _run(claim: Claim, host: Host, state: AttemptState, outcome: Outcome) -> None:
    with host.slot(on_gpu=claim.spec.get("device") != "cpu") as gpu:
        try:
            code = code_of(claim, host.draining.is_set)
        except CodeUnavailable as problem:
            outcome.unable, outcome.failure = problem.unable, problem.failure
            return
        if code is None:
            raise Interrupted(Interruption.DRAIN)
        try:
            resume = _checkpoint(claim, host, state) if claim.attempt > 1 else None
        except Absent as absence:
            outcome.unable = f"{claims.WAITS}: {absence}, on worker {host.id}"
            return
        most = host.job_memory.limit_bytes
        memory_bytes = outcome.memory_bytes = min(claim.memory_limit_bytes or most, most)
        assignment = messages.Assignment(
            spec=claim.spec,
            data_dir=settings().data,
            threads=host.threads_per_job,
            cuda_device=gpu,
            memory_bytes=memory_bytes if gpu is None else None,
            folder=store().path(name_of(claim.job_id, claim.attempt)),
            checkpoint_seconds=settings().checkpoint_seconds,
            resume=resume,
            code=code,
            is_trusted=settings().uploaded_code == "trusted",
        )
        times = Times()
        try:
            _monitor(Process(entry.train_job, assignment), claim, host, state, outcome, assignment, times)
            if code and outcome.summary is not None:
                outcome.summary = without_test(outcome.summary, state.step)
                if outcome.summary.reason in ENDS_TO_MEASURE:
                    _measure(claim, host, state, outcome, assignment, times)
        finally:
            if resume is not None:
                store().forget(resume)
            if code:
                own_folder.clear(assignment.folder, outcome.checkpoints)
                with suppress(OSError):  # it has checkpoints
                    assignment.folder.parent.rmdir()


def _monitor(
    process: Process,
    claim: Claim,
    host: Host,
    state: AttemptState,
    outcome: Outcome,
    assignment: messages.Assignment,
    times: Times,
) -> None:
    try:
        _Monitor(process, claim, host, state, outcome, assignment, times).run()
    except BaseException:
        process.kill()
        process.reap(UNKILLABLE_SECONDS)
        raise


def _measure(
    claim: Claim, host: Host, state: AttemptState, outcome: Outcome, assignment: messages.Assignment, times: Times
) -> None:
    """Replace the results that uploaded code reports by those of a process that does not execute the code."""
    summary = outcome.summary
    assert summary is not None
    measuring = Outcome(memory_bytes=outcome.memory_bytes, checkpoints=outcome.checkpoints)
    measurement = replace(assignment, ended=summary)
    _monitor(Process(entry.measure_job, measurement), claim, host, state, measuring, measurement, times)
    if measuring.measured is None:  # it failed or was stopped
        vars(outcome).update(vars(measuring))
        return
    for sentence in differences(summary, measuring.measured):
        state.add_note(sentence)
    outcome.summary = measured_summary(summary, measuring.measured)


def _checkpoint(claim: Claim, host: Host, state: AttemptState) -> Path | None:
    """Path of the checkpoint to continue from; None to start from the beginning.

    Raises Absent while a missing file may reappear with its disk or host, for at most `stall_seconds`.
    """
    is_draining = host.draining.is_set
    rows = retry_while_database_is_down(lambda session: checkpoints.newest_first(session, claim.job_id), is_draining)
    if rows is None:  # do not start from the beginning: there may be checkpoints
        raise Interrupted(Interruption.DRAIN)
    try:
        return fetch_newest_valid(rows, state, lambda: state.instruction is not Instruction.CONTINUE or is_draining())
    except TransferCancelled:
        stops = {
            Instruction.LOST: Interruption.LOST,
            Instruction.CANCEL: Interruption.CANCEL,
            Instruction.CONTINUE: Interruption.DRAIN,
        }
        raise Interrupted(stops[state.instruction]) from None
    except Absent:
        seconds = retry_while_database_is_down(
            lambda session: claims.waited_seconds(session, claim.job_id), is_draining
        )
        if seconds is None:
            raise Interrupted(Interruption.DRAIN) from None
        if seconds < settings().stall_seconds:
            raise
        return None


class _Monitor:
    """Monitors a child: handles its messages, enforces limits and records its end."""

    def __init__(
        self,
        process: Process,
        claim: Claim,
        host: Host,
        state: AttemptState,
        outcome: Outcome,
        assignment: messages.Assignment | None,
        times: Times | None = None,
    ) -> None:
        has_code = assignment is not None and bool(assignment.code)
        self._folder = assignment.folder if assignment and has_code else None
        """The folder of a job with uploaded code."""
        self._measures = assignment is not None and assignment.ended is not None
        self._process, self._claim, self._host, self._state, self._outcome = process, claim, host, state, outcome
        self._uploads = Uploads(state)
        self._times = times or Times()
        self._kill_at = float("inf")
        self._points = 0
        has_diagnostics = claim.spec.get("diagnostics_every_steps") is not None
        self._max_points = MAX_POINTS_WITH_DIAGNOSTICS if has_diagnostics else MAX_POINTS
        self._last_message_at = self._memory_checked_at = time.monotonic()

    def run(self) -> None:
        """Monitor the child until it ends."""
        outcome, has_ended = self._outcome, False
        while not has_ended and time.monotonic() < self._kill_at + self._dying_seconds():
            is_full = self._state.is_full
            received, has_ended = self._process.messages(POLL_SECONDS, listens=not is_full)
            for message in received:
                self._handle(message)
            now = time.monotonic()
            if received or is_full:
                self._last_message_at = now
            self._uploads.poll()
            self._stop_if_required(now)
            if outcome.is_complete:  # do not wait for a process that hangs while exiting
                self._kill_at = min(self._kill_at, now + settings().cancel_seconds)
            if now >= self._kill_at:
                self._process.kill()
        if (why := self._process.invalid) is not None:
            outcome.summary = outcome.unable = None
            outcome.failure = (Reason.ERROR, f"the training process sent an invalid message: {why}")
        code = self._process.reap(0) if has_ended else None
        if code is not None:
            outcome.killed_for_memory = self._process.was_killed_for_memory(code)
            outcome.failed_to_allocate = self._process.failed_to_allocate()
            outcome.exit_description = (
                f"was killed by signal {-code}" if code < 0 else f"ended with status {code} and no result"
            )
        else:
            log.error("job %s: process %d does not end although killed", self._claim.job_id, self._process.pid)
            outcome.exit_description = "was killed but does not end: it is blocked by a device or a disk"
        self._finish_uploads()

    def _dying_seconds(self) -> float:
        """Time to wait for the end of a killed process."""
        return DYING_SECONDS if self._host.draining.is_set() else UNKILLABLE_SECONDS

    def _finish_uploads(self) -> None:
        """Wait for uploads that another attempt would continue from; briefly at a shutdown, not after a cancel."""
        until = self._times.drain_until
        while (
            may_continue(self._outcome)
            and self._state.instruction is Instruction.CONTINUE
            and not self._uploads.are_done
        ):
            now = time.monotonic()
            if self._host.draining.is_set():
                until = min(until, now + settings().drain_seconds)
            if now > until:
                return
            time.sleep(POLL_SECONDS)
            self._uploads.poll()

    def _handle(self, message: messages.Received) -> None:
        state, outcome = self._state, self._outcome
        match message:
            case messages.Points(step, points):
                if self._folder is not None and not self._measures:
                    points = {name: columns for name, columns in points.items() if not is_test(name)}
                self._points += sum(len(steps) for steps, _, _ in points.values())
                if self._folder is None or self._points <= self._max_points:
                    state.add(step, points)
            case messages.Started(environment, total_steps, step, reported, seconds):
                state.environment, state.total_steps, state.step = environment, total_steps, step
                started = time.monotonic() - seconds  # the time limit applies to the run, not to the attempt
                # Uploaded code may delay this message, which does not set the clock back.
                self._times.started = started if self._folder is None else min(started, self._times.started)
                if self._claim.attempt > 1:
                    self._begin(step, reported)
            case messages.Checkpoint(step, file, size_bytes, sha256, seconds):
                self._outcome.checkpoints.add(file)
                name = name_of(self._claim.job_id, self._claim.attempt, file)
                self._uploads.add(Written(step, name, size_bytes, sha256, seconds))
            case messages.Note(text):
                state.add_note(text)
            case messages.CheckpointFailed(text):
                state.report_checkpoint_failure(text)
            case messages.Result(summary):
                outcome.summary = summary
            case messages.Measured(metrics, environment):
                outcome.measured, state.environment = metrics, environment
            case messages.Unable(text):
                outcome.unable = f"worker {self._host.id} cannot train it: {text}"
            case messages.NoEngine(text):
                outcome.unable = f"worker {self._host.id} cannot train: {text}"
                self._host.fail(text)
            case messages.Failure(reason, text):
                outcome.failure = Reason(reason), text

    def _begin(self, step: int, reported: Collection[str]) -> None:
        """Before anything is stored, delete data of earlier attempts beyond the start of this one."""
        is_owner = retry_while_database_is_down(
            lambda session: claims.begin(session, self._claim, step, reported), self._host.draining.is_set
        )
        if is_owner is None:  # nothing of this attempt may be stored: the next one starts at the same point
            raise Interrupted(Interruption.DRAIN)
        if not is_owner:
            self._state.instruction = Instruction.LOST

    def _stop_if_required(self, now: float) -> None:
        """Ask the child to stop if required, or kill it if no grace period applies."""
        if self._state.instruction is Instruction.LOST:
            self._outcome.stop, self._kill_at = Interruption.LOST, min(self._kill_at, now)
        elif self._outcome.stop is None:
            self._outcome.stop = self._required_stop(now)
            if self._outcome.stop is not None:
                self._kill_at = now + _grace_seconds(self._outcome.stop)
                if self._outcome.stop is Interruption.DRAIN:
                    self._kill_at = self._times.drain_until = min(self._kill_at, self._times.drain_until)
                    if not self._measures:  # a measurement cannot be continued, but may end in time
                        self._process.ask(messages.PAUSE)
                else:
                    self._process.ask(messages.CANCEL)

    def _required_stop(self, now: float) -> Interruption | None:
        limit = self._claim.time_limit_seconds
        if self._state.instruction is Instruction.CANCEL:
            return Interruption.CANCEL
        if limit is not None and now - self._times.started > limit:
            return Interruption.TIME_LIMIT
        if self._host.draining.is_set():
            return Interruption.DRAIN
        if now - self._last_message_at > settings().stall_seconds:
            return Interruption.STALL
        if now - self._memory_checked_at > MEMORY_SECONDS:
            self._memory_checked_at = now
            self._outcome.used_bytes = self._process.memory_bytes()
            if self._outcome.used_bytes > self._outcome.memory_bytes:
                return Interruption.MEMORY
            self._outcome.excess = self._excess()
            if self._outcome.excess:
                return Interruption.EXCESS
        return None

    def _excess(self) -> str | None:
        """What uploaded code uses too much of."""
        if self._folder is None:
            return None
        if self._points > self._max_points:
            return f"it reported more than {self._max_points:,} points of metrics"
        return self._process.excess() or own_folder.excess(self._folder, settings().min_free_bytes)


def _grace_seconds(stop: Interruption) -> float:
    """Grace period before a process is killed."""
    match stop:
        case Interruption.CANCEL | Interruption.TIME_LIMIT:
            return settings().cancel_seconds
        case Interruption.DRAIN:
            return settings().drain_seconds
        case Interruption.MEMORY | Interruption.EXCESS | Interruption.STALL | Interruption.LOST:
            return 0.0
