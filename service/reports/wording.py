"""Formatting of numbers in reports. Unknown values become empty text, never "None" or "nan"."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median_low
from typing import Any

from service.specs.metric_text import Measure
from service.specs.quantities import known
from service.specs.text import listed

MINUS = "\N{MINUS SIGN}"


# --- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Formatting of a metric's values: accuracies in percent, their differences in percentage points."""

    metric: str

    @property
    def is_share(self) -> bool:
        """Whether it is an accuracy."""
        return self.metric.endswith("accuracy")

    @property
    def factor(self) -> float:
        """Factor from a value to the displayed number."""
        return 100.0 if self.is_share else 1.0

    @property
    def words(self) -> str:
        """The metric's name, in full."""
        return Measure(self.metric.replace("val_", "validation_").replace("train_", "training_")).words

    @property
    def with_unit(self) -> str:
        """Its name and unit, for an axis."""
        return f"{self.words} (%)" if self.is_share else self.words

    @property
    def difference(self) -> str:
        """Label of a difference with its unit, for an axis or a column."""
        return "difference in percentage points" if self.is_share else "difference"

    def decimals(self, spreads: Iterable[float | None]) -> int:
        """Decimals that show two digits of the median spread, within limits."""
        sizes = [abs(spread) * self.factor for spread in spreads if spread and known(spread)]
        low, high = (1, 3) if self.is_share else (0, 6)
        if not sizes:
            return 2 if self.is_share else 4
        return min(high, max(low, 1 - math.floor(math.log10(median_low(sizes)))))

    def text(self, value: float | None, decimals: int) -> str:
        """A value, or a difference of two, without its unit."""
        return fixed(None if value is None else self.factor * value, decimals)

    def with_percent(self, value: float) -> str:
        """A value with its unit, in a sentence."""
        return f"{number(self.factor * value)} %" if self.is_share else number(value)

    def interval(self, ends: tuple[float, float] | None, decimals: int) -> str:
        """`96.6 to 97.4`."""
        return "" if ends is None else between(*(self.text(end, decimals) for end in ends))


def target_in_words(target: Mapping[str, object] | None) -> str:
    """`validation accuracy ≥ 95 %`; empty without a target."""
    if not target:
        return ""
    scale = Scale(str(target["metric"]))
    value = target["value"]
    assert isinstance(value, int | float)
    return f"{scale.words} {'≥' if scale.is_share else '≤'} {scale.with_percent(value)}"


def between(low: str, high: str) -> str:
    """`low to high`; empty if an end is missing."""
    return f"{low} to {high}" if low and high else ""


def fixed(value: float | None, decimals: int) -> str:
    """A number with a fixed number of decimals, a minus sign instead of a hyphen, and no negative zero."""
    value = known(value)
    return "" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


# --- other quantities ------------------------------------------------------------------------------------------------


def number(value: Any) -> str:
    """A parameter or another number with at most 4 significant digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS, 1 if value < 0 else 0)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def count(value: float | None) -> str:
    """A whole number, with commas between thousands as in the verdict."""
    value = known(value)
    return "" if value is None else f"{value:,.0f}"


def moment(when: datetime | None) -> str:
    """A time, to the minute."""
    return "" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def parameters(params: Mapping[str, Any]) -> str:
    """`lr 0.003, gamma 0.1`."""
    return ", ".join(f"{name} {number(value)}" for name, value in params.items() if value is not None)


def space(values: Mapping[str, Any]) -> str:
    """The search space of a parameter."""
    for form, words in (("log_uniform", " (logarithmic)"), ("uniform", ""), ("integer", " (integers)")):
        if values.get(form) is not None:
            low, high = values[form]
            return f"{number(low)} to {number(high)}{words}"
    return f"one of {listed([number(choice) or 'null' for choice in values.get('choice') or []], 'or')}"


def shortened(text: str, max_letters: int) -> str:
    """At most `max_letters` characters, omitting the middle: labels often differ at their end."""
    if len(text) <= max_letters:
        return text
    head = (max_letters - 1) // 2
    return f"{text[:head].rstrip()}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (max_letters - 1 - head) :].lstrip()}"


def all_shortened(labels: Sequence[str], max_letters: int) -> list[str]:
    """Shortened labels that are still different."""
    texts = [shortened(label, max_letters) for label in labels]
    return [
        text if texts.count(text) == 1 else f"{number}. {shortened(label, max_letters - 4)}"
        for number, (label, text) in enumerate(zip(labels, texts, strict=True), 1)
    ]
