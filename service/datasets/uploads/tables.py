"""csv and parquet files: a label column, and columns of numbers (a table) or one column `text` (texts)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from service.datasets.names import composed, is_printable
from service.datasets.uploads import identifiers
from service.datasets.uploads.columns import MAX_PROBLEMS, TEXT, Columns, refuse, refuse_choices, refuse_names
from service.datasets.uploads.jsonl import BOM, TO_UTF8
from service.datasets.uploads.npz import FLOAT_BYTES
from service.datasets.uploads.records import MAX_CLASSES, ClassNames, Records, Room, unfit
from service.errors import Invalid
from service.specs.text import listed

GAP = "is empty; fill gaps, for example with the median of the column"
Converted = TypeVar("Converted")
Convert = Callable[[pa.Array, str], Converted]
BLOCK_BYTES = 8 * 2**20
"""Block size for reading csv, which is also the maximum length of a row."""
MAX_HEADER_BYTES = 2**22
BATCH_ROWS, BATCH_CELLS = 8192, 2**22
"""Maximum numbers of rows and cells that are converted at a time."""
MAX_NUMBER_BYTES = 1000
"""Maximum length of a number as text, with the spaces around it."""
BATCH_BYTES = 32 * 2**20
"""Maximum size of the texts of a parquet file that are unpacked at a time, and of one row."""


def read_csv(path: Path, columns: Columns, max_bytes: int) -> Records:
    """Read comma-separated values in UTF-8 with a header line. Raises Invalid with row and column of all problems."""
    names = _csv_header(path)
    reading = _Reading(names, columns, lambda record: _csv_row(path, record), max_bytes)
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    blocks = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    try:
        with pa.csv.open_csv(path, blocks, parsing, as_text) as batches:
            return reading.read(batches, [])
    except (pa.ArrowException, OSError) as error:
        raise unfit(_csv_trouble(path, str(error))) from error


def _csv_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    if len(line) == MAX_HEADER_BYTES:
        raise unfit(f"the first line has {MAX_HEADER_BYTES:,} bytes or more; is this a csv file?")
    try:
        names = next(csv.reader([line.removeprefix(BOM).decode()]), [])
    except UnicodeDecodeError as error:
        raise unfit(f"the first line is not UTF-8; {TO_UTF8}") from error
    except csv.Error as error:
        raise unfit(f"the first line is not a header with column names; is this a csv file? ({error})") from error
    for name in names:
        if not is_printable(name.replace("\t", " ") if len(names) == 1 else name):
            raise unfit(f"the column name {name[:40]!r} in the first line is unprintable; is this a csv file?")
    if not names:
        raise unfit("the first line is empty; it must contain the column names")
    return names


def _csv_row(path: Path, record: int) -> int:
    """The row number that a spreadsheet shows for a record: from 1, with the header and empty lines counted."""
    left = record + 1  # records before it, and the header
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row, fields in enumerate(csv.reader(file), 1):
                left -= bool(fields)
                if left < 0:
                    return row
    except csv.Error:  # a field exceeds the limit of Python's reader
        pass
    return record + 2


def _csv_trouble(path: Path, message: str) -> str:
    if "straddling" in message:
        return f"a row has more than {BLOCK_BYTES:,} bytes; is a closing quotation mark missing?"
    message = message.replace("invalid UTF8 data", f"not UTF-8; {TO_UTF8}")
    placed = re.sub(r"Row #(\d+)", lambda match: f"row {_csv_row(path, int(match[1]) - 2)}", message)
    return f"the csv file cannot be read: {placed[:300]}"


def read_parquet(path: Path, columns: Columns, max_bytes: int) -> Records:
    """Read a parquet file. Raises Invalid with row and column of all problems."""
    try:
        metadata = pa.parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        index = [name for name in _index_columns(schema) if composed(name) != composed(columns.label)]
        names = [name for name in schema.names if name not in index]
        dropped = {composed(name) for name in columns.drop}
        _refuse_types([schema.field(name) for name in names if composed(name) not in dropped])
        reading = _Reading(names, columns, lambda record: record + 1, max_bytes)
        Room(max_bytes).take(
            0, sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        )
        rows = max(1, min(BATCH_ROWS, BATCH_CELLS // len(names)))
        # Texts stay dictionary-encoded, so that one repeated a million times takes its memory once until it is counted.
        with pa.parquet.ParquetFile(path, metadata=metadata, read_dictionary=schema.names) as file:
            batches = file.iter_batches(rows, columns=names, use_threads=False)
            return reading.read(
                batches, [f"The index that pandas stored ({listed(index)}) is left out."] if index else []
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unfit(_parquet_trouble(str(error))) from error


def _parquet_trouble(message: str) -> str:
    if "DictAccumulator" in message:
        return "strings in delta encoding are not supported; write the parquet file with plain or dictionary encoding"
    return f"the parquet file is damaged or incomplete: {message[:300]}"


def _index_columns(schema: pa.Schema) -> list[str]:
    """The columns in which pandas stores the index of a data frame, by its metadata."""
    try:
        described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        return [name for name in schema.names if name in described.get("index_columns", [])]
    except (ValueError, AttributeError, TypeError):  # not as pandas writes it
        return []


def _refuse_types(schema: Sequence[pa.Field]) -> None:
    """Raise Invalid for columns that hold neither numbers nor texts."""
    problems = []
    for column in schema:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_nested(column.type):
            problems.append(f"column '{column.name}' holds nested values; columns must hold numbers or strings")
        elif not any(fits(kind) for fits in (*_OTHERS, _is_text)):
            problems.append(f"column '{column.name}' is of type {kind}; columns must hold numbers or strings")
    refuse(problems)


_YES_AND_NO = frozenset({"yes", "no", "y", "n", "t", "f", "on", "off"})
_OTHERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


class _Reading:
    """Converts batches with the columns `names` to records.

    `row_of` maps the index of a record, from 0, to its row number in error messages. The first problem of each column
    is kept until the whole file has been read.
    """

    def __init__(self, names: Sequence[str], columns: Columns, row_of: Callable[[int], int], max_bytes: int) -> None:
        self._names, label = [composed(name) for name in names], composed(columns.label)
        dropped, kept = ({composed(name) for name in chosen} for chosen in (columns.drop, columns.keep))
        refuse_choices(self._names, label, {"drop": dropped, "keep": kept})
        refuse_names(self._names, label, dropped)
        self._columns = [name for name in self._names if name not in dropped and name != label]
        self._label = label
        self._problems: dict[str, str] = {}
        self._suspects: dict[str, list[NDArray[np.float64]]] = {
            name: [] for name in self._columns if identifiers.is_named(name) and name not in kept
        }
        self._kind = "text" if self._columns == [TEXT] else "table"
        self._first, self._row_of = 0, row_of
        self._classes = ClassNames()
        self._room = Room(max_bytes)

    def read(self, batches: Iterable[pa.RecordBatch], notes: list[str]) -> Records:
        """All records, with `notes` on how the file is read."""
        inputs: list[Any] = []
        labels = []
        for batch in self._parts(batches):
            numbers = self._tried(self._label, batch, self._numbers)
            if self._kind == "text":
                texts = self._tried(TEXT, batch, self._texts)
                inputs += texts or []
            else:
                self._room.take(len(batch), FLOAT_BYTES * len(batch) * len(self._columns))
                rows = self._rows(batch)
                inputs += [] if rows is None else [rows]
            labels += [] if numbers is None else [numbers]
            self._first += len(batch)
            if len(self._problems) > MAX_PROBLEMS:
                break  # for each, the file is read to find the row
        self._ask_about_identifiers()
        refuse([self._problems[name] for name in self._names if name in self._problems])
        if not labels:
            raise unfit("the file has no rows")
        classes, numbers = self._classes.in_order(np.concatenate(labels))
        if self._kind == "text":
            return Records("text", inputs, numbers, classes, notes=notes)
        return Records("table", np.concatenate(inputs), numbers, classes, self._columns, notes=notes)

    def _tried(
        self, name: str, batch: pa.RecordBatch, convert: Callable[[pa.Array, str], Converted]
    ) -> Converted | None:
        """The converted column, or None if it has a problem, of which the first is kept."""
        if name in self._problems:
            return None
        try:
            return convert(batch.column(name), name)
        except Invalid as problem:
            self._problems[name] = problem.detail
            return None

    def _ask_about_identifiers(self) -> None:
        """Make problems of columns that are named like identifiers and whose whole numbers all differ."""
        for name, parts in self._suspects.items():
            if name not in self._problems and parts and identifiers.are_distinct(np.concatenate(parts)):
                self._problems[name] = (
                    f"does column '{name}' identify the rows? All its values differ, and a model could memorize them: "
                    f"leave it out with drop={name}, or read it as numbers with keep={name}"
                )

    def _parts(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Slices that are small enough to be converted, with dictionaries decoded to texts."""
        for named in batches:
            batch = named.rename_columns(self._names)
            for start in range(0, len(batch), BATCH_ROWS):
                yield from map(_decoded, self._small(batch.slice(start, BATCH_ROWS)))

    def _small(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Halve the batch until the decoded texts of each part take at most `BATCH_BYTES`."""
        if _decoded_bytes(batch) <= BATCH_BYTES:
            yield batch
            return
        if len(batch) == 1:
            raise unfit(f"row {self._row_of(self._first)} has more than {BATCH_BYTES:,} bytes")
        half = len(batch) // 2
        yield from self._small(batch.slice(0, half))
        yield from self._small(batch.slice(half))

    def _numbers(self, column: pa.Array, name: str) -> NDArray[np.int64]:
        """Class numbers, in order of first appearance."""
        if not any(fits(column.type) for fits in (pa.types.is_integer, pa.types.is_boolean, _is_text)):
            raise unfit(
                f"the label column '{self._label}' is of type {column.type}; labels must be integers or strings"
            )
        self._refuse_nulls(column, name)
        encoded = column.dictionary_encode()
        places = encoded.indices.to_numpy()
        first = np.unique(places, return_index=True)[1]
        names = encoded.dictionary.slice(
            0, MAX_CLASSES + 1
        ).to_pylist()  # one more than allowed, so that it is rejected
        numbers = [
            self._classes.number(str(value), partial(self._place, int(row), name))
            for value, row in zip(names, first, strict=False)
        ]
        labels: NDArray[np.int64] = np.array(numbers, np.int64)[places]
        return labels

    def _texts(self, column: pa.Array, name: str) -> list[str]:
        if not _is_text(column.type):
            raise unfit(f"column '{name}' is of type {column.type}; it must hold strings")
        self._refuse_nulls(column, name)
        texts: list[str] = column.to_pylist()
        self._room.take_texts(texts)
        empty = next((row for row, text in enumerate(texts) if not text or text.isspace()), None)
        if empty is not None:
            raise unfit(f"{self._place(empty, name)}: the text is empty")
        return texts

    def _rows(self, batch: pa.RecordBatch) -> NDArray[np.float64] | None:
        """The columns of numbers; None once one of them has a problem."""
        rows = np.empty((len(batch), len(self._columns)), np.float64)
        for index, name in enumerate(self._columns):
            numbers = self._tried(name, batch, self._floats)
            if numbers is None:
                continue
            rows[:, index] = numbers
            if name in self._suspects:
                self._suspects[name].append(numbers)
        return None if self._problems else rows

    def _floats(self, column: pa.Array, name: str) -> NDArray[np.float64]:
        self._refuse_nulls(column, name, GAP)
        if _is_text(column.type):
            long = np.flatnonzero(pc.binary_length(column).to_numpy() > MAX_NUMBER_BYTES)
            if len(long):
                raise unfit(
                    f"{self._place(int(long[0]), name)} has more than {MAX_NUMBER_BYTES:,} bytes; write a number"
                )
            column = _truth_as_numbers(pc.utf8_trim_whitespace(column))
        try:
            numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except pa.ArrowException as error:
            row = next((row for row, value in enumerate(column) if not _is_number(value)), 0)
            value = str(column[row])
            message = f"is not a number: '{value[:50]}'; {self._hint(column, name, value)}" if value else GAP
            raise unfit(f"{self._place(row, name)} {message}") from error
        is_finite = np.isfinite(numbers)
        if not is_finite.all():
            row = int(np.argmin(is_finite))
            raise unfit(f"{self._place(row, name)}: {column[row]} is not a finite number")
        return numbers

    def _hint(self, column: pa.Array, name: str, value: str) -> str:
        """What to write instead of a value that is not a number."""
        if name == TEXT:
            return f"a text data set has only the columns '{TEXT}' and '{self._label}'"
        if value.casefold() in _YES_AND_NO:
            return "write 1 and 0, or true and false"
        if identifiers.is_named(name) or (
            len(column) >= identifiers.MANY and pc.count_distinct(column).as_py() == len(column)
        ):
            return f"if it identifies the rows, leave it out with drop={name}"
        return f"write a column of 1 and 0 for each category, or leave it out with drop={name}"

    def _refuse_nulls(self, column: pa.Array, name: str, message: str = "is empty") -> None:
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise unfit(f"{self._place(row, name)} {message}")

    def _place(self, row: int, name: str) -> str:
        return f"row {self._row_of(self._first + row)}, column '{name}'"


def _truth_as_numbers(column: pa.Array) -> pa.Array:
    """The texts true and false, in any case of letters, as 1 and 0; other texts unchanged."""
    lower = pc.utf8_lower(column)
    return pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", column))


def _decoded_bytes(batch: pa.RecordBatch) -> int:
    """Size of the texts of all dictionary columns after decoding."""
    return sum(
        pc.sum(pc.binary_length(column.dictionary).cast(pa.int64()).take(column.indices)).as_py() or 0
        for column in batch.columns
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)
    )


def _decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    columns = [column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column for column in columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _is_number(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.float64())
    except pa.ArrowException:
        return False
    return True
