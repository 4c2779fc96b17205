"""Whether this server accepts code, and how it runs."""

from __future__ import annotations

from typing import TypedDict

from service.code import isolation
from service.code.source import PACKAGES
from service.config import settings


class Support(TypedDict):
    """The facts of `service.specs.bodies.CodeSupport` that do not depend on what is stored."""

    accepted: bool
    runs: str
    packages: list[str]


def support() -> Support:
    """By the setting, and by what the kernel of this machine can do. The first call takes 0.1 s."""
    accepted, runs = True, "isolated: no network, no other processes, and only the files of its job"
    match settings().uploaded_code:
        case "off":
            accepted, runs = False, "not accepted: KOTRAIN_UPLOADED_CODE is off"
        case "trusted":
            runs = "with all rights of the worker: KOTRAIN_UPLOADED_CODE is trusted"
        case _ if (why := isolation.missing()) is not None:
            accepted = False
            runs = f"not accepted: this machine cannot isolate it ({why}); KOTRAIN_UPLOADED_CODE=trusted runs it anyway"
    return {"accepted": accepted, "runs": runs, "packages": list(PACKAGES)}
