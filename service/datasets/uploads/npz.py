"""npz files: arrays `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`. Never a pickle."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray

from service.datasets.uploads.pixels import pixels_of, refuse_not_finite
from service.datasets.uploads.records import ClassNames, Records, refuse_many, unfit
from service.datasets.uploads.zip_archive import Archive
from service.specs.text import counted, listed

MAX_SIDE = 256
"""Maximum width and height of an image, in pixels."""
MAX_COLUMNS = 100_000
MAX_DIMENSIONS = 8
"""More than any valid array has, and fewer than numpy supports."""
MAX_CODE_POINT = 0x10FFFF
FLOAT_BYTES = 8
"""Size of a stored number of a table."""
WHOLE, TRAIN, TEST = ("x", "y"), ("x_train", "y_train"), ("x_test", "y_test")
_CHUNK_BYTES = 2**20
_LABEL_KINDS = {"b": "truth", "i": "integer", "u": "integer", "U": "text"}
_MAX_HEADER = 10_000


def read_npz(path: Path, max_bytes: int) -> Records:
    """Images, or rows of numbers if `x` has two dimensions. Raises Invalid."""
    with Archive(path, max_bytes, "npz file") as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.members}
        parts = _parts(members)
        arrays = {name: _array(archive, members[name], name) for part in parts for name in part}
    for names in parts:
        _refuse_other_length(arrays[names[0]], arrays[names[1]], names)
    refuse_many(sum(len(arrays[labels]) for _, labels in parts))
    inputs, notes, warnings = _inputs({name: arrays[name] for name, _ in parts})
    classes, numbers = _numbered({name: arrays[name] for _, name in parts})
    trained = len(arrays[parts[0][0]])
    return Records(
        "image" if inputs.ndim == 4 else "table",
        inputs,
        numbers,
        classes,
        is_test=np.arange(len(numbers)) >= trained if len(parts) > 1 else None,
        notes=notes,
        warnings=[*archive.warnings, *_warnings_of_unused(members, parts), *warnings],
    )


def _parts(members: Collection[str]) -> list[tuple[str, str]]:
    """The names of inputs and labels, of all records or of the training part and the test part.

    Raises Invalid if arrays are missing, and for arrays of both forms, of which one would be ignored.
    """
    whole, train, test = (set(members) & set(names) for names in (WHOLE, TRAIN, TEST))
    listed_names = ", ".join(sorted(members)[:10]) or "(none)"
    if whole and train:
        raise unfit(f"the npz file has the arrays {listed_names}; use x and y, or x_train and y_train, but not both")
    if len(whole or train) != 2 or len(test) == 1:
        raise unfit(
            f"the npz file has the arrays {listed_names}; it needs x and y, or x_train, y_train, x_test and y_test"
        )
    first = WHOLE if whole else TRAIN
    return [first, TEST] if test else [first]


def _warnings_of_unused(members: Collection[str], parts: Sequence[tuple[str, str]]) -> list[str]:
    unused = sorted(set(members) - {name for part in parts for name in part})
    if not unused:
        return []
    return [f"Not used: {listed(unused[:10])}. The arrays that are read are x, y, x_train, y_train, x_test and y_test."]


def _refuse_other_length(inputs: NDArray[Any], labels: NDArray[Any], names: tuple[str, str]) -> None:
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise unfit(
            f"{names[1]} has shape {labels.shape} but {names[0]} has {counted(len(inputs), 'record')}; "
            "one label per record is needed"
        )


def _array(archive: Archive, member: ZipInfo, name: str) -> NDArray[Any]:
    """Read an array whose header declares plain numbers or letters of the size of the member."""
    with archive.open(member) as file:
        shape, is_fortran, dtype = _header(file, name)
        if dtype.hasobject:
            raise unfit(
                f"array '{name}' holds Python objects, which are pickles and can run code; save it as numbers, "
                "such as x.astype('uint8'), and labels as integers or fixed-length strings"
            )
        if dtype.kind not in "biufU":
            raise unfit(f"array '{name}' is of type {dtype}; inputs must be numbers, and labels integers or strings")
        size = dtype.itemsize
        for length in shape:
            size *= length  # Python's integers do not overflow
        if size > member.file_size:
            raise unfit(f"array '{name}' declares {size:,} bytes but has {member.file_size:,}; the file is truncated")
        archive.count(size if len(shape) != 2 else max(size, FLOAT_BYTES * shape[0] * shape[1]))
        raw = bytearray(size)
        view, at = memoryview(raw), 0
        while at < size:
            piece = file.read(min(_CHUNK_BYTES, size - at))
            if not piece:
                raise unfit(f"array '{name}' ends after {at:,} of {size:,} bytes; the file is truncated")
            view[at : at + len(piece)] = piece
            at += len(piece)
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if is_fortran else "C")


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    start = io.BytesIO(file.read(_MAX_HEADER))  # bounds what numpy reads, which is as much as the header claims
    try:
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(start, max_header_size=_MAX_HEADER)
        file.seek(start.tell())
    except (ValueError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise unfit(f"array '{name}' has an invalid header ({str(error).splitlines()[0]})") from error
    if any(length < 0 for length in shape) or len(shape) > MAX_DIMENSIONS:
        raise unfit(f"array '{name}' has the invalid shape {str(shape)[:100]}")
    if 0 in shape or not dtype.itemsize:
        raise unfit(f"array '{name}' is empty: its shape is {shape} and its type {dtype}")
    refuse_many(shape[0] if shape else 0)
    return shape, is_fortran, dtype


def _inputs(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], list[str], list[str]]:
    """Images (N, H, W, C), uint8, or rows (N, D), float64, of all parts; notes and warnings."""
    for name, array in arrays.items():
        if array.dtype.kind == "U":
            raise unfit(f"array '{name}' holds strings; numbers are needed")
    if any(array.ndim == 2 for array in arrays.values()):
        _refuse_other_shape(arrays)
        tables = [rows(array, name) for name, array in arrays.items()]
        return np.concatenate(tables) if len(tables) > 1 else tables[0], [], []
    images = {name: _channels_last(array, name) for name, array in arrays.items()}
    _refuse_other_shape(images)
    return pixels_of(images)


def _refuse_other_shape(arrays: dict[str, NDArray[Any]]) -> None:
    (first, expected), *others = ((name, array.shape[1:]) for name, array in arrays.items())
    for name, shape in others:
        if shape != expected:
            raise unfit(f"records of {name} have shape {shape}, but those of {first} {expected}")


def rows(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Rows (N, D) as float64. Raises Invalid at the first number that is not finite."""
    if array.shape[1] > MAX_COLUMNS:
        raise unfit(f"'{name}' has {array.shape[1]:,} columns; at most {MAX_COLUMNS:,} are allowed")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float64)
    refuse_not_finite(converted, name)
    return converted


