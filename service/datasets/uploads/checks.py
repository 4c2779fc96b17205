"""Checks of the records as stored: what training could not see, could see twice, or could see too well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.names import confusable_key
from service.datasets.scaling import ColumnScaling
from service.datasets.uploads import identifiers
from service.datasets.uploads.records import Records, unfit
from service.datasets.words import split_words
from service.specs.text import agreeing, briefly_listed, counted

UNBALANCED = 10
"""Ratio of the largest class to the smallest above which a warning is given."""
CHECKED = 100_000
"""Maximum number of rows or texts that the checks of numbers and words look at, spread over the data set."""
LOST_SHARE = 0.01
"""Share of a column's distinct values that scaling may lose: a few of many random numbers round to one."""
ALIKE_SHARE = 0.1
"""Share of distinct texts that may have the words of another text, in another case or punctuation."""
EXACT = 2**53
"""Above it, not every whole number is a 64-bit float."""
MAX_INTEGER = 2**64
"""Above it, numbers are no integers that were rounded."""
_ODD = np.int64(0x5851F42D4C957F2D)
"""Spreads labels over 64 bits."""


def warnings_of(records: Records, is_test: NDArray[np.bool_]) -> list[str]:
    """Properties that are allowed but may be unintended, in sentences.

    Raises Invalid for texts without words.
    """
    if isinstance(records.inputs, list):
        of_kind = _warnings_of_words(records.inputs)
    elif records.kind == "table":
        of_kind = [*_warnings_of_columns(records), *_warnings_of_row_numbers(records)]
    else:
        of_kind = _warnings_of_pixels(records.inputs)
    return [
        *records.warnings,
        *_warnings_of_names(records.classes),
        *_warnings_of_balance(records),
        *_warnings_of_parts(records, is_test),
        *_warnings_of_repetitions(records, is_test),
        *of_kind,
    ]


# --- classes and parts -----------------------------------------------------------------------------------------------


