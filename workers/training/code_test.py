"""The conformance test of a file with an optimizer, or of a plug-in, on this machine: `kotrain code test NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

from service.code import plugins
from service.code.source import Source
from service.errors import Invalid, KotrainError
from service.specs.catalog.declaration import Declaration
from workers.messages import Code
from workers.training import conformance, uploaded
from workers.training.conformance import Candidate


def main(arguments: list[str]) -> int:
    """Print the outcome of each check; 1 if one fails or the optimizer cannot be used."""
    try:
        declared, candidate = _find(arguments[0])
    except KotrainError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    parameters = ", ".join(f"{parameter.name}={parameter.default!r}" for parameter in declared.parameters)
    sys.stdout.write(f"{declared.class_name}({parameters}): {declared.title}\n")
    results = conformance.check(candidate)
    for result in results:
        sys.stdout.write(f"{result.outcome:<8} {result.name:<14} {result.text}\n")
    return int(any(result.outcome == "fail" for result in results))


def _find(name: str) -> tuple[Declaration, Candidate]:
    """The optimizer of a file, or the plug-in of this name. Raises Invalid."""
    file = Path(name)
    if file.is_file():
        source = Source.from_bytes(file.name, file.read_bytes())
        declared = source.declare(f"local/{file.stem}")
        return declared, uploaded.candidate(Code(declared, file.name, source.text))
    plugin = plugins.find(name)
    if plugin is None:
        why = plugins.why_missing(name) or f"no file and no plug-in on this machine is named '{name}'"
        raise Invalid.field("", why)
    if plugin.refusal is not None:
        raise Invalid.field("", f"{name} cannot be used: {plugin.refusal}")
    return plugin, uploaded.candidate_of(plugin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
