"""Exceptions of the SDK.

KotrainError
├── ConnectionFailed    no connection to the API
├── WaitTimeout         waiting exceeded its timeout
├── NotRunning          no stack is running from this home
└── ApiError            error response of the API
    ├── InvalidRequest  400, 413, 422: `fields` lists the invalid fields
    ├── Unauthorized    401: API key missing or unknown
    ├── Forbidden       403: not permitted for this user
    ├── NotFound        404
    ├── Conflict        409: not possible in the current state
    └── Unavailable     503: a part of kotrain is temporarily unavailable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line names these errors before it needs pydantic
    from service.specs.bodies import Problem, ProblemField


class KotrainError(Exception):
    """Base class of all exceptions that the SDK raises."""


class ConnectionFailed(KotrainError):
    """No connection to the API at the address `url`."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"cannot connect to kotrain at {url}; start it with `kotrain up`, or set KOTRAIN_URL")
        self.url = url
        self.__cause__ = cause


class WaitTimeout(KotrainError):
    """Waiting exceeded its timeout; the jobs continue."""


class NotRunning(KotrainError):
    """No stack is running from this home."""


class ApiError(KotrainError):
    """An error response; `problem` is its body (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def type(self) -> str:
        """The stable identifier of the error type."""
        return self.problem.type

    @property
    def detail(self) -> str:
        """The error in one sentence."""
        return self.problem.detail

    @property
    def fields(self) -> list[ProblemField]:
        """The invalid fields: JSON pointer and explanation of each."""
        return self.problem.errors


class InvalidRequest(ApiError):
    """The request is malformed, too large or invalid; `fields` lists the invalid fields."""


class Unauthorized(ApiError):
    """The API key is missing or unknown."""


class Forbidden(ApiError):
    """The key is valid, but its user may not do this."""


class NotFound(ApiError):
    """The resource does not exist."""


class Conflict(ApiError):
    """The current state of the resource does not allow the request."""


class Unavailable(ApiError):
    """A part of kotrain is temporarily unavailable, also after several attempts."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    503: Unavailable,
}


def from_problem(problem: Problem) -> ApiError:
    """The exception for a problem, by its HTTP status."""
    return BY_STATUS.get(problem.status, ApiError)(problem)
