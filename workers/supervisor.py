"""One job from claim to end: start its process, relay what it measures, stop it when asked, read how it ended."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from service import jobs
from service.config import settings
from service.jobs import Claim, Order
from service.spec import Reason, Summary, TrainSpec
from workers import entry, messages
from workers.host import Host
from workers.process import Process
from workers.relay import Relay, Track, persistently

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""How soon a cancel, a time limit or a shutdown is seen."""


class Stop(Enum):
    """Why the supervisor ends a process before it ends by itself."""

    CANCEL = auto()
    TIME_LIMIT = auto()
    DRAIN = auto()
    LOST = auto()


@dataclass
class Ending:
    """What a child said last, and how it went."""

    stop: Stop | None = None
    summary: Summary | None = None
    failure: tuple[Reason, str] | None = None
    killed_for_memory: bool = False
    unable: str | None = None
    how: str = ""
    """The end of the process in words, for when it said nothing itself."""


def supervise(claim: Claim, host: Host, relay: Relay) -> bool:
    """Train a claimed job in a process of its own and write down how it ended; returns when both are done.

    False where this machine cannot run jobs for now.
    """
    track = relay.track(claim)
    try:
        ending = _run(claim, host, track)
    except ValidationError as error:  # stored by a version that allowed it
        ending = Ending(failure=(Reason.INVALID, str(error)))
    except Exception as error:  # no process to be had: this machine's trouble, not the job's
        log.exception("job %s: no process", claim.job_id)
        ending = Ending(unable=f"worker {host.id} could not start a process: {error}")
    finally:
        relay.untrack(track)
    if ending.stop is not Stop.LOST:
        _write(claim, track, ending, host)
        host.job_ended.set()
    return ending.unable is None


def _run(claim: Claim, host: Host, track: Track) -> Ending:
    spec = TrainSpec.model_validate(claim.spec)
    with host.slot(on_gpu=spec.device != "cpu") as gpu:
        assignment = messages.Assignment(
            spec=claim.spec,
            data_dir=settings().data,
            threads=host.threads_per_job,
            cuda_device=gpu,
            memory_bytes=host.job_memory_bytes if gpu is None else None,
        )
        process = Process(entry.train_job, assignment)
        try:
            return _watch(process, claim, host, track)
        except BaseException:
            process.kill()
            process.reap()
            raise


def _watch(process: Process, claim: Claim, host: Host, track: Track) -> Ending:
    """Follow the child to its end."""
    ending = Ending()
    started = time.monotonic()
    kill_at = float("inf")
    gone = False
    while not gone:
        received, gone = process.messages(POLL_SECONDS)
        for message in received:
            _take(message, claim, track, ending)
        now = time.monotonic()
        if ending.stop is None:
            ending.stop = _stop_wanted(claim, host, track, now - started)
            if ending.stop is not None:
                process.ask_to_stop()
                kill_at = now + _grace_seconds(ending.stop)
        if ending.summary or ending.failure:  # it has said all; one that hangs while it ends is not waited for
            kill_at = min(kill_at, now + settings().cancel_seconds)
        if track.order is Order.LOST:
            ending.stop, kill_at = Stop.LOST, now
        if now >= kill_at:
            process.kill()
    code = process.reap()
    ending.killed_for_memory = process.was_killed_for_memory(code)
    ending.how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code} and no result"
    return ending


def _take(message: tuple[Any, ...], claim: Claim, track: Track, ending: Ending) -> None:
    match message:
        case (messages.POINTS, step, points):
            track.add(step, points)
        case (messages.STARTED, environment, total_steps):
            track.environment, track.total_steps = environment, total_steps
        case (messages.RESULT, summary):
            ending.summary = Summary.model_validate(summary)
        case (messages.FAILURE, reason, text):
            ending.failure = (Reason(reason), text)


def _stop_wanted(claim: Claim, host: Host, track: Track, seconds: float) -> Stop | None:
    if track.order is Order.LOST:
        return Stop.LOST
    if track.order is Order.CANCEL:
        return Stop.CANCEL
    if claim.time_limit_seconds is not None and seconds > claim.time_limit_seconds:
        return Stop.TIME_LIMIT
    return Stop.DRAIN if host.draining.is_set() else None


def _grace_seconds(stop: Stop) -> float:
    """What a process gets to end by itself; one whose job belongs to somebody else gets nothing."""
    return {
        Stop.CANCEL: settings().cancel_seconds,
        Stop.TIME_LIMIT: settings().cancel_seconds,
        Stop.DRAIN: settings().drain_seconds,
        Stop.LOST: 0.0,
    }[stop]


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
        stored = persistently(lambda session: _end(session, claim, track, ending), give_up)
    except Exception as error:  # something in what the run said cannot be stored; that much can
        log.exception("job %s: end not stored as it is", claim.job_id)
        message = f"the end of the run could not be stored: {error}"
        stored = persistently(lambda session: jobs.finish(session, claim, Reason.ERROR, message=message), give_up)
    if stored is None:
        log.error("job %s: end not stored; it will be taken back and run again", claim.job_id)


def _end(session: Session, claim: Claim, track: Track, ending: Ending) -> bool:
    """The one place that decides what the end of a process means for its job."""
    points = track.seal()
    summary, stop = ending.summary, ending.stop

    def finish(reason: Reason, message: str | None) -> bool:
        return jobs.finish(
            session,
            claim,
            reason,
            message=message,
            summary=summary and summary.model_copy(update={"reason": reason}),
            environment=track.environment,
            total_steps=track.total_steps,
            points=points,
        )

    if summary is not None and summary.reason is not Reason.CANCELLED:
        return finish(summary.reason, summary.message)  # it ended by itself, even if a stop was under way
    if ending.unable is not None:
        return jobs.give_back(session, claim, ending.unable, settings().backoff_seconds)
    if stop is Stop.CANCEL:
        return finish(Reason.CANCELLED, "cancelled while running")
    if stop is Stop.TIME_LIMIT:
        return finish(Reason.TIMED_OUT, f"stopped at its time limit of {claim.time_limit_seconds:g} s")
    if stop is Stop.DRAIN:
        return jobs.give_back(session, claim, "the worker is shutting down")
    if ending.failure is not None:
        return finish(*ending.failure)
    if ending.killed_for_memory:
        return finish(Reason.OUT_OF_MEMORY, "the kernel killed the process because the machine ran out of memory")
    return jobs.lose(session, claim.job_id, claim.attempt, Reason.CHILD_LOST, f"the training process {ending.how}")
