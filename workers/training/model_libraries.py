"""Models of libraries, constructed for the data."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from service.specs.catalog.model_libraries import LibraryModel

INPUT_SIZE = {"vit": "image_size", "maxvit": "input_size"}
"""First part of a torchvision name -> the argument that takes the size of the images."""
NO_AUXILIARY = {"aux_logits": False, "init_weights": True}
"""Arguments of Inception models: without auxiliary classifiers, whose logits come beside those of the model."""


def construct(declared: LibraryModel, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """A model with initial weights, its stem fitted to the channels and its head to the classes.

    Args:
        size: height and width of the images; models that do not adapt to it at run time are constructed for it.

    Raises:
        Exception: any that the library raises for a size that the model does not take.
    """
    library, _, name = declared.name.partition("/")
    if library == "timm":
        return _timm(name, channels, size if declared.is_sized else None, classes)
    return _torchvision(name, channels, size, classes)


def _timm(name: str, channels: int, size: tuple[int, int] | None, classes: int) -> nn.Module:
    import timm  # noqa: PLC0415 (2 s that only its models need)

    sized: dict[str, Any] = {} if size is None else {"img_size": size}
    model: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **sized)
    return model


def _torchvision(name: str, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    options: dict[str, Any] = {}
    family = name.partition("_")[0]
    if family in INPUT_SIZE:
        options[INPUT_SIZE[family]] = size if family == "maxvit" else size[0]
    if family in ("inception", "googlenet"):
        options |= NO_AUXILIARY
    model: nn.Module = torchvision.models.get_model(name, num_classes=classes, **options)
    if channels != 3:
        _replace_stem(model, channels)
    return model


def _replace_stem(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for another number of channels, with torch's default initialization."""
    name, stem = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    replacement = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    setattr(model.get_submodule(parent), child, replacement)
