"""The conformance test of a file with an optimizer, on this machine: `kotrain code test FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from service.code.source import Source
from service.errors import KotrainError
from workers.messages import Code
from workers.training import conformance, uploaded


def main(arguments: list[str]) -> int:
    """Print the outcome of each check; 1 if one fails or the file cannot be used."""
    file = Path(arguments[0])
    try:
        source = Source.from_bytes(file.name, file.read_bytes())
        declaration = source.declare(f"local/{file.stem}")
    except KotrainError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    parameters = ", ".join(f"{parameter.name}={parameter.default!r}" for parameter in declaration.parameters)
    sys.stdout.write(f"{declaration.class_name}({parameters}): {declaration.title}\n")
    results = conformance.check(uploaded.candidate(Code(declaration, file.name, source.text)))
    for result in results:
        sys.stdout.write(f"{result.outcome:<8} {result.name:<14} {result.text}\n")
    return int(any(result.outcome == "fail" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
