"""Messages between supervisor and child: MessagePack with a schema, in frames of limited size.

They are not pickled: unpickling executes what the sender chose, in the process that has the database's password. A
child may run an optimizer that a user uploaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from service.specs.catalog.declaration import Declaration
from service.specs.quantities import size
from service.specs.summary import Summary

MAX_STEP = 2**31 - 1
"""The database stores steps of points in 32 bits."""
MAX_SECONDS = 1e9
"""30 years, so that no time is infinite."""

Step = Annotated[int, Meta(ge=0, le=MAX_STEP)]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
NO_NUL = r"^[^\x00]*\Z"
"""The database cannot store NUL."""
MAX_TEXT = 20_000
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=NO_NUL)]
MetricName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Columns = tuple[list[Step], list[float], list[Seconds]]
"""Steps, values and wall-clock seconds of points, of equal lengths; steps increase."""
Environment = Annotated[
    dict[
        Annotated[str, Meta(max_length=64, pattern=NO_NUL)],
        Annotated[str, Meta(max_length=1000, pattern=NO_NUL)] | int | float | bool | None,
    ],
    Meta(max_length=64),
]
"""Versions and devices of a run, flat."""


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=True):
    """Base of the messages of a child."""


class Ready(Message, frozen=True):
    """First: the engine has been imported."""


class Started(Message, frozen=True):
    """Once, before any metric: training continues after `step` (0: from the beginning)."""

    environment: Environment
    total_steps: Size | None
    step: Step
    reported: list[MetricName]
    """Metrics that have been stored for that step."""
    seconds: Seconds


class Points(Message, frozen=True):
    """New points of metrics, at least every second; without points, a sign of life."""

    step: Step
    points: dict[MetricName, Columns]


class Checkpoint(Message, frozen=True):
    """A checkpoint in the folder of the assignment, after all points up to its step."""

    step: Step
    file: Annotated[str, Meta(pattern=r"^[0-9]{1,19}\.pt\Z")]
    size_bytes: Size
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    seconds: Seconds


class CheckpointFailed(Message, frozen=True):
    """A checkpoint could not be written; the run continues."""

    text: Text


class Note(Message, frozen=True):
    """A message for the user; the run continues."""

    text: Text


class Result(Message, frozen=True):
    """The run has ended, by itself or on request."""

    summary: Summary


class Measured(Message, frozen=True):
    """The metrics of the weights that another process left, by a process that has not loaded uploaded code."""

    metrics: dict[MetricName, float]
    environment: Environment


class Checked(Message, frozen=True):
    """The outcomes of a conformance test: name, outcome and sentence of each check."""

    checks: Annotated[
        list[tuple[Annotated[str, Meta(max_length=64)], Literal["pass", "warning", "fail"], Text]], Meta(max_length=64)
    ]


class Failure(Message, frozen=True):
    """The run failed."""

    reason: Literal["out_of_memory", "child_lost", "invalid", "error"]
    """A `Reason`."""
    text: Text


class Unable(Message, frozen=True):
    """The run cannot start on this machine, which lacks its data; another one may have it."""

    text: Text


class NoEngine(Message, frozen=True):
    """This machine cannot train at all, because an import fails."""

    text: Text


class Machine(Message, frozen=True):
    """torch's version and the GPUs of this machine."""

    torch: str
    gpus: list[dict[str, Any]]


class EngineMemory(Message, frozen=True):
    """Resident memory of a child that could train a job."""

    resident_bytes: int


Received = (
    Ready
    | Started
    | Points
    | Checkpoint
    | CheckpointFailed
    | Note
    | Result
    | Measured
    | Checked
    | Failure
    | Unable
    | NoEngine
    | Machine
    | EngineMemory
)
"""Any message."""


class InvalidMessage(Exception):
    """A child has sent something other than a valid message."""


def _encode(value: Any) -> Any:
    """A value that msgspec does not know as one that it knows."""
    if isinstance(value, Summary):
        return value.model_dump(mode="json")
    raise TypeError(f"a message cannot contain a {type(value).__name__}")


def _decode(kind: type[Any], value: Any) -> Any:
    """The inverse of `_encode`."""
    assert kind is Summary
    summary = Summary.model_validate(value)
    numbers = (summary.steps, summary.parameters, summary.best_step or 0)
    texts = [summary.message or "", *summary.metrics]
    if not all(0 <= number < 2**62 for number in numbers) or any(
        len(text) > MAX_TEXT or "\0" in text for text in texts
    ):
        raise ValueError("a summary with numbers or texts that cannot be stored")
    return summary


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode)
_DECODER = msgspec.msgpack.Decoder(Received, dec_hook=_decode)


def send(pipe: Connection, message: Message) -> None:
    """Send a message to the supervisor."""
    pipe.send_bytes(_ENCODER.encode(message))


def decode(data: bytes) -> Received:
    """The message in a frame. Raises InvalidMessage if it does not follow the schema."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidMessage(str(error)) from None


CANCEL, PAUSE = b"cancel", b"pause"
"""Requests to the child: end, or write a checkpoint and end."""


@dataclass(frozen=True)
class Code:
    """A version of uploaded code."""

    declaration: Declaration
    file: str
    """Name of the file, for tracebacks."""
    source: str


@dataclass(frozen=True)
class Assignment:
    """The job of a child, and its share of the machine."""

    spec: dict[str, Any]
    data_dir: Path
    threads: int
    cuda_device: str | None
    """Value of CUDA_VISIBLE_DEVICES: a number, or the UUID of a GPU or MIG device; None without GPU."""
    memory_bytes: int | None
    """Memory that it may use beyond the training engine; None on a GPU, where CUDA reserves huge address ranges."""
    folder: Path
    """Folder of its checkpoints."""
    checkpoint_seconds: float
    resume: Path | None
    """The checkpoint to continue from."""
    code: tuple[Code, ...] = ()
    """Uploaded code that the job uses."""
    is_trusted: bool = False
    """Whether that code runs without isolation."""
    ended: Summary | None = None
    """To measure: the summary of the run that left its weights in the folder."""


@dataclass(frozen=True)
class CodeCheck:
    """The conformance test of a version of uploaded code."""

    code: Code
    folder: Path
    """Folder that the code may write to."""
    memory_bytes: int
    threads: int
    is_trusted: bool


def memory_text(used_bytes: int, limit_bytes: int) -> str:
    """A clause with the memory used beyond the training engine, its limit and the settings that define the limit."""
    limits = "memory_limit_bytes of the job, KOTRAIN_JOB_MEMORY_BYTES of the worker"
    return f"used {size(used_bytes)} of at most {size(limit_bytes)} ({limits})"
