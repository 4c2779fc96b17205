"""Exceptions of the SDK.

KotrainError
├── ConnectionFailed    no connection to the API
├── InvalidAddress      the address of the API or of a proxy cannot be used
├── InvalidValue        a value of a request cannot be sent
├── UnexpectedResponse  an answer that is not kotrain's
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

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line names these errors before it needs pydantic
    from service.specs.bodies import Problem, ProblemField


class KotrainError(Exception):
    """Base class of all exceptions that the SDK raises."""


class ConnectionFailed(KotrainError):
    """No connection to the API at the address `url`; the message says why and what to do."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"cannot connect to kotrain at {url}{_reason(cause)}")
        self.url = url
        self.__cause__ = cause


def _reason(cause: BaseException) -> str:
    """What went wrong in a failed connection, by the exceptions that caused it."""
    kinds = {kind.__name__ for error in _causes(cause) for kind in type(error).__mro__}  # by name: no imports for it
    if "gaierror" in kinds:
        return ": its host name is unknown; set KOTRAIN_URL"
    if "SSLCertVerificationError" in kinds:
        return ": its certificate is not trusted; set SSL_CERT_FILE to the certificate of your authority"
    if "SSLError" in kinds:
        return ": it does not answer with TLS there; does its address begin with http://?"
    if "ProxyError" in kinds:
        return f": the proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) refuses it ({cause})"
    if "ConnectionRefusedError" in kinds:
        return "; start it with `kotrain up`, or set KOTRAIN_URL"
    if kinds & {"ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout"}:
        return ": it does not answer in time; is it overloaded, or behind a firewall?"
    if "RemoteProtocolError" in kinds and "disconnected" in str(cause):
        return ": it closed the connection without an answer; is it restarting? Try again"
    if "RemoteProtocolError" in kinds:
        return f": it answers with something other than HTTP; does its address begin with https://? ({cause})"
    return f" ({cause}); is the address right? Set KOTRAIN_URL"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class InvalidAddress(KotrainError):
    """The address of the API, or the one of a proxy, cannot be used; the message says how to write it."""


class InvalidValue(KotrainError):
    """A value of a request cannot be sent; `pointer` is its place, such as /optimizer/params/lr."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer


class UnexpectedResponse(KotrainError):
    """The server answered with something else than kotrain does, such as the page of a login."""


class WaitTimeout(KotrainError):
    """Waiting exceeded its timeout; the jobs continue."""


class NotRunning(KotrainError):
    """No stack is running from this home."""


class ApiError(KotrainError):
    """An error response; `problem` is its body (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__("\n".join(self.lines) if self._names_fields_elsewhere else problem.detail or problem.title)

    @property
    def lines(self) -> list[str]:
        """The error line by line: the invalid fields, after the sentence if it does not repeat them."""
        lines = [": ".join(filter(None, (field.pointer, field.detail))) for field in self.fields]
        return lines if lines and not self._names_fields_elsewhere else [self.detail or self.problem.title, *lines]

    @property
    def _names_fields_elsewhere(self) -> bool:
        """Whether the sentence says something else than the details of the fields."""
        return any(field.detail not in self.detail for field in self.fields)

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
