"""`kotrain doctor`: checks of an installation, each with findings and remedies.

Each check is a small function that yields findings. A check that cannot run reports why; the others still run. The only
change to the installation is a file that is written to the store and removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from service.operations.doctor import machine, servers, work
from service.operations.doctor.findings import Finding, NotChecked, Site, in_words, warning

CHECKS: Mapping[str, Callable[[Site], Iterable[Finding]]] = {
    "settings": machine.settings,
    "packages": machine.packages,
    "home": machine.home,
    "disk": machine.disk,
    "files": machine.files,
    "data sets": machine.data_sets,
    "memory": machine.memory,
    "open files": machine.open_files,
    "uploaded code": machine.uploaded_code,
    "plug-ins": machine.installed_plugins,
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
"""In the order of the output."""


def examine(checks: Iterable[str] = CHECKS) -> list[Finding]:
    """The findings of these checks (default: all) for the installation that the environment describes. Never raises."""
    site = Site.here()
    return [finding for name in checks for finding in _run(name, site)]


def _run(name: str, site: Site) -> list[Finding]:
    findings: list[Finding] = []
    try:
        for finding in CHECKS[name](site):
            findings.append(finding)
    except NotChecked as reason:
        findings.append(warning(f"not checked: {reason}"))
    except Exception as problem:  # a bug in one check must not hide the results of the others
        findings.append(warning(f"not checked: {type(problem).__name__}: {in_words(problem)}", "please report this"))
    return [finding.model_copy(update={"check": name}) for finding in findings]
