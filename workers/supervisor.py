"""One job from claim to end: start its process, relay what it measures, stop it when asked, read how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import checkpoints, claims, outcomes
from service.jobs.checkpoints import Written, name_of
from service.jobs.claims import Claim
from service.jobs.heartbeats import Instruction
from service.specs.outcome import Summary
from service.specs.states import Reason
from service.specs.training import TrainSpec
from service.storage.files import Absent, store
from workers import entry, messages
from workers.checkpoint_transfer import Unwanted, Uploads, newest_sound
from workers.heartbeat import Relay, Track, retry_while_database_is_down
from workers.host import Host
from workers.process import Process

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""How soon a cancel, a time limit or a shutdown is seen."""
MEMORY_SECONDS = 0.5
"""Between looks at a process's memory."""
UNKILLABLE_SECONDS, DYING_SECONDS = 30.0, 3.0
"""A process that is still there so long after it was killed waits for a device or a disk that hangs; the second where
the worker shuts down."""


class Interruption(Enum):
    """Why the supervisor ends a process before it ends by itself."""

    CANCEL = auto()
    TIME_LIMIT = auto()
    DRAIN = auto()
    MEMORY = auto()
    STALL = auto()
    LOST = auto()


@dataclass
class Ending:
    """What a child said last, and how it went."""

    stop: Interruption | None = None
    summary: Summary | None = None
    failure: tuple[Reason, str] | None = None
    killed_for_memory: bool = False
    memory_bytes: int = 0
    """What its processes may take."""
    unable: str | None = None
    """Why this machine cannot run this job for now."""
    how: str = ""
    """The end of the process in words, for when it said nothing itself."""

    @property
    def says_all(self) -> bool:
        """Whether nothing more is to come from the process."""
        return self.summary is not None or self.failure is not None or self.unable is not None


class Interrupted(Exception):
    """The attempt is over before its process has begun to train; nothing of it may be stored but that."""

    def __init__(self, stop: Interruption) -> None:
        super().__init__(stop.name)
        self.stop = stop


def supervise(claim: Claim, host: Host, relay: Relay) -> bool:
    """Train a claimed job in a process of its own and write down how it ended; returns when that is done.

    False where this machine cannot run jobs for now.
    """
    track, ending = relay.track(claim), Ending()
    is_able = True
    try:
        _run(claim, host, track, ending)
    except ValidationError as error:  # stored by a version that allowed it
        ending.failure = (Reason.INVALID, str(error))
    except Interrupted as interruption:
        ending.stop = interruption.stop
    except Exception as error:  # no process to be had, no store: this machine's trouble, not the job's
        log.exception("job %s: not trained to its end", claim.job_id)
        is_able = False
        if ending.summary is None and ending.failure is None:  # else it has an end, whatever went wrong after that
            ending.unable = f"worker {host.id} could not run it: {error}"
    finally:
        relay.untrack(track)
    if ending.stop is not Interruption.LOST:
        _write(claim, track, ending, host)
        host.job_ended.set()
    return is_able


def _run(claim: Claim, host: Host, track: Track, ending: Ending) -> None:
    spec = TrainSpec.model_validate(claim.spec)
    with host.slot(on_gpu=spec.device != "cpu") as gpu:
        try:
            resume = _checkpoint(claim, host, track) if claim.attempt > 1 else None
        except Absent as absence:
            ending.unable = f"{claims.WAITS}: {absence}, on worker {host.id}"
            return
        memory_bytes = min(claim.memory_limit_bytes or host.job_memory_bytes, host.job_memory_bytes)
        ending.memory_bytes = memory_bytes
        assignment = messages.Assignment(
            spec=claim.spec,
            data_dir=settings().data,
            threads=host.threads_per_job,
            cuda_device=gpu,
            memory_bytes=memory_bytes if gpu is None else None,
            folder=store().path(name_of(claim.job_id, claim.attempt)),
            checkpoint_seconds=settings().checkpoint_seconds,
            resume=resume,
        )
        process = Process(entry.train_job, assignment)
        try:
            _Watch(process, claim, host, track, ending).to_the_end()
        except BaseException:
            process.kill()
            process.reap(UNKILLABLE_SECONDS)
            raise
        finally:
            if resume is not None:
                store().forget(resume)