def _warnings_of_names(classes: Sequence[str]) -> list[str]:
    """Class names that a reader cannot easily tell apart."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(confusable_key(name), []).append(name)
    return [
        f"The classes {', '.join(map(ascii, names))} differ only in whitespace, case or form of letters; are they the "
        "same class?"
        for names in alike.values()
        if len(names) > 1
    ]


def _warnings_of_balance(records: Records) -> list[str]:
    counts = np.bincount(records.labels, minlength=len(records.classes))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[largest] <= UNBALANCED * counts[smallest]:
        return []
    share = counts[largest] / counts.sum()
    return [
        f"The classes are imbalanced: '{records.classes[largest]}' has {counted(int(counts[largest]), 'record')} and "
        f"'{records.classes[smallest]}' has {counts[smallest]:,}. Always predicting the first is right in {share:.0%}."
    ]


def _warnings_of_parts(records: Records, is_test: NDArray[np.bool_]) -> list[str]:
    """Classes without test records, in a test part of the file."""
    tested = np.bincount(records.labels[is_test], minlength=len(records.classes))
    absent = [f"'{records.classes[place]}'" for place in np.flatnonzero(tested == 0)]
    return [f"The test part has no records of {briefly_listed(absent)}."] if absent else []


def _warnings_of_repetitions(records: Records, is_test: NDArray[np.bool_]) -> list[str]:
    """Equal records, in both parts or with different labels."""
    hashes = np.fromiter(_hashes(records.inputs), np.int64, len(records.labels))
    distinct = len(np.unique(hashes))
    if distinct == 1:
        return [f"All {len(hashes):,} records are equal, so that there is nothing to learn."]
    warnings = []
    leaked = int(np.isin(hashes[is_test], hashes[~is_test]).sum())
    if leaked:
        warnings.append(
            f"{leaked:,} of {counted(int(is_test.sum()), 'test record')} also {agreeing(leaked, 'occurs', 'occur')} in "
            f"the training part, where {agreeing(leaked, 'it', 'they')} can be memorized."
        )
    labeled = len(np.unique(hashes ^ (records.labels * _ODD)))
    if labeled > distinct:
        repeated = labeled - distinct
        warnings.append(
            f"{counted(repeated, 'record')} also {agreeing(repeated, 'occurs', 'occur')} with another label."
        )
    return warnings


def _hashes(inputs: NDArray[Any] | list[str]) -> Iterator[int]:
    if isinstance(inputs, list):
        return map(hash, inputs)
    return (hash(record.tobytes()) for record in inputs)


# --- images ----------------------------------------------------------------------------------------------------------


def _warnings_of_pixels(images: NDArray[np.uint8]) -> list[str]:
    flat = images.reshape(len(images), -1, images.shape[3])
    plain = int((flat.min(1) == flat.max(1)).all(1).sum())
    return (
        [f"{plain:,} of {counted(len(images), 'image')} {agreeing(plain, 'has', 'have')} a single color."]
        if plain
        else []
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _warnings_of_columns(records: Records) -> list[str]:
    """Columns that are constant, or lose values when they are read or scaled."""
    rows: NDArray[Any] = _spread(records.inputs)
    scaled = ColumnScaling.of(rows).apply(rows)
    constant, rounded, lossy = [], [], []
    for place, name in enumerate(_column_names(records)):
        values = np.unique(rows[:, place])
        if len(values) == 1:
            constant.append(name)
        if EXACT <= np.abs(values[[0, -1]]).max() < MAX_INTEGER and (values == np.rint(values)).all():
            rounded.append(name)
        kept = len(np.unique(scaled[:, place]))
        if kept < (1 - LOST_SHARE) * len(values):
            lossy.append(f"{name} ({kept:,} of {len(values):,} different values)")
    warnings = []
    if constant:
        warnings.append(f"Constant, so that nothing can be learned from it: {briefly_listed(constant)}.")
    if rounded:
        warnings.append(f"Whole numbers above 2^53 are rounded: {briefly_listed(rounded)}.")
    if lossy:
        warnings.append(
            f"Scaled to 32 bits, values become equal: {briefly_listed(lossy)}. Extreme values hide the others; take "
            "the logarithm or remove them."
        )
    return warnings


def _warnings_of_row_numbers(records: Records) -> list[str]:
    """Columns that look like the number or the identifier of a row."""
    rows: NDArray[Any] = _spread(records.inputs)
    suspect = [
        name
        for place, name in enumerate(_column_names(records))
        if identifiers.are_numbers_of_rows(rows[:, place])
        or (place < len(records.columns) and identifiers.is_named(records.columns[place]))
    ]
    if not suspect:
        return []
    return [
        f"Different in each row, or named as a row number: {briefly_listed(suspect)}. If it identifies rows, leave "
        "it out (`drop`): where rows are ordered by class, it gives the class away."
    ]


def _spread(inputs: Any) -> Any:
    """At most `CHECKED` records, evenly spread."""
    return inputs[:: -(-len(inputs) // CHECKED)]


def _column_names(records: Records) -> list[str]:
    return [f"'{name}'" for name in records.columns] or [f"column {place}" for place in range(records.shape[0])]


# --- texts -----------------------------------------------------------------------------------------------------------


def _warnings_of_words(texts: list[str]) -> list[str]:
    """Texts without words, texts with equal words, and texts that share no word with another."""
    sample = _spread(texts)
    words = [tuple(split_words(text)) for text in sample]
    if not any(words):
        raise unfit("no text contains a word; words are runs of letters or digits, of any script")
    warnings = []
    empty = sum(not found for found in words)
    if empty:
        warnings.append(
            f"{empty:,} of {counted(len(sample), 'text')} {agreeing(empty, 'contains', 'contain')} no word (a run of "
            "letters or digits)."
        )
    different = len(set(sample))
    if len(set(words)) < (1 - ALIKE_SHARE) * different:
        warnings.append(
            f"{counted(different, 'different text')} have only {counted(len(set(words)), 'different sequence')} of "
            "words: case, punctuation and signs are not read."
        )
    texts_with = Counter(word for found in words for word in set(found))
    alone = sum(all(texts_with[word] == 1 for word in found) for found in words)
    if 2 * alone > len(sample):
        warnings.append(
            f"{alone:,} of {counted(len(sample), 'text')} share no word with another text. Words end at spaces and "
            "punctuation; separate the words of languages that are written without spaces."
        )
    return warnings
