"""Metrics in text: which direction is better, and how values and differences are written."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import Invalid
from service.specs.summary import Target


def not_a_result(name: str) -> str | None:
    """Why a metric cannot be an endpoint although it has a better direction; None for other metrics."""
    if not name.startswith("train_"):
        return None
    measure = name.removeprefix("train_")
    return (
        f"'{name}' cannot be compared: it is measured on single batches, every log_every_steps, and is no result of a "
        f"run; choose val_{measure} or test_{measure}"
    )


def sign(name: str) -> int:
    """1 if higher values of a metric are better, -1 if lower ones are. Raises Invalid if it is no endpoint."""
    if why := not_a_result(name):
        raise Invalid.field("metric", why)
    if name.endswith(("accuracy", "per_second")):
        return 1
    if name.endswith(("loss", "correlation")):
        return -1
    raise Invalid.field(
        "metric",
        f"'{name}' cannot be compared: neither higher nor lower values of it are better; choose a metric whose name "
        "ends with accuracy, loss, correlation or per_second, such as test_accuracy or val_loss",
    )


def out_of_reach(target: Target) -> str | None:
    """Why no run can reach a target, with a suggestion; None if a run can."""
    if not target.metric.endswith("accuracy") or target.value <= 1:
        return None
    return (
        f"an accuracy lies between 0 and 1, so {target.value:g} is never reached; did you mean {target.value / 100:g}?"
    )


@dataclass(frozen=True)
class Measure:
    """A metric in text: shares in percent and percentage points, other metrics in their unit."""

    name: str

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower ones are."""
        return sign(self.name)

    @property
    def is_speed(self) -> bool:
        """Whether it is a throughput."""
        return self.name.endswith("per_second")

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.name.replace("val_", "validation_").replace("_", " ")

    @property
    def weights(self) -> str:
        """The weights that it is measured with, as ` with ...`; empty for metrics without weights."""
        if self.is_speed:
            return ""
        return (
            f" with the {'weights of the best validation step' if self.name.startswith('best_') else 'final weights'}"
        )

    def value(self, value: float) -> str:
        """A value in a sentence."""
        return f"{100 * value:.1f} %" if self.name.endswith("accuracy") else _number(value)

    def lead(self, lead: float, interval: tuple[float | None, float | None] | None) -> str:
        """A difference and its interval in a sentence."""
        if self.name.endswith("accuracy"):
            return self.difference(lead, interval)
        ends = _interval(interval)
        if self.is_speed:
            return f"{_number(lead)} {self.words}" + (f" ({ends})" if ends else "")
        return f"{_number(lead)} in {self.words} (lower is better{f'; {ends}' if ends else ''})"

    def difference(self, lead: float, interval: tuple[float | None, float | None] | None) -> str:
        """The same without the name of the metric."""
        if not self.name.endswith("accuracy"):
            return _number(lead) + (f" ({_interval(interval)})" if interval else "")
        low, high = (lead if end is None else end for end in interval or (lead, lead))
        ends_at_zero = any(0 < abs(end) < 0.0005 for end in (low, high))  # "0.0" would say that zero is not excluded
        digits = 1 if (high - low >= 0.01 or abs(lead) >= 0.1) and not ends_at_zero else 2
        points = [f"{round(100 * x, digits) + 0.0:.{digits}f}" for x in (lead, low, high)]  # + 0.0: no "-0.0"
        return f"{points[0]} percentage points" + (f" (95 % interval {points[1]} to {points[2]})" if interval else "")


def _interval(interval: tuple[float | None, float | None] | None) -> str:
    return f"95 % interval {_end(interval[0])} to {_end(interval[1])}" if interval else ""


def _end(end: float | None) -> str:
    return "?" if end is None else _number(end)


def _number(value: float) -> str:
    """Three significant digits, and thousands separated by commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
