"""Claim: the first step of a job with uploaded code comes at most 60 ms later than that of an ordinary job.

Starts processes of three kinds in turn from a warm forkserver: Adam, an uploaded copy of Adam that is trusted, and the
same isolated. Prints, as Markdown, the milliseconds from the start of a process until it reports that training begins,
as median and range, and the difference of the medians from the ordinary job: `python -m benchmarks.isolation [rounds]`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workers.__main__ import start_forkserver

ROUNDS = 30
SOURCE = '''"""A copy of Adam."""
import torch


class Copy(torch.optim.Adam):
    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, lr=lr)
'''
NAME = "ada/my_adam@00000000"
SPEC: dict[str, Any] = {
    "dataset": {"name": "digits", "params": {"split": "golden"}},
    "model": "mlp",
    "budget": {"steps": 5},
    "device": "cpu",
}


def main() -> None:
    """Print the table."""
    start_forkserver()
    # The forkserver inherits everything that was imported before it.
    from service.code.source import Source  # noqa: PLC0415
    from service.specs.catalog import uploaded  # noqa: PLC0415
    from service.specs.training import TrainSpec  # noqa: PLC0415
    from workers import entry, messages  # noqa: PLC0415
    from workers.process import Process, check_engine, preload_engine  # noqa: PLC0415

    check_engine(preload_engine())
    declaration = Source("my_adam.py", SOURCE).declare(NAME)
    uploaded.remember(declaration)
    code = (messages.Code(declaration, "my_adam.py", SOURCE),)
    kinds = {"Adam": ("adam", (), False), "uploaded, trusted": (NAME, code, True), "isolated": (NAME, code, False)}
    specs = {
        name: TrainSpec.model_validate(SPEC | {"optimizer": name}).model_dump(mode="json") for name in ("adam", NAME)
    }

    def measure(optimizer: str, code: tuple[messages.Code, ...], is_trusted: bool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            assignment = messages.Assignment(
                specs[optimizer], Path("/nonexistent"), 1, None, None, Path(folder), 60.0, None, code, is_trusted
            )
            started = time.perf_counter()
            process, has_ended, seconds = Process(entry.train_job, assignment), False, None
            while not has_ended:
                received, has_ended = process.messages(1.0)
                if seconds is None and any(isinstance(message, messages.Started) for message in received):
                    seconds = time.perf_counter() - started
            process.reap()
            assert seconds is not None
            return 1000 * seconds

    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind, arguments in kinds.items():
            milliseconds = measure(*arguments)
            if number:  # the first ones load what the forkserver has not
                taken[kind].append(milliseconds)
    ordinary = statistics.median(taken["Adam"])
    print(f"| job | ms until training begins, median (range), n = {rounds} | more than Adam |\n|---|---|---|")
    for kind, values in taken.items():
        median = statistics.median(values)
        print(f"| {kind} | {median:.0f} ({min(values):.0f} to {max(values):.0f}) | {median - ordinary:.0f} |")


if __name__ == "__main__":
    main()
