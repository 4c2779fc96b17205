"""Plans of small comparisons, and results for their cells."""

from service.comparisons.design.plan import Plan
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.comparisons.design.results import Result
from service.specs.states import JobStatus, Reason

TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 27}}
LR = {"lr": {"log_uniform": [0.0003, 0.03]}}
ADAM, SGD = {"name": "adam", "space": LR}, {"name": "sgd", "space": LR}

DIVERGED = Result(JobStatus.FAILED, Reason.DIVERGED)
FAILED = Result(JobStatus.FAILED, Reason.ERROR)
TIMED_OUT = Result(JobStatus.FAILED, Reason.TIMED_OUT)
CANCELLED = Result(JobStatus.CANCELLED, Reason.CANCELLED)
RUNNING = Result(JobStatus.RUNNING, None)


def make_plan(**fields) -> Plan:
    """A plan that tunes two optimizers with four trials each; fields of the request replace the defaults."""
    request = {"tasks": [TASK], "optimizers": [ADAM, SGD], "tuning": {"trials": 4}} | fields
    return resolve(ComparisonRequest.model_validate({k: v for k, v in request.items() if v is not None}))


def fixed(count: int, **fields) -> Plan:
    """A plan of `count` optimizers with given parameters."""
    optimizers = [{"name": "adam", "params": {"lr": 0.001 * (k + 1)}} for k in range(count)]
    return make_plan(optimizers=optimizers, tuning=None, **fields)


def scored(value: float, loss: float = 0.0) -> Result:
    """A completed run with this endpoint, which is also its validation score, and this validation loss."""
    return Result(JobStatus.SUCCEEDED, Reason.COMPLETED, value, value, loss)
