"""Labeled records read from a file: their classes, their test part, and the checks of both."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.names import composed, is_printable
from service.errors import Invalid
from service.specs.base import Kind
from service.specs.text import counted

MIN_CLASSES, MAX_CLASSES = 2, 10_000
MIN_RECORDS, MIN_PER_CLASS = 10, 3
MAX_RECORDS = 10_000_000
"""Reading that many takes about half a minute, during which no other file is read."""
MAX_LABEL = 200
"""Characters."""
TEST_SHARE = 0.2
TEST_SEED = 0
"""Fixed, so that all runs on a data set have the same test part."""
_RECORD_BYTES = 32
"""Memory of a record besides its input: its label twice, and a pointer in two lists."""
_INTEGER = re.compile(r"-?[0-9]{1,18}")


def unfit(sentence: str) -> Invalid:
    """The error of an upload with invalid contents."""
    return Invalid.field("", sentence)


def refuse_many(records: int) -> None:
    """Raise Invalid above `MAX_RECORDS`."""
    if records > MAX_RECORDS:
        raise unfit(f"the file has more than {MAX_RECORDS:,} records, which is the limit")


class Room:
    """Counts records and their memory, up to `max_bytes`.

    Raises:
        Invalid: a limit is exceeded; raised by all methods.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records = self._bytes = 0

    def take(self, records: int, input_bytes: int) -> None:
        """Count records and the bytes of their inputs."""
        self._records += records
        self._bytes += input_bytes + records * _RECORD_BYTES
        refuse_many(self._records)
        if self._bytes > self._max_bytes:
            raise unfit(
                f"the records exceed the limit of {self._max_bytes:,} bytes of memory (KOTRAIN_MAX_DATASET_BYTES)"
            )

    def take_texts(self, texts: Sequence[str]) -> None:
        """Count texts with their size in memory: four bytes per letter if one is an emoji."""
        self.take(len(texts), sum(map(sys.getsizeof, texts)))


@dataclass(frozen=True)
class Records:
    """Inputs and labels (N,) of N records.

    `inputs` are images (N, H, W, C), uint8; rows (N, D), float64; or N texts. `is_test` (N,) marks the test part if the
    file contains one.
    """

    kind: Kind
    inputs: NDArray[Any] | list[str]
    labels: NDArray[np.int64]
    classes: list[str]
    columns: list[str] = field(default_factory=list)
    is_test: NDArray[np.bool_] | None = None
    notes: list[str] = field(default_factory=list)
    """How the file was read, in sentences, where there is more than one way."""
    warnings: list[str] = field(default_factory=list)
    """What the reader found and what may be unintended, in sentences."""

    @property
    def shape(self) -> list[int]:
        """Channels, height and width of an image; columns of a table; empty for texts."""
        if isinstance(self.inputs, list):
            return []
        if self.kind == "image":
            height, width, channels = self.inputs.shape[1:]
            return [channels, height, width]
        return [self.inputs.shape[1]]

    def inputs_of(self, rows: NDArray[np.bool_]) -> NDArray[Any] | list[str]:
        """The inputs of the marked rows."""
        if isinstance(self.inputs, list):
            return [self.inputs[row] for row in np.flatnonzero(rows)]
        return self.inputs[rows]

    def sha256(self, is_test: NDArray[np.bool_]) -> str:
        """Hash of everything that the result of a run depends on."""
        digest = hashlib.sha256(json.dumps([self.kind, self.shape, self.classes, self.columns]).encode())
        if isinstance(self.inputs, list):
            for text in self.inputs:
                digest.update(hashlib.sha256(text.encode()).digest())
        else:
            digest.update(np.ascontiguousarray(self.inputs).data)
        digest.update(self.labels.tobytes())
        digest.update(is_test.tobytes())
        return digest.hexdigest()


class ClassNames:
    """Numbers class names in order of appearance, and sorts them once all are known."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str, where: Callable[[], str]) -> int:
        """The number of a class. Raises Invalid, with the position `where()`, for an invalid name."""
        name = composed(name)
        known = self._numbers.get(name)
        if known is not None:
            return known
        if not name.strip():
            raise unfit(f"{where()}: the label is empty")
        if len(name) > MAX_LABEL:
            raise unfit(f"{where()}: the label has {len(name)} characters; at most {MAX_LABEL} are allowed")
        if not is_printable(name):
            raise unfit(f"{where()}: the label {name!r} has unprintable characters")
        if len(self._numbers) == MAX_CLASSES:
            raise unfit(
                f"{where()}: more than {MAX_CLASSES:,} different labels; labels must be classes, not numbers to predict"
            )
        return self._numbers.setdefault(name, len(self._numbers))

    def in_order(self, numbers: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
        """All names, sorted as integers if all are integers and else as text, and the labels (N,) in that order."""
        are_integers = all(_INTEGER.fullmatch(name) for name in self._numbers)
        names = sorted(self._numbers, key=(lambda name: (int(name), name)) if are_integers else None)
        place = np.zeros(len(names), np.int64)
        for position, name in enumerate(names):
            place[self._numbers[name]] = position
        return names, place[numbers] if len(names) else numbers


def rows_for_test(records: Records) -> NDArray[np.bool_]:
    """Mask of the test part: the file's own, else a fifth of each class (at least one record), drawn by a fixed seed.

    Raises Invalid if there are too few records or classes.
    """
    counts = np.bincount(records.labels, minlength=len(records.classes))
    if len(records.labels) < MIN_RECORDS:
        raise unfit(f"the file has {counted(len(records.labels), 'record')}; at least {MIN_RECORDS} are needed")
    if len(counts) < MIN_CLASSES:
        raise unfit(f"all records are of class '{records.classes[0]}'; at least {MIN_CLASSES} classes are needed")
    if counts.min() < MIN_PER_CLASS:
        rare = int(counts.argmin())
        raise unfit(
            f"class '{records.classes[rare]}' has {counted(int(counts[rare]), 'record')}; each class needs at "
            f"least {MIN_PER_CLASS}, for training, validation and test"
        )
    if records.is_test is None:
        return _drawn(records.labels, counts)
    trained = np.bincount(records.labels[~records.is_test], minlength=len(records.classes))
    if trained.min() == 0:
        raise unfit(f"class '{records.classes[int(trained.argmin())]}' has no training records; add some")
    return records.is_test


def _drawn(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A fifth of the rows of each class, at least one."""
    generator = np.random.default_rng(TEST_SEED)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    is_test = np.zeros(len(labels), np.bool_)
    for rows in by_class:
        is_test[generator.permutation(rows)[: max(1, round(TEST_SHARE * len(rows)))]] = True
    return is_test
