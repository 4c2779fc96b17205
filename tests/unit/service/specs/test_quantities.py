"""Durations, sizes and p values as text."""

import pytest

from service.specs import quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (quantities.p_value(0.0004), "< 0.001"),
        (quantities.p_value(0.0137), "0.014"),
        (quantities.p_value(0.234), "0.23"),
        (quantities.p_value(None), ""),
        (quantities.p_equation(0.0137), "p = 0.014"),
        (quantities.p_equation(0.0004), "p < 0.001"),
        (quantities.significance_level(0.0137), "0.014"),
        (quantities.significance_level(0.000137), "0.00014"),
        (quantities.duration(0.012), "0.012 s"),
        (quantities.duration(90), "90 s"),
        (quantities.duration(402.7), "6.71 min"),
        (quantities.duration(100_000), "27.8 h"),
        (quantities.duration(None), ""),
        (quantities.size(670_000), "654 KiB"),
        (quantities.size(1.34e9), "1.25 GiB"),
        (quantities.size(0), "0 B"),
        (quantities.size(1000 * 1024), "1,000 KiB"),
        (quantities.size(2.5e12), "2.274 TiB"),
        (quantities.size(None), ""),
    ],
)
def test_formats_quantity(text: str, expected: str) -> None:
    assert text == expected
