"""Whether a model of a library fits the images of a job and the memory of the workers, known before it is queued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from service.errors import FieldError
from service.jobs.requests import JobRequest
from service.jobs.schemas import FittedModel
from service.jobs.workers import has_cuda
from service.specs.quantities import size
from service.specs.text import counted
from service.specs.training import TrainSpec

WEIGHT_BYTES = 4
"""Weights, gradients and optimizer states have 32 bits, also with precision bf16 and fp16."""


def fitted(request: TrainSpec, shape: tuple[int, int, int] | None, classes: int) -> FittedModel | None:
    """The model as it is constructed for images of this shape; None for a built-in model, or without images."""
    model = request.model.declared
    if model is None or shape is None:
        return None
    return FittedModel(
        parameters=model.parameters_for(shape[0], classes),
        least_memory_bytes=_least_memory(request, model.least_parameters_for(shape[0], classes)),
        smallest_side=model.smallest_side,
        stem=f"{', '.join(model.stem)}: {counted(shape[0], 'channel')} instead of 3" if shape[0] != 3 else None,
        head=f"{', '.join(model.head)}: {classes:,} classes instead of 1,000" if classes != 1000 else None,
    )


def _least_memory(request: TrainSpec, parameters: int) -> int:
    """Memory that a run takes at least: weights, gradients and the optimizer's state, without activations."""
    return WEIGHT_BYTES * parameters * (2 + request.optimizer.least_states)


def problems(
    request: TrainSpec, shape: tuple[int, int, int] | None, classes: int, workers: Sequence[Sequence[dict[str, Any]]]
) -> Iterator[FieldError]:
    """What keeps the model of a library from training.

    Args:
        shape: channels, height and width of an image.
        workers: the devices of each registered worker.
    """
    model = request.model.declared
    if model is None or shape is None:
        return
    if (problem := model.problem_with(*shape)) is not None:
        yield FieldError("/model", f"{problem}; '{request.dataset.name}' has {_described(shape)}")
        return
    parameters = model.least_parameters_for(shape[0], classes)
    least = _least_memory(request, parameters)
    need = f"the weights, gradients and optimizer states of {model.name} ({parameters:,} parameters) need {size(least)}"
    limit = request.memory_limit_bytes if isinstance(request, JobRequest) else None
    if limit is not None and request.device == "cpu" and limit < least:  # on a GPU, host memory holds none of them
        yield FieldError("/memory_limit_bytes", f"{need}, more than the limit of {size(limit)}")
    gpus = [device["memory_bytes"] for devices in workers for device in devices if device["kind"] == "cuda"]
    runs_on_gpu = request.needs_cuda or (request.device == "auto" and all(map(has_cuda, workers)))
    if runs_on_gpu and gpus and max(gpus) < least:
        yield FieldError("/model", f"{need}, but the largest GPU of the workers has {size(max(gpus))}")


def _described(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels and {counted(channels, 'channel')}"
