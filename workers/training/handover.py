"""Weights that a job with uploaded code hands over, and their measurement by a process that does not load that code.

What shares a process with the training loop can report what it likes. The results that comparisons use, the final
validation and the test, are therefore measured here, from weights in a format that executes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.specs.summary import Environment
from service.specs.training import TrainSpec
from workers.training import datasets, environment, models
from workers.training.device import choose, deterministic
from workers.training.evaluation import Evaluator
from workers.training.stopping import Stop

LAST, BEST = "last.safetensors", "best.safetensors"
"""Weights of the last step, and of the best validation step if that is an earlier one."""


class Cancelled(Exception):
    """The measurement was stopped on request."""


def save(folder: Path, last: dict[str, Tensor], best: dict[str, Tensor] | None) -> None:
    """Write weights into a folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in ((LAST, last), (BEST, best)):
        if weights is not None:  # cloned, because the format has no shared memory
            copies = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in weights.items()}
            save_file(copies, folder / name)


def measure(
    spec: TrainSpec, data_dir: Path, folder: Path, should_stop: Callable[[], Stop | None]
) -> tuple[dict[str, float], Environment]:
    """The metrics of weights in a folder, and the environment.

    The metrics are those on the validation records, and on the test records if the spec reads them.

    Raises:
        ValueError: the weights are missing, or are not those of the model.
        Cancelled: `should_stop` returned a request.
        AbsentData: the data set is not present.
    """

    def check() -> None:
        if should_stop():
            raise Cancelled

    with deterministic():
        device = choose(spec.device, spec.precision)
        task, inputs = datasets.load(
            datasets.Request(spec.dataset, data_dir, spec.batch_size, spec.seed, device, with_test=spec.evaluate_test)
        )
        model = models.build(spec.model, inputs, spec.seed).to(device)
        evaluator = Evaluator(task, model, device, spec.precision, check)
        _load(model, folder / LAST)
        measured = {f"val_{name}": value for name, value in evaluator.evaluate(task.validation_batches()).items()}
        if spec.evaluate_test:
            measured |= {f"test_{name}": value for name, value in evaluator.evaluate(task.test_batches()).items()}
            measured[f"best_test_{task.selects}"] = measured[f"test_{task.selects}"]
            if (folder / BEST).exists():
                _load(model, folder / BEST)
                measured[f"best_test_{task.selects}"] = evaluator.evaluate(task.test_batches())[task.selects]
        return measured, environment.of_run(spec, device, task.data_hash)


def _load(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"the weights that the uploaded code left cannot be measured: {first}") from None
