"""Claim: checkpoints once a minute cost a run less than 2 % of its time.

Writes and reads the checkpoints of runs of several sizes, alternately, and prints medians: size, seconds to write
(including the hash and the sync to disk), seconds to read and restore, and the write time as a share of 60 s:
`KOTRAIN_DATA_DIR=... python benchmarks/checkpoint_cost.py [rounds]`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from service.config import Settings, settings
from service.specs.training import TrainSpec
from workers.training import checkpoint
from workers.training.run import Run

INTERVAL_SECONDS = Settings.model_fields["checkpoint_seconds"].default
RUNS: dict[str, dict[str, Any]] = {
    "digits, MLP 256-256, KO on Adam": {"dataset": "digits", "model": "mlp", "optimizer": "ko", "batch_size": 64},
    "Snips, transformer, AdamW": {
        "dataset": "snips",
        "model": {"name": "transformer", "params": {"width": 256, "feedforward": 1024, "layers": 4}},
        "optimizer": "adamw",
        "batch_size": 16,
    },
    "CIFAR-10, ResNet-18, Adam": {
        "dataset": {"name": "cifar10", "params": {"limit": 64}},
        "model": "resnet18",
        "optimizer": "adam",
        "batch_size": 16,
    },
}


def measure(body: dict[str, Any], rounds: int, path: Path) -> tuple[int, float, float]:
    """Bytes of a checkpoint after two steps, and median seconds to write and to read it."""
    spec = TrainSpec.model_validate(body | {"budget": {"steps": 2}, "device": "cpu", "evaluate_test": False})
    run = Run(spec, lambda step, metrics: None, settings().data)
    run.execute(lambda: None)
    write_seconds, read_seconds = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        size_bytes, _ = checkpoint.write(run.state(), path)
        middle = time.perf_counter()
        run.restore(checkpoint.read(path))
        write_seconds.append(middle - start)
        read_seconds.append(time.perf_counter() - middle)
    return size_bytes, statistics.median(write_seconds), statistics.median(read_seconds)


def main(rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| run | MB | write, s | read, s | share of the time |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, body in RUNS.items():
            size, write, read = measure(body, rounds, Path(folder, "1.pt"))
            share = write / INTERVAL_SECONDS
            print(f"| {name} | {size / 1e6:.1f} | {write:.3f} | {read:.3f} | {share:.2%} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
