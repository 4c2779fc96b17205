"""What can go wrong, from the user's side.

KotrainError
├── ConnectionFailed    nothing answers at the address
├── WaitTimeout         the jobs take longer than one wanted to wait
├── NotRunning          no stack of this home is running
└── ApiError            kotrain answered with a problem
    ├── InvalidRequest  400, 413, 422: `fields` says what is wrong where
    ├── Unauthorized    401: no key, or an unknown one
    ├── Forbidden       403: somebody else's
    ├── NotFound        404
    ├── Conflict        409: the state of things forbids it
    └── Unavailable     503: a part of kotrain is away for now
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line names these errors before it needs pydantic
    from service.specs.bodies import Problem, ProblemField


class KotrainError(Exception):
    """Base of everything that the SDK raises on purpose."""


class ConnectionFailed(KotrainError):
    """Nothing answers at the address."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"no kotrain answers at {url}: start it with `kotrain up`")
        self.url = url
        self.__cause__ = cause


class WaitTimeout(KotrainError):
    """The jobs take longer than one wanted to wait; they go on all the same."""


class NotRunning(KotrainError):
    """No stack of this home is running."""


class ApiError(KotrainError):
    """An answer with an error: `problem` is its body (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def type(self) -> str:
        """The stable name of the kind of problem."""
        return self.problem.type

    @property
    def detail(self) -> str:
        """What went wrong, in a sentence."""
        return self.problem.detail

    @property
    def fields(self) -> list[ProblemField]:
        """Each wrong field by its JSON pointer, with what would be right."""
        return self.problem.errors


class InvalidRequest(ApiError):
    """The request cannot be read, is too large, or asks for what does not exist; `fields` says where."""


class Unauthorized(ApiError):
    """No key, or one that is not known."""


class Forbidden(ApiError):
    """The key is known, and this is somebody else's."""


class NotFound(ApiError):
    """There is no such thing."""


class Conflict(ApiError):
    """The current state does not allow it."""


class Unavailable(ApiError):
    """A part of kotrain is away for now, also after several attempts."""


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
    """The exception of a problem, by its HTTP status."""
    return BY_STATUS.get(problem.status, ApiError)(problem)
