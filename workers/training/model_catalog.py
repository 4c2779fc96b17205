"""Writes the catalog of the libraries' models: `python -m workers.training.model_catalog`, or `make catalog`.

Nothing is computed: models are constructed on torch's meta device, and images of several sizes go through them forward
and backward there, which shows the sizes that a model takes.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models as torchvision_models

from service.specs.catalog.model_libraries import FILE, LibraryModel, ModelLibrary
from service.specs.docstrings import first_sentence
from workers.training.library_catalog import write_tables
from workers.training.model_libraries import construct

SOURCES = {
    "torchvision": ("BSD-3-Clause", "https://github.com/pytorch/vision"),
    "timm": ("Apache-2.0", "https://github.com/huggingface/pytorch-image-models"),
}
"""Library -> its licence and its page."""

COMMON_SIDES = (32, 64, 96, 128)
"""Sides that are tried beside those of the search."""

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

ALWAYS = 2**31
"""Lone-record side of models that cannot train on a single record whatever its size."""


def names() -> list[str]:
    """All classification models of the libraries, by library and name."""
    return [
        *(f"torchvision/{name}" for name in torchvision_models.list_models(module=torchvision_models)),
        *(f"timm/{name}" for name in timm.list_models()),
    ]


class Probe:
    """A model on the meta device, through which images of any size can go.

    Models that are not constructed for a size are constructed once.
    """

    def __init__(self, declared: LibraryModel) -> None:
        self.declared = declared
        self._model: nn.Module | None = None

    def construct(self, channels: int = 3, classes: int = 7, size: tuple[int, int] | None = None) -> nn.Module:
        """The model for these channels, classes and sizes; by default, for the native side."""
        side = self.declared.native_side
        arguments = (self.declared, channels, size or (side, side), classes)
        try:
            with torch.device("meta"):
                return construct(*arguments)
        except NotImplementedError:  # the builder computes with tensors
            return construct(*arguments).to("meta")

    def train(self, height: int, width: int, records: int = 2) -> None:
        """Take images forward and backward, and forward for evaluation. Raises what the model raises."""
        model = self._at(height, width)
        self._logits(model.train(), height, width, records).sum().backward()  # type: ignore[no-untyped-call]
        self._logits(model.eval(), height, width, records)

    def takes(self, height: int, width: int | None = None, records: int = 2) -> bool:
        """Whether images of this size go through it in training."""
        try:
            with torch.no_grad(), _without_statistics():
                self._logits(self._at(height, width or height).train(), height, width or height, records)
        except Exception:
            return False
        return True

    def _at(self, height: int, width: int) -> nn.Module:
        if self.declared.is_sized or self._model is None:
            self._model = self.construct(size=(height, width))
        return self._model

    def takes_gray(self) -> bool:
        """Whether images with one channel go through it."""
        side = self.declared.native_side
        try:
            self.construct(channels=1)(torch.empty(2, 1, side, side, device="meta"))
        except Exception:
            return False
        return True

    def _logits(self, model: nn.Module, height: int, width: int, records: int) -> Tensor:
        logits: Any = model(torch.empty(records, 3, height, width, device="meta"))
        if not isinstance(logits, Tensor) or logits.shape != (records, 7):
            raise ValueError(f"it returns {_described(logits)} instead of logits (records, classes)")
        return logits


@contextmanager
def _without_statistics() -> Iterator[None]:
    """Only check the input of batch normalization, which takes a tenth of a second per model on the meta device."""
    normalize = functional.batch_norm

    def check(images: Tensor, *arguments: Any, training: bool = False, **options: Any) -> Tensor:
        if training or (len(arguments) > 4 and arguments[4]):
            functional._verify_batch_size(list(images.size()))  # type: ignore[attr-defined]
        return images.clone()

    functional.batch_norm = check  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.batch_norm = normalize


def _described(value: Any) -> str:
    return f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def declare(name: str) -> LibraryModel:
    """The declaration of a model, with what was found by trying it."""
    declared = LibraryModel(name=name, title=_title(name), native_side=_native_side(name), is_sized=_is_sized(name))
    probe = Probe(declared)
    if declared.is_sized and not probe.takes(declared.native_side):  # its builder does not take the size
        declared = declared.model_copy(update={"is_sized": False})
        probe = Probe(declared)
    try:
        probe.train(declared.native_side, declared.native_side)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        return declared.model_copy(update={"refusal": f"it does not train: {reason}"})
    sides = _sides(probe)
    return declared.model_copy(update={**sides, **_size(probe, sides["smallest_side"])})


def _is_sized(name: str) -> bool:
    """Whether its builder may take the size of the images."""
    if name.startswith("torchvision/"):
        return name.startswith(("torchvision/vit_", "torchvision/maxvit"))
    return bool(timm.get_pretrained_cfg_value(name.partition("/")[2], "fixed_input_size"))


def _native_side(name: str) -> int:
    short = name.partition("/")[2]
    if name.startswith("timm/"):
        size = timm.get_pretrained_cfg_value(short, "input_size")
        return int(size[1]) if size else 224
    weights = torchvision_models.get_model_weights(short)
    sides = [int(weight.transforms.keywords["crop_size"]) for weight in weights]
    return sides[0] if sides else 224


def _sides(probe: Probe) -> dict[str, Any]:
    """Which sides it takes."""
    native, patch = probe.declared.native_side, _patch(probe.construct())
    multiple = next(
        (
            number
            for number in (*range(patch, 5 * patch, patch), *range(8 * patch, 129, 8 * patch))
            if native % number == 0 and probe.takes(native - number) and probe.takes(native + number)
        ),
        0,
    )
    smallest = native
    if multiple:
        smallest = multiple * _first(lambda count: probe.takes(multiple * count), native // multiple)
        tried = () if smallest == multiple and probe.declared.is_sized else COMMON_SIDES
        between = [side for side in tried if side % multiple == 0 and smallest < side < native]
        smallest = max([smallest, *(side + multiple for side in between if not probe.takes(side))])
        probe.train(smallest, smallest)
    return {
        "multiple_of": multiple,
        "smallest_side": smallest,
        "is_square": multiple == 0 or not probe.takes(native, native + multiple),
        "lone_record_side": _lone_record_side(probe, smallest, multiple),
    }


def _patch(model: nn.Module) -> int:
    """Side of the patches that the first convolution cuts an image into; 1 if its windows overlap.

    Of an image with another side than a multiple of it, the last rows and columns would be ignored.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            is_patch = module.kernel_size == module.stride and module.padding in ((0, 0), "valid")
            return int(module.stride[0]) if is_patch else 1
    return 1


