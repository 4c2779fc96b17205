"""Pixels of arrays as bytes: one scale for all parts of a data set."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.uploads.records import unfit
from service.specs.text import agreeing, listed

PART_RECORDS = 4096
"""Records converted at a time, so that no second copy of the whole array is made."""
MAX_OVERSHOOT = 0.25
"""Share of their range by which floats may leave it: filters that resize or sharpen images overshoot at edges."""
MAX_SHARE_OUTSIDE = 0.05
"""Share of the floats that may."""
MIN_BRIGHTEST = 32
"""Fractions of which none reaches this value are hardly meant from 0 to 255: rounded, few levels would be left."""

_KINDS = {"b": "truth", "i": "integer", "u": "integer", "f": "float"}
"""numpy's kind of a type -> kind of pixel."""


def pixels_of(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.uint8], list[str], list[str]]:
    """Images (N, H, W, C) of all parts as uint8, a note on their scale, and warnings.

    The scale is found from the values of all parts: 0 to 255 for integers, 0 to 1 or 0 to 255 for floats. Raises
    Invalid if the values fit neither.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            refuse_not_finite(array, name)
    kind = _kind(arrays)
    if kind == "truth":
        return _converted(arrays, 255), ["Pixels are read as false (black) and true (white)."], []
    ranges = {name: (float(array.min()), float(array.max())) for name, array in arrays.items()}
    low, high = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
    if kind == "integer":
        if low < 0 or high > 255:
            raise _off_scale(arrays, low, high)
        return _converted(arrays, 1), [], []
    _refuse_two_scales(ranges)
    are_whole = _are_whole(arrays)
    top = 1 if high <= 1 or (high <= 1 + MAX_OVERSHOOT and not are_whole) else 255
    outside, size = _outside(arrays, top), sum(array.size for array in arrays.values())
    is_between_scales = top == 255 and high < MIN_BRIGHTEST and not are_whole
    is_cut = low < -MAX_OVERSHOOT * top or high > (1 + MAX_OVERSHOOT) * top or outside > MAX_SHARE_OUTSIDE * size
    if is_between_scales or is_cut:
        raise _off_scale(arrays, low, high)
    warnings = []
    if outside:
        are = agreeing(outside, "is", "are")
        ends = f"{low:.8g} to {high:.8g}"
        warnings = [f"{outside:,} of {size:,} pixel values {are} outside 0 to {top} ({ends}) and {are} cut."]
    return _converted(arrays, 255 // top), [f"Pixels are read as numbers from 0 to {top}."], warnings


def refuse_not_finite(array: NDArray[Any], name: str, first: int = 0) -> None:
    """Raise Invalid with the place of the first NaN or infinity; row numbers start at `first`."""
    for start in range(0, len(array), PART_RECORDS):
        is_finite = np.isfinite(array[start : start + PART_RECORDS])
        if not is_finite.all():
            row, *rest = (int(place) for place in np.argwhere(~is_finite)[0])
            place = [start + row + first, *rest]
            value = array[start + row, *rest]
            raise unfit(f"{name}[{', '.join(map(str, place))}] is {value}; all numbers must be finite")


def _kind(arrays: dict[str, NDArray[Any]]) -> str:
    """The kind of number of all arrays. Raises Invalid if it differs, because their scales then differ, too."""
    kinds = {name: _KINDS[array.dtype.kind] for name, array in arrays.items()}
    if len(set(kinds.values())) > 1:
        types = listed([f"{name} is of type {array.dtype}" for name, array in arrays.items()])
        raise unfit(f"{types}; save both with the same type, such as uint8")
    return next(iter(kinds.values()))


def _refuse_two_scales(ranges: dict[str, tuple[float, float]]) -> None:
    """Raise Invalid if one part has floats from 0 to 1 and another from 0 to 255."""
    highs = {name: high for name, (_, high) in ranges.items()}
    if min(highs.values()) <= 1 + MAX_OVERSHOOT and max(highs.values()) > 2:
        spans = listed([f"{name} from {low:g} to {high:g}" for name, (low, high) in ranges.items()])
        raise unfit(f"the parts have different scales ({spans}); save both from 0 to 1 or both from 0 to 255")


def _off_scale(arrays: Collection[str], low: float, high: float) -> Exception:
    names = " and ".join(f"'{name}'" for name in arrays)
    return unfit(
        f"the pixels of {names} range from {low:g} to {high:g}; use integers from 0 to 255, or floats from 0 to 1 or "
        "from 0 to 255 (training standardizes images itself)"
    )


def _pieces(arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Views of at most `PART_RECORDS` records."""
    return [
        array[start : start + PART_RECORDS] for array in arrays.values() for start in range(0, len(array), PART_RECORDS)
    ]


def _are_whole(arrays: dict[str, NDArray[Any]]) -> bool:
    return all(bool((piece == np.rint(piece)).all()) for piece in _pieces(arrays) if piece.dtype.kind == "f")


def _outside(arrays: dict[str, NDArray[Any]], top: int) -> int:
    """Number of values below 0 or above `top`."""
    return sum(int(np.count_nonzero((piece < 0) | (piece > top))) for piece in _pieces(arrays))


def _converted(arrays: dict[str, NDArray[Any]], scale: int) -> NDArray[np.uint8]:
    """All records, multiplied by `scale`, rounded and cut to 0 to 255."""
    first, *others = arrays.values()
    if not others and first.dtype == np.uint8:
        return np.ascontiguousarray(first)
    pixels = np.empty((sum(map(len, arrays.values())), *first.shape[1:]), np.uint8)
    at = 0
    for piece in _pieces(arrays):
        if piece.dtype != np.uint8:
            piece = np.clip(np.rint(piece.astype(np.float32) * scale), 0, 255)
        pixels[at : at + len(piece)] = piece
        at += len(piece)
    return pixels
