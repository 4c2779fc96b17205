"""The Python SDK and the command line. Neither needs torch or a database.

The names below are imported when one of them is used, as are the modules `kotrain.errors` and `kotrain.client`:
`kotrain --help` needs none, and kotrain without its extras has no dependencies.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kotrain.public import *
else:

    def __getattr__(name: str) -> Any:
        if name in ("client", "errors"):
            from importlib import import_module

            return import_module(f"kotrain.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'kotrain' has no attribute '{name}'")
        try:
            from kotrain import public
        except ModuleNotFoundError as error:
            from service.specs.extras import install_hint

            message = f"kotrain.{name} needs the package {error.name}; {install_hint('sdk')}"
            raise ImportError(message) from error
        return getattr(public, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ApiError",
    "Catalog",
    "Client",
    "CompareAnswer",
    "ComparisonAnswer",
    "ComparisonDryRun",
    "ComparisonRequest",
    "ComparisonStatus",
    "Conflict",
    "ConnectionFailed",
    "DryRun",
    "Forbidden",
    "InvalidAddress",
    "InvalidRequest",
    "InvalidValue",
    "JobRequest",
    "JobStatus",
    "JobView",
    "KotrainError",
    "Leaderboard",
    "Metrics",
    "ModelDetail",
    "ModelLibraryDetail",
    "NotFound",
    "NotRunning",
    "OptimizerDetail",
    "Reason",
    "Summary",
    "Unauthorized",
    "Unavailable",
    "UnexpectedResponse",
    "WaitTimeout",
]