def _lone_record_side(probe: Probe, smallest: int, multiple: int) -> int:
    """The largest side at which it does not train on a single record; 0 if there is none."""
    native = probe.declared.native_side
    if probe.takes(smallest, records=1):
        return 0
    if multiple == 0 or not probe.takes(native, records=1):
        return ALWAYS
    steps = (native - smallest) // multiple
    taken = _first(lambda count: probe.takes(smallest + multiple * count, records=1), steps)
    return smallest + multiple * (taken - 1)


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The smallest number from 1 to `last` for which it holds, if it holds for all larger ones, and for `last`."""
    low, high = 1, 1 if holds(1) else last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _size(probe: Probe, smallest: int) -> dict[str, Any]:
    """Its numbers of parameters, and the modules that depend on channels and classes."""
    shapes = {
        key: {name: tuple(p.shape) for name, p in probe.construct(*key).named_parameters()}
        for key in ((3, 1000), (1, 1000), (3, 2))
    }
    published, gray, two = shapes.values()
    count = {key: sum(torch.Size(shape).numel() for shape in each.values()) for key, each in shapes.items()}
    return {
        "parameters": count[3, 1000],
        "least_parameters": _least_parameters(probe, smallest, count[3, 1000]),
        "per_channel": (count[3, 1000] - count[1, 1000]) // 2,
        "per_class": (count[3, 1000] - count[3, 2]) // 998,
        "stem": _modules_of(published, gray),
        "head": _modules_of(published, two),
        "is_colour_only": not probe.takes_gray(),
    }


def _least_parameters(probe: Probe, smallest: int, published: int) -> int | None:
    if not probe.declared.is_sized:
        return None
    least = sum(p.numel() for p in probe.construct(3, 1000, (smallest, smallest)).parameters())
    return least if least < published else None


def _modules_of(shapes: dict[str, tuple[int, ...]], others: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names of the modules with parameters whose shapes differ."""
    changed = [name for name, shape in shapes.items() if others.get(name) != shape]
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in changed))