def _channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Images as (N, H, W, C), from (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise unfit(
            f"array '{name}' has shape {array.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
            "channels, and rows of a table (N, D)"
        )
    if max(images.shape[1:3]) > MAX_SIDE:
        raise unfit(
            f"an image of '{name}' has {images.shape[1]} x {images.shape[2]} pixels; at most {MAX_SIDE} per side"
        )
    return images


def _numbered(parts: dict[str, NDArray[Any]]) -> tuple[list[str], NDArray[np.int64]]:
    """The class names, and the labels of all arrays as their indices.

    Each array is numbered by itself: concatenated first, signed and unsigned integers would become floats.
    """
    for name, labels in parts.items():
        _refuse_labels(labels, name)
    if len({_LABEL_KINDS[labels.dtype.kind] for labels in parts.values()}) > 1:
        raise unfit(f"{' and '.join(parts)} must both be integers or both be strings")
    names = ClassNames()
    return names.in_order(np.concatenate([_numbers(labels, name, names) for name, labels in parts.items()]))


def _numbers(labels: NDArray[Any], name: str, names: ClassNames) -> NDArray[np.int64]:
    distinct, rows, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = [names.number(str(label), partial(_place, name, row)) for label, row in zip(distinct, rows, strict=True)]
    numbers: NDArray[np.int64] = np.array(order, np.int64)[inverse]
    return numbers


def _refuse_labels(labels: NDArray[Any], name: str) -> None:
    """Raise Invalid for types that cannot be labels, and for invalid code points."""
    if labels.dtype.kind not in _LABEL_KINDS:
        raise unfit(f"array '{name}' is of type {labels.dtype}; labels must be integers or strings")
    if labels.dtype.kind == "U":
        codes = labels.view(np.dtype(np.uint32).newbyteorder(labels.dtype.byteorder)).reshape(len(labels), -1)
        wrong = np.flatnonzero(codes.max(1) > MAX_CODE_POINT)
        if len(wrong):
            raise unfit(f"{_place(name, int(wrong[0]))}: the label has an invalid character")


def _place(name: str, row: int) -> str:
    return f"{name}[{row}]"
