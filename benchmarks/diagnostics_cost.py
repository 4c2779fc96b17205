"""Claim: recording all diagnostics every 50 steps takes less than 2 % of the training time of an ordinary network.

Prints, for each network, the median time of a training step (forward, backward, Adam) and of a `ko.diagnose`, measured
alternately, and the latter as a share of 50 steps. One thread, random data. The digits network, whose steps take
milliseconds, has a larger share.

    python benchmarks/diagnostics_cost.py            # on the CPU: 2 minutes
    python benchmarks/diagnostics_cost.py --quick    # without ResNet-18 and the transformer: seconds
    python benchmarks/diagnostics_cost.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ko import diagnose
from service.specs.catalog.models import Cnn, Mlp, Model, ResNet18, Transformer, TransformerParams
from workers.training import models
from workers.training.datasets import Inputs

INTERVAL_STEPS = 50
CLASSES = 10
IMAGES, TEXTS = Inputs((3, 32, 32), CLASSES), Inputs((128,), CLASSES, vocabulary=1000)
WIDE = TransformerParams(width=512, layers=6, heads=8, feedforward=2048, dropout=0.0)


@dataclass(frozen=True)
class Case:
    """A network, its batch size, and the number of timed rounds."""

    title: str
    choice: Model
    inputs: Inputs
    batch: int
    rounds: int


QUICK = (
    Case("digits MLP 64-256-256-10, batch 64", Mlp(), Inputs((1, 8, 8), CLASSES), 64, 200),
    Case("CNN 32-64-128, batch 128 of 32 x 32", Cnn(), IMAGES, 128, 20),
)
LARGE = (
    Case("ResNet-18, batch 128 of 32 x 32", ResNet18(), IMAGES, 128, 4),
    Case("transformer 6 x 512, 32 x 128 tokens", Transformer(params=WIDE), TEXTS, 32, 4),
)


def measure(case: Case, device: torch.device) -> tuple[float, float]:
    """Median seconds of a training step and of a record, measured alternately."""
    model = models.build(case.choice, case.inputs, seed=0).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    inputs, labels = random_batch(case, device)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    step()  # the first calls include the setup
    diagnose(model)
    pairs = [(seconds(step, device), seconds(lambda: diagnose(model), device)) for _ in range(case.rounds)]
    steps, records = zip(*pairs, strict=True)
    return statistics.median(steps), statistics.median(records)


def random_batch(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs (batch, ...) of random numbers or word ids, and labels (batch,)."""
    torch.manual_seed(0)
    shape = (case.batch, *case.inputs.shape)
    words = case.inputs.vocabulary
    inputs = torch.randint(1, words, shape) if words else torch.randn(shape)
    return inputs.to(device), torch.randint(0, CLASSES, (case.batch,)).to(device)


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Wall time in seconds until the device has finished."""
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks only")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'network':38} {'step':>10} {'record':>10}   share of {INTERVAL_STEPS} steps")
    for case in QUICK if arguments.quick else (*QUICK, *LARGE):
        step, record = measure(case, arguments.device)
        print(
            f"{case.title:38} {1e3 * step:7.1f} ms {1e3 * record:7.1f} ms   {record / (INTERVAL_STEPS * step):.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
