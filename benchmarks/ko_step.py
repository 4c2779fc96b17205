"""Claim: compared to AdamW, a training step with KO on AdamW takes at most 3 % longer with soft collisions and at most
1 % longer with hard collisions (ResNet-18, batches of 128 images of 32 x 32).

    python benchmarks/ko_step.py               # every table, on the GPU if there is one
    python benchmarks/ko_step.py resnet        # one of: resnet transformer mlp rows
    python benchmarks/ko_step.py --rounds 5 --markdown

A round is one forward and backward pass and, on the same gradients, one step of each optimizer, in an order that is
rotated from round to round. A ratio is (pass + step) / (pass + step of AdamW) of one round, so that disturbances of the
pass affect both; the table gives the median and the range over the rounds. Memory is the peak of live tensors during
the step beyond AdamW's peak (on a GPU as counted by the allocator). `rows` is the time of a single collision of a layer
of N rows and 512 columns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.optim import AdamW, Optimizer
from torchvision.models import resnet18

import ko
from ko import KO, collisions

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

FORMS: dict[str, dict[str, Any]] = {
    "soft": {},
    "soft, bounded": {"bounded": True},
    "random groups of 64": {"group_size": 64},
    "hard": {"collision": "hard"},
}

Loss = Callable[[], Tensor]


class Encoder(nn.Module):
    """Six layers of width 512 on 32 sequences of 128 tokens, 10,000 words, mean pooling, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10_000, 512)
        layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(512, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, 10) of tokens (B, T)."""
        logits: Tensor = self.head(self.layers(self.words(tokens)).mean(dim=1))
        return logits


def resnet() -> tuple[nn.Module, Tensor]:
    """ResNet-18 in the usual form for 32 x 32 images: stride 1 and no pooling in the first layer."""
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model, torch.randn(128, 3, 32, 32)


def transformer() -> tuple[nn.Module, Tensor]:
    """The encoder and its tokens."""
    return Encoder(), torch.randint(0, 10_000, (32, 128))


def mlp() -> tuple[nn.Module, Tensor]:
    """784-4096-4096-10 at batches of 128."""
    return nn.Sequential(
        nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)
    ), torch.randn(128, 784)


MODELS = {"resnet": resnet, "transformer": transformer, "mlp": mlp}


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call in seconds, including the work of the device."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def typical_seconds(work: Callable[[], Any]) -> float:
    """Median seconds of some calls after the first; only the first if it is long, when warm-up is negligible."""
    first = seconds(work)
    return first if first > 1 else statistics.median(seconds(work) for _ in range(max(5, min(30, int(0.3 / first)))))


def peak_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """Peak memory of live tensors during an optimizer step."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        optimizer.step()
        return torch.cuda.max_memory_allocated()
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        optimizer.step()
    return int(tracker.get_tracker_snapshot("peak")[DEVICE]["Total"])


def compare(name: str, rounds: int) -> list[list[str]]:
    """A row for each form of KO: milliseconds of its step, ratio to AdamW, extra memory."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model, inputs = model.to(DEVICE), inputs.to(DEVICE)
    labels = torch.randint(0, 10, (len(inputs),), device=DEVICE)
    # With a learning rate of zero, each step does all its work without changing the network.
    optimizers: dict[str, Optimizer] = {"AdamW": AdamW(model.parameters(), lr=0.0)}
    optimizers |= {form: KO(ko.param_groups(model), lr=0.0, base="adamw", **options) for form, options in FORMS.items()}
    passes: list[float] = []
    steps: dict[str, list[float]] = {form: [] for form in optimizers}
    for number in range(-1, rounds):  # the first round warms up
        model.zero_grad()
        passes.append(seconds(lambda: nn.functional.cross_entropy(model(inputs), labels).backward()))
        for form in _rotated(list(optimizers), number):
            steps[form].append(seconds(optimizers[form].step))
    base_memory = peak_bytes(model, optimizers["AdamW"])
    rows = []
    for form, optimizer in optimizers.items():
        ratios = [(p + s) / (p + a) for p, s, a in list(zip(passes, steps[form], steps["AdamW"], strict=True))[1:]]
        extra = (peak_bytes(model, optimizer) - base_memory) / 2**20
        rows.append([
            form,
            f"{statistics.median(passes[1:]) * 1e3:.0f}",
            f"{statistics.median(steps[form][1:]) * 1e3:.1f}",
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            f"{extra:.0f}",
        ])  # fmt: skip
    return rows


def by_rows(columns: int = 512, group_size: int = 64) -> list[list[str]]:
    """Milliseconds of one collision of an (N, columns) layer, for N from 64 to 32,768."""
    rows = []
    for n in [2**k for k in range(6, 16)]:
        generator = torch.Generator().manual_seed(n)
        w, g = (torch.randn(n, columns, generator=generator).to(DEVICE) * scale for scale in (0.02, 1.0))
        forms: dict[str, Callable[[], Tensor]] = {
            "soft": lambda w=w, g=g: collisions.soft(w, g, 0.1),
            "random groups": lambda w=w, g=g: collisions.soft(w, g, 0.1, group_size=group_size, key=1),
            "hard": lambda w=w, g=g: collisions.hard(w, g, 0.5, 1),
        }
        times = {form: typical_seconds(work) * 1e3 for form, work in forms.items()}
        rows.append([f"{n:,}", *(f"{t:.2f}" for t in times.values()), f"{times['random groups'] / n * 1e3:.2f}"])
    return rows


def table(titles: list[str], rows: Iterable[list[str]], markdown: bool) -> str:
    """Aligned columns, or a Markdown table."""
    lines = [titles, *rows]
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in [titles, ["---"] * len(titles), *lines[1:]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(description="Cost of a step of KO relative to AdamW")
    parser.add_argument("tables", nargs="*", help=f"any of {', '.join([*MODELS, 'rows'])}; default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument(
        "--matmul",
        choices=["highest", "high", "medium"],
        default="highest",
        help="torch.set_float32_matmul_precision, for both sides",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.tables) - {*MODELS, "rows"}
    if unknown or arguments.rounds < 2:
        parser.error(f"unknown table {', '.join(unknown)}" if unknown else "--rounds must be at least 2")
    torch.set_float32_matmul_precision(arguments.matmul)
    hardware = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{hardware}, {versions}, {arguments.rounds} rounds, float32 matmul precision {arguments.matmul}\n")
    for name in arguments.tables or [*MODELS, "rows"]:
        if name == "rows":
            titles = ["rows N", "soft, ms", "random groups of 64, ms", "hard, ms", "random groups, µs per row"]
            print(f"one layer of N x 512\n{table(titles, by_rows(), arguments.markdown)}\n", flush=True)
        else:
            times = ["forward and backward, ms", "optimizer step, ms"]
            titles = ["optimizer", *times, "ratio to AdamW", "extra memory, MiB"]
            print(f"{name}\n{table(titles, compare(name, arguments.rounds), arguments.markdown)}\n", flush=True)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


if __name__ == "__main__":
    main()
