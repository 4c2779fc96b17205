"""How much of a simulation runs: a quarter in `make test`, all of it in `make test-all`."""

import os

IS_FULL = os.environ.get("KOTRAIN_TESTS") == "full"


def replicates(full: int) -> int:
    """How many of `full` replicates to run; what a test asserts of their share has to allow for that number."""
    return full if IS_FULL else full // 4