def _checkpoint(claim: Claim, host: Host, track: Track) -> Path | None:
    """Where on this machine the checkpoint lies that the job goes on from; None where it has to begin anew.

    Raises Absent for as long as one that is not there is worth waiting for: its disk, or the host that has it.
    """
    is_draining = host.draining.is_set
    rows = retry_while_database_is_down(lambda session: checkpoints.newest_first(session, claim.job_id), is_draining)
    if rows is None:  # to start from the beginning would be a waste of what is there
        raise Interrupted(Interruption.DRAIN)
    try:
        return newest_sound(rows, track, lambda: track.instruction is not Instruction.CONTINUE or is_draining())
    except Unwanted:
        stops = {
            Instruction.LOST: Interruption.LOST,
            Instruction.CANCEL: Interruption.CANCEL,
            Instruction.CONTINUE: Interruption.DRAIN,
        }
        raise Interrupted(stops[track.instruction]) from None
    except Absent:
        waited = retry_while_database_is_down(lambda session: claims.waited_seconds(session, claim.job_id), is_draining)
        if waited is None:
            raise Interrupted(Interruption.DRAIN) from None
        if waited < settings().stall_seconds:
            raise
        return None


class _Watch:
    """A running child: what it says, how long it may go on, and how it ends."""

    def __init__(self, process: Process, claim: Claim, host: Host, track: Track, ending: Ending) -> None:
        self._process, self._claim, self._host, self._track, self._ending = process, claim, host, track, ending
        self._uploads = Uploads(track)
        self._kill_at = self._drain_until = float("inf")
        self._started = self._heard_at = self._weighed_at = time.monotonic()

    def to_the_end(self) -> None:
        """Follow the child to its end."""
        ending = self._ending
        gone = False
        while not gone and time.monotonic() < self._kill_at + self._dying_seconds():
            is_full = self._track.is_full
            received, gone = self._process.messages(POLL_SECONDS, listens=not is_full)
            for message in received:
                self._take(message)
            now = time.monotonic()
            if received or is_full:
                self._heard_at = now
            self._uploads.look()
            self._stop_where_wanted(now)
            if ending.says_all:  # one that hangs while it ends is not waited for
                self._kill_at = min(self._kill_at, now + settings().cancel_seconds)
            if now >= self._kill_at:
                self._process.kill()
        code = self._process.reap(0) if gone else None
        if code is not None:
            ending.killed_for_memory = self._process.was_killed_for_memory(code)
            ending.how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code} and no result"
        else:
            log.error("job %s: process %d was killed and does not end", self._claim.job_id, self._process.pid)
            ending.how = "was killed and does not end: it waits for a device or a disk"
        self._finish_uploads()

    def _dying_seconds(self) -> float:
        """How long a process that was killed is waited for."""
        return DYING_SECONDS if self._host.draining.is_set() else UNKILLABLE_SECONDS

    def _finish_uploads(self) -> None:
        """What another attempt is to go on from has to arrive; a cancel and a shutdown do not wait for it for long."""
        until = self._drain_until
        while _goes_on(self._ending) and self._track.instruction is Instruction.CONTINUE and not self._uploads.are_done:
            now = time.monotonic()
            if self._host.draining.is_set():
                until = min(until, now + settings().drain_seconds)
            if now > until:
                return
            time.sleep(POLL_SECONDS)
            self._uploads.look()

    def _take(self, message: tuple[Any, ...]) -> None:
        track, ending = self._track, self._ending
        match message:
            case (messages.POINTS, step, points):
                track.add(step, points)
            case (messages.STARTED, environment, total_steps, step, told, seconds):
                track.environment, track.total_steps, track.step = environment, total_steps, step
                self._started = time.monotonic() - seconds  # a time limit is that of the run, not of the attempt
                if self._claim.attempt > 1:
                    self._begin(step, told)
            case (messages.CHECKPOINT, step, file, size_bytes, sha256, seconds):
                name = name_of(self._claim.job_id, self._claim.attempt, file)
                self._uploads.add(Written(step, name, size_bytes, sha256, seconds))
            case (messages.NOTE, text):
                track.add_note(text)
            case (messages.RESULT, summary):
                ending.summary = Summary.model_validate(summary)
            case (messages.UNABLE, text):
                ending.unable = f"worker {self._host.id} cannot train it: {text}"
            case (messages.FAILURE, reason, text):
                ending.failure = (Reason(reason), text)

    def _begin(self, step: int, told: Collection[str]) -> None:
        """Before anything of this attempt is stored, what the one before it left beyond its start has to go."""
        draining = self._host.draining.is_set
        began = retry_while_database_is_down(lambda session: claims.begin(session, self._claim, step, told), draining)
        if began is None:  # nothing may be stored of this attempt: the next one goes on where it would have
            raise Interrupted(Interruption.DRAIN)
        if not began:
            self._track.instruction = Instruction.LOST

    def _stop_where_wanted(self, now: float) -> None:
        """Ask the child to stop, or kill it where it gets no time for that."""
        if self._track.instruction is Instruction.LOST:
            self._ending.stop, self._kill_at = Interruption.LOST, min(self._kill_at, now)
        elif self._ending.stop is None:
            self._ending.stop = self._stop_wanted(now)
            if self._ending.stop is not None:
                self._kill_at = now + _grace_seconds(self._ending.stop)
                if self._ending.stop is Interruption.DRAIN:
                    self._drain_until = self._kill_at
                    self._process.ask(messages.PAUSE)
                else:
                    self._process.ask(messages.CANCEL)

    def _stop_wanted(self, now: float) -> Interruption | None:
        limit = self._claim.time_limit_seconds
        if self._track.instruction is Instruction.CANCEL:
            return Interruption.CANCEL
        if limit is not None and now - self._started > limit:
            return Interruption.TIME_LIMIT
        if self._host.draining.is_set():
            return Interruption.DRAIN
        if now - self._heard_at > settings().stall_seconds:
            return Interruption.STALL
        if now - self._weighed_at > MEMORY_SECONDS:
            self._weighed_at = now
            if self._process.takes_more_than(self._ending.memory_bytes):
                return Interruption.MEMORY
        return None


