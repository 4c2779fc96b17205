"""Claim: training through the engine is at most 2 % slower than the same loop written by hand.

Runs both alternately on the golden digits (64-256-256-10, Adam, batches of 64, one thread), on the GPU if there is one,
and prints the ratio of their medians, bare / engine, for the training steps: `python benchmarks/engine_overhead.py
[rounds]`.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

from service.specs.training import TrainSpec
from workers.training import datasets, models
from workers.training.loop import train

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SPEC = TrainSpec.model_validate(
    {
        "dataset": {"name": "digits", "params": {"split": "golden"}},
        "model": "mlp",
        "optimizer": "adam",
        "budget": {"epochs": 30},
        "device": DEVICE.type,
    }
)


def bare_seconds() -> float:
    """Seconds of the training steps in a hand-written loop."""
    request = datasets.Request(SPEC.dataset, Path(), SPEC.batch_size, SPEC.seed, DEVICE, with_test=False)
    task, inputs = datasets.load(request)
    model = models.build(SPEC.model, inputs, SPEC.seed).to(DEVICE)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    for _ in range(30):
        for images, labels in task.train_batches():
            adam.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            adam.step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(rounds: int) -> None:
    """Alternate the two, so that disturbances affect both alike."""
    torch.set_num_threads(1)
    bare, engine, total = [], [], []
    for _ in range(rounds):
        bare.append(bare_seconds())
        summary = train(SPEC, lambda step, metrics: None, lambda: None, data_dir=Path())
        engine.append(summary.train_seconds)
        total.append(summary.total_seconds)
    ratios = [b / e for b, e in zip(bare, engine, strict=True)]
    print(torch.cuda.get_device_name() if DEVICE.type == "cuda" else "1 CPU thread")
    print(f"bare    {statistics.median(bare):.3f} s")
    print(f"engine  {statistics.median(engine):.3f} s; with data, evaluation and test {statistics.median(total):.3f} s")
    print(f"ratio   {statistics.median(ratios):.3f} (sd {statistics.stdev(ratios):.3f}, n = {rounds})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
