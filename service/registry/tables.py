"""csv and parquet files: a label column, and beside it numbers (a table) or one column `text` (texts)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from service.errors import Invalid
from service.registry.arrays import MOST_COLUMNS
from service.registry.records import ClassNames, Records, unfit
from service.registry.texts import BOM, checked_text

TEXT = "text"
BLOCK_BYTES = 8 * 2**20
"""Of a csv file, read at a time: also the longest row."""
LONGEST_HEADER_BYTES = 2**22
BATCH_ROWS = 8192
FLOAT_BYTES = 4


def read_csv(path: Path, label: str, most_bytes: int) -> Records:
    """Comma-separated values, UTF-8, with one line of names. Raises Invalid with row and column."""
    names = _csv_header(path)
    reading = _Reading(names, label, first_row=2, most_bytes=most_bytes)
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    blocks = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    try:
        with pa.csv.open_csv(path, blocks, parsing, as_text) as batches:
            return reading.read(batches)
    except (pa.ArrowException, OSError) as error:
        raise unfit(_csv_trouble(str(error))) from error


def _csv_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(LONGEST_HEADER_BYTES)
    if len(line) == LONGEST_HEADER_BYTES:
        raise unfit(f"the first line has {LONGEST_HEADER_BYTES:,} bytes or more: is this a csv file?")
    try:
        names = next(csv.reader([line.removeprefix(BOM).decode()]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise unfit(f"the first line is not UTF-8 with names of columns: is this a csv file? ({error})") from error
    if not names:
        raise unfit("the file is empty, or its first line is")
    return names


def _csv_trouble(told: str) -> str:
    if "straddling" in told:
        return f"a row has more than {BLOCK_BYTES:,} bytes; is a quotation mark not closed?"
    return f"the csv file cannot be read: {told[:300]}"


def read_parquet(path: Path, label: str, most_bytes: int) -> Records:
    """A parquet file. Raises Invalid with row and column."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            about = file.metadata
            declared = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
            if declared > most_bytes:
                raise _too_large(most_bytes)
            schema = file.schema_arrow
            nested = [one.name for one in schema if pa.types.is_nested(one.type)]
            if nested:
                raise unfit(f"column '{nested[0]}' holds lists or records; numbers, labels and texts are read")
            reading = _Reading(schema.names, label, first_row=1, most_bytes=most_bytes)
            return reading.read(file.iter_batches(BATCH_ROWS, use_threads=False))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unfit(f"the parquet file cannot be read, or not all of it is there: {str(error)[:300]}") from error


def _too_large(most_bytes: int) -> Invalid:
    return unfit(f"the records take more than {most_bytes:,} bytes, which is the limit (KOTRAIN_MAX_DATASET_BYTES)")


class _Reading:
    """Makes records of batches with the columns `names`, of which `label` is that of the class.

    Rows are counted from `first_row`, as a spreadsheet shows them.
    """

    def __init__(self, names: Sequence[str], label: str, first_row: int, most_bytes: int) -> None:
        _refuse_names(names, label)
        self._columns = [name for name in names if name != label]
        self._label = label
        self._kind = "text" if self._columns == [TEXT] else "table"
        self._row, self._most_bytes, self._bytes = first_row, most_bytes, 0
        self._classes = ClassNames()

    def read(self, batches: Iterable[pa.RecordBatch]) -> Records:
        inputs: list[Any] = []
        labels = []
        for batch in self._counted(batches):
            labels.append(self._numbers(batch.column(self._label)))
            inputs.append(self._texts(batch) if self._kind == "text" else self._rows(batch))
            self._row += len(batch)
        if not labels:
            raise unfit("the file has no rows")
        classes, numbers = self._classes.in_order(np.concatenate(labels))
        if self._kind == "text":
            return Records("text", [text for part in inputs for text in part], numbers, classes)
        return Records("table", np.concatenate(inputs), numbers, classes, self._columns)

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Those that have rows, as long as all together are not too large."""
        for batch in batches:
            is_text = self._kind == "text"
            self._bytes += batch.nbytes if is_text else FLOAT_BYTES * len(batch) * len(self._columns)
            if self._bytes > self._most_bytes:
                raise _too_large(self._most_bytes)
            if len(batch):
                yield batch

    def _numbers(self, column: pa.Array) -> NDArray[np.int64]:
        """Numbers of the classes, for now in the order in which they come."""
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        plain = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
        if not any(fits(kind) for fits in plain):
            raise unfit(f"the label column '{self._label}' is of type {kind}; labels are integers or texts")
        self._refuse_nulls(column, self._label)
        encoded = column.cast(kind).dictionary_encode()
        places = encoded.indices.to_numpy()
        first = {int(value): int(at) for value, at in zip(*np.unique(places, return_index=True), strict=True)}
        numbers = [
            self._classes.number(str(value), self._place(first.get(index, 0), self._label))
            for index, value in enumerate(encoded.dictionary.to_pylist())
        ]
        found: NDArray[np.int64] = np.array(numbers, np.int64)[places]
        return found

    def _texts(self, batch: pa.RecordBatch) -> list[str]:
        column = batch.column(TEXT)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise unfit(f"column '{TEXT}' is of type {column.type}; it has to hold texts")
        self._refuse_nulls(column, TEXT)
        return [checked_text(text, self._place(row, TEXT)) for row, text in enumerate(column.to_pylist())]

    def _rows(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        found = np.empty((len(batch), len(self._columns)), np.float32)
        for index, name in enumerate(self._columns):
            with np.errstate(over="ignore"):
                found[:, index] = self._floats(batch.column(name), name)
        is_finite = np.isfinite(found)
        if not is_finite.all():
            row, index = np.argwhere(~is_finite)[0]
            name = self._columns[index]
            raise unfit(
                f"{self._place(row, name)}: {batch.column(name)[row]} is no finite number that fits into 32 bits"
            )
        return found

    def _floats(self, column: pa.Array, name: str) -> NDArray[np.float64]:
        self._refuse_nulls(column, name)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
        try:
            numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except pa.ArrowException as error:
            row = next((row for row, value in enumerate(column) if not _is_number(value)), 0)
            value = str(column[row])
            told = "is empty" if not value else f"is not a number: '{value[:50]}'"
            hint = f" (for texts, have the columns '{TEXT}' and '{self._label}' alone)" if name == TEXT else ""
            raise unfit(f"{self._place(row, name)} {told}{hint}") from error
        return numbers

    def _refuse_nulls(self, column: pa.Array, name: str) -> None:
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise unfit(f"{self._place(row, name)} is empty")

    def _place(self, row: int, name: str) -> str:
        return f"row {self._row + row}, column '{name}'"


def _refuse_names(names: Sequence[str], label: str) -> None:
    """Raise Invalid where the columns cannot be told apart, or there is nothing to learn from."""
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise unfit(f"column {number} has no name; if it is an index that was written along, leave it out")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise unfit(f"two columns are called '{twice[0][:100]}'")
    if label not in names:
        shown = ", ".join(f"'{name[:50]}'" for name in names[:10]) + (", ..." if len(names) > 10 else "")
        hint = "; are the values separated by commas?" if len(names) == 1 else ""
        raise Invalid.field("label", f"there is no column '{label}' with the classes; there are {shown}{hint}")
    if len(names) < 2:
        raise unfit(f"there is no column beside '{label}'")
    if len(names) - 1 > MOST_COLUMNS:
        raise unfit(f"there are {len(names):,} columns; at most {MOST_COLUMNS:,} are allowed")


def _is_number(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.float64())
    except pa.ArrowException:
        return False
    return True