def _goes_on(ending: Ending) -> bool:
    """Whether there may be another attempt after one that ended like this."""
    if ending.stop is Interruption.DRAIN:
        return ending.summary is None or ending.summary.reason is Reason.CANCELLED
    if ending.stop not in (None, Interruption.STALL) or ending.summary is not None:
        return False
    return ending.failure is None or ending.failure[0] is Reason.CHILD_LOST


def _grace_seconds(stop: Interruption) -> float:
    """What a process gets to end by itself."""
    match stop:
        case Interruption.CANCEL | Interruption.TIME_LIMIT:
            return settings().cancel_seconds
        case Interruption.DRAIN:
            return settings().drain_seconds
        case Interruption.MEMORY | Interruption.STALL | Interruption.LOST:
            return 0.0


def _write(claim: Claim, track: Track, ending: Ending, host: Host) -> None:
    """Store the end of the attempt, waiting for a database that is away until the worker itself has to go."""
    deadline = None

    def give_up() -> bool:
        nonlocal deadline
        if not host.draining.is_set():
            return False
        deadline = deadline or time.monotonic() + settings().drain_seconds
        return time.monotonic() > deadline

    try:
        stored = retry_while_database_is_down(lambda session: _end(session, claim, track, ending), give_up)
    except Exception as error:  # something in what the run said cannot be stored; that much can
        log.exception("job %s: end not stored as it is", claim.job_id)
        message = f"the end of the run could not be stored: {error}"
        stored = retry_while_database_is_down(
            lambda session: outcomes.finish(session, claim, Reason.ERROR, message=message), give_up
        )
    if stored is None:
        log.error("job %s: end not stored; it will be taken back and run again", claim.job_id)


def _end(session: Session, claim: Claim, track: Track, ending: Ending) -> bool:
    """The one place that decides what the end of a process means for its job."""
    batches = track.seal()
    summary, stop = ending.summary, ending.stop

    def finish(reason: Reason, message: str | None) -> bool:
        return outcomes.finish(
            session,
            claim,
            reason,
            message=message,
            summary=summary and summary.model_copy(update={"reason": reason}),
            environment=track.environment,
            total_steps=track.total_steps,
            batches=batches,
        )

    def lose(reason: Reason, message: str) -> bool:
        return outcomes.fail(session, claim.job_id, claim.attempt, reason, message, batches)

    if summary is not None and summary.reason is not Reason.CANCELLED:
        return finish(summary.reason, summary.message)  # it ended by itself, even if a stop was under way
    if ending.unable is not None:
        wait_seconds = settings().backoff_seconds * 2.0 ** min(claim.attempt - 1, 6)
        return outcomes.requeue(session, claim, ending.unable, wait_seconds, batches)
    match stop:
        case Interruption.CANCEL:
            return finish(Reason.CANCELLED, "cancelled while running")
        case Interruption.TIME_LIMIT:
            return finish(Reason.TIMED_OUT, f"stopped at its time limit of {claim.time_limit_seconds:g} s")
        case Interruption.DRAIN if ending.failure is None:
            return outcomes.requeue(session, claim, "the worker is shutting down", batches=batches)
        case Interruption.MEMORY:
            limit = messages.may_have(ending.memory_bytes)
            return finish(Reason.OUT_OF_MEMORY, f"its processes took too much memory ({limit})")
        case Interruption.STALL:
            silence = f"{settings().stall_seconds:g} s (KOTRAIN_STALL_SECONDS of the worker)"
            return lose(Reason.CHILD_LOST, f"the training process said nothing for {silence}")
    if ending.failure is not None:
        reason, message = ending.failure
        return lose(reason, message) if reason is Reason.CHILD_LOST else finish(reason, message)
    if ending.killed_for_memory:
        return lose(
            Reason.OUT_OF_MEMORY, "the kernel killed the training process because the machine ran out of memory"
        )
    return lose(Reason.CHILD_LOST, f"the training process {ending.how}")
