"""Number of replicates of a simulation: a quarter in `make test`, all in `make test-all`."""

import os

IS_FULL = os.environ.get("KOTRAIN_TESTS") == "full"


def replicates(full: int) -> int:
    """Number of replicates to run out of `full`; limits that a test asserts have to allow for this number."""
    return full if IS_FULL else full // 4
