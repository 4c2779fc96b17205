"""`kotrain doctor`: finds and names what is wrong with an installation, and says what to do.

Each check is a small function that yields findings. One that cannot be made says why, and hides none of the others.
Nothing is changed but a file that is written to the store and removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from service.operations.doctor import machine, servers, work
from service.operations.doctor.findings import Finding, NotMade, Site, in_words, warning

CHECKS: Mapping[str, Callable[[Site], Iterable[Finding]]] = {
    "settings": machine.settings,
    "packages": machine.packages,
    "home": machine.home,
    "disk": machine.disk,
    "files": machine.files,
    "data sets": machine.data_sets,
    "memory": machine.memory,
    "stack": servers.stack,
    "api": servers.api,
    "database": servers.database,
    "schema": servers.schema,
    "connections": servers.connections,
    "clock": servers.clock,
    "broker": servers.broker,
    "workers": work.workers,
    "jobs": work.jobs,
    "checkpoints": work.checkpoints,
}
"""In the order in which they are told."""


def examine(checks: Iterable[str] = CHECKS) -> list[Finding]:
    """What is found in the installation that the environment names; these checks alone, or all. Never raises."""
    site = Site.here()
    return [finding for name in checks for finding in _made(name, site)]


def _made(name: str, site: Site) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in CHECKS[name](site):
            found.append(finding)
    except NotMade as problem:
        found.append(warning(f"not checked: {problem}"))
    except Exception as problem:  # a check of ours that fails must not hide the others
        found.append(warning(f"not checked: {type(problem).__name__}: {in_words(problem)}", "please report this"))
    return [finding.model_copy(update={"check": name}) for finding in found]
