"""Durations, sizes and p values as text, the same in reports, on the command line and in log lines.

A missing or non-finite value is an empty text.
"""

from __future__ import annotations

import math


def known(value: float | None) -> float | None:
    """The value; None if it is missing or not finite."""
    return value if value is not None and math.isfinite(value) else None


def p_value(p: float | None) -> str:
    """`0.014`, `0.35`; `< 0.001` for smaller ones."""
    p = known(p)
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_equation(p: float) -> str:
    """`p = 0.014`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def significance_level(level: float) -> str:
    """Like a p value, but with two digits if it is smaller than 0.001, because p is compared with it."""
    return p_value(level) if level >= 0.001 else f"{level:.2g}"


def duration(seconds: float | None) -> str:
    """`0.25 s`, `6.71 min`, `27.8 h`, `3 d`."""
    seconds = known(seconds)
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def size(size_bytes: float | None) -> str:
    """`512 B`, `1.2 MiB`, `35 GiB`; units are powers of 1024, as in the dashboard."""
    size_bytes = known(size_bytes)
    if size_bytes is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1023.5:
            return f"{size_bytes:,.0f} {unit}" if size_bytes >= 99.95 else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.4g} TiB"