def _title(name: str) -> str:
    """The first sentence of the builder's docstring without addresses; the name if there is none."""
    library, _, short = name.partition("/")
    builder: Any = timm.model_entrypoint(short) if library == "timm" else torchvision_models.get_model_builder(short)
    text = (builder.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    text = re.sub(r"`([^`<]*?)\s*<[^>]*>`_*", r"\1", text)  # links
    sentence = " ".join(first_sentence(text).split())
    sentence = re.sub(r"^(Constructs|Constructor for|Builds?) (an? |the )?", "", sentence)
    sentence = re.sub(r"( from (the )?(original )?paper)? ?[(-]*\s?https?://[^\s)]+\)?", "", sentence)
    sentence = re.sub(r" (model )?(architecture )?from (the )?(.+?)( paper)?$", r" (\4)", sentence)
    return re.sub(r"( from|[ ._]+)+$", "", sentence)[:160] or short


def catalog(declare: Callable[[str], LibraryModel] = declare) -> list[ModelLibrary]:
    """All libraries with their models."""
    every = names()
    return [
        ModelLibrary(
            name=library,
            version=importlib.metadata.version(library).partition("+")[0],
            licence=licence,
            url=url,
            models=tuple(declare(name) for name in every if name.startswith(f"{library}/")),
        )
        for library, (licence, url) in SOURCES.items()
    ]


def table(libraries: Iterable[ModelLibrary]) -> str:
    """The tables of docs/models.md: how many models each library has, then those that are refused."""
    rows = []
    for library in libraries:
        offered = [model for model in library.models if model.refusal is None]
        counts = [model.parameters / 1e6 for model in offered]
        tiny = sum(model.problem_with(1, 28, 28) is None for model in offered)
        small = sum(model.problem_with(3, 32, 32) is None for model in offered)
        rows.append(
            f"| {library.name} {library.version} ({library.licence}) | {len(offered):,} | {tiny:,} | {small:,} "
            f"| {min(counts):.2g} to {max(counts):,.0f} million |"
        )
    head = "| library | models | accept 28 x 28 gray | accept 32 x 32 color | parameters |\n|---|---|---|---|---|"
    refused = [model for library in libraries for model in library.models if model.refusal is not None]
    lines = [f"| `{model.name}` | {model.refusal} |" for model in refused]
    return "\n".join(
        [head, *rows, "", f"### Refused: {len(refused)}", "", "| name | reason |", "|---|---|", *lines, ""]
    )


def main() -> None:
    """Write the file, and the tables of the documentation."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def reported(name: str) -> LibraryModel:
        declared = declare(name)
        sys.stderr.write(f"{name}: {declared.refusal or declared.smallest_side}\n")
        return declared

    libraries = catalog(reported)
    FILE.write_text(as_json(libraries))
    write_tables(PAGE, table(libraries))


def as_json(libraries: list[ModelLibrary]) -> str:
    """The content of the file: one line per model."""
    documents = []
    for library in libraries:
        document = library.model_dump(mode="json", exclude={"models"})
        lines = [json.dumps(m.model_dump(mode="json", exclude_defaults=True)) for m in library.models]
        head = json.dumps(document)[:-1]
        documents.append(f'{head}, "models": [\n' + ",\n".join(lines) + "\n]}")
    return "[\n" + ",\n".join(documents) + "\n]\n"


if __name__ == "__main__":
    main()
