"""Results of jobs with uploaded code: measured from their weights, not as the code reports them."""

from __future__ import annotations

import math

from service.specs.states import Reason
from service.specs.summary import Summary

ENDS_TO_MEASURE = (Reason.COMPLETED, Reason.TARGET_REACHED)


def is_test(metric: str) -> bool:
    """Whether a metric is one of the test, which a process with uploaded code must not report."""
    return metric.startswith(("test_", "best_test_"))


def without_test(reported: Summary, last_step: int) -> Summary:
    """The summary without what the code reports of the test, and without a best step that the run has not reached."""
    metrics = {name: value for name, value in reported.metrics.items() if not is_test(name)}
    best = reported.best_step
    is_reached = best is not None and best <= min(reported.steps, last_step)
    return reported.model_copy(update={"metrics": metrics, "best_step": best if is_reached else None})


def measured_summary(reported: Summary, measured: dict[str, float]) -> Summary:
    """The summary with the measured results instead of the reported ones."""
    others = {
        name: value for name, value in reported.metrics.items() if not is_test(name) and not name.startswith("val_")
    }
    finite = {name: value if math.isfinite(value) else None for name, value in measured.items()}
    return reported.model_copy(update={"metrics": {**others, **finite}})


def differences(reported: Summary, measured: dict[str, float]) -> list[str]:
    """Sentences on results that were reported otherwise than they were measured."""
    return [
        f"the uploaded code reported {name} {said:.6g}; its weights have {value:.6g}, which is used"
        for name, value in measured.items()
        if (said := reported.metrics.get(name)) is not None
        and not math.isclose(said, value, rel_tol=1e-4, abs_tol=1e-6)
    ]
