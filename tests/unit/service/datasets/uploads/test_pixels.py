"""Scales of pixels in arrays: one for all parts, found from all values."""

from __future__ import annotations

import numpy as np
import pytest

from service.datasets.uploads.pixels import pixels_of
from service.errors import Invalid

DRAW = np.random.default_rng(0)
BYTES = DRAW.integers(0, 256, (40, 5, 4, 1), np.uint8)
BYTES[0, 0, 0, 0], BYTES[0, 0, 1, 0] = 0, 255
UNIT = BYTES.astype(np.float32) / 255


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed[3, 2, 1, 0] = value
    return changed


@pytest.mark.parametrize(
    ("array", "expected", "note"),
    [
        (BYTES, BYTES, None),
        (BYTES.astype(np.uint16), BYTES, None),
        (BYTES.astype(">i8"), BYTES, None),
        (BYTES // 128, BYTES // 128, None),
        (UNIT, BYTES, "0 to 1"),
        (UNIT.astype(np.float16).astype(np.float64), BYTES, "0 to 1"),
        (UNIT.round(), (UNIT.round() * 255).astype(np.uint8), "0 to 1"),
        (BYTES.astype(np.float64), BYTES, "0 to 255"),
        (BYTES.clip(0, 254) + 0.25, BYTES.clip(0, 254), "0 to 255"),
        (BYTES > 127, (BYTES > 127) * np.uint8(255), "false (black)"),
    ],
)
def test_reads_scale(array: np.ndarray, expected: np.ndarray, note: str | None) -> None:
    pixels, notes, warnings = pixels_of({"x": array})
    np.testing.assert_array_equal(pixels, expected)
    assert (notes == []) if note is None else (note in notes[0])
    assert warnings == []


@pytest.mark.parametrize(("value", "expected"), [(1.0000001, 255), (1.2, 255), (-0.2, 0)])
def test_one_value_outside_does_not_change_scale(value: float, expected: int) -> None:
    pixels, _, (warning,) = pixels_of({"x": with_value(UNIT, value)})
    np.testing.assert_array_equal(pixels, with_value(BYTES, expected))
    assert warning.startswith("1 of 800 pixel values is outside 0 to 1")


@pytest.mark.parametrize(("value", "expected"), [(255.0000001, 255), (270.5, 255), (-20.5, 0)])
def test_overshoot_of_scale_to_255_is_cut(value: float, expected: int) -> None:
    pixels, _, (warning,) = pixels_of({"x": with_value(BYTES.astype(np.float64), value)})
    np.testing.assert_array_equal(pixels, with_value(BYTES, expected))
    assert "outside 0 to 255" in warning


def test_parts_have_one_scale() -> None:
    dark, bright = UNIT * 0.001, with_value(UNIT, 1.1)
    pixels, _, _ = pixels_of({"x_train": dark, "x_test": bright})
    assert pixels[:40].max() == 0
    assert pixels[40:].max() == 255
    whole = BYTES.astype(np.float32)
    pixels, _, _ = pixels_of({"x_train": whole, "x_test": (whole // 100)[:2] * 0 + 2})
    assert pixels[40:].max() == 2


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x_train": UNIT, "x_test": BYTES}, "x_train is of type float32 and x_test is of type uint8; save both with"),
        ({"x_train": BYTES > 9, "x_test": BYTES}, "x_train is of type bool and x_test is of type uint8"),
        (
            {"x_train": UNIT, "x_test": BYTES + 0.0},
            r"different scales \(x_train from 0 to 1 and x_test from 0 to 255\)",
        ),
        ({"x": UNIT - 0.5}, "range from -0.5 to 0.5; use integers from 0 to 255, or floats from 0 to 1"),
        ({"x": UNIT * 1.2}, "range from 0 to 1.2"),
        ({"x": with_value(UNIT, 1.3)}, "range from 0 to 1.3"),
        ({"x": BYTES / 10}, "range from 0 to 25.5"),
        ({"x": BYTES.astype(int) + 1}, "range from 1 to 256"),
        ({"x": BYTES * 2.0}, "range from 0 to 510"),
    ],
)
def test_rejects_other_scales(parts: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        pixels_of(parts)
