"""The catalog file of the libraries' models describes the installed libraries, and models train as it says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import version

import pytest
import torch
from torch import nn

from ko import KO
from service.specs.catalog.model_libraries import LibraryModel, find_model, libraries
from service.specs.catalog.models import model_class
from tests.thoroughness import IS_FULL
from workers.training.datasets import Inputs
from workers.training.groups import ko_groups, muon_groups
from workers.training.model_catalog import declare, names
from workers.training.models import build, head

MODELS = {model.name: model for library in libraries() for model in library.models}
OFFERED = [model for model in MODELS.values() if model.refusal is None]
SAMPLE = [
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/test_convnext2",
    "timm/test_efficientnet_ln",
    "timm/test_resnet",
    "timm/test_vit",
]
"""Small models of several families, with heads that are linear layers, convolutions and pairs."""
LARGEST = 30_000_000
"""Parameters of the largest model that is trained in `make test-all`."""


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Libraries warn about deprecated names of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_file_lists_the_installed_models() -> None:
    assert names() == list(MODELS), "run `make catalog`"
    assert {library.name: library.version for library in libraries()} == {
        library.name: version(library.name).partition("+")[0] for library in libraries()
    }


@pytest.mark.parametrize("name", list(MODELS) if IS_FULL else ["timm/test_vit", "torchvision/squeezenet1_1"])
def test_file_has_what_trying_shows(name: str) -> None:
    assert declare(name) == MODELS[name], "run `make catalog`"


def largest_gray_and_smallest_colour(model: LibraryModel) -> Iterator[Inputs]:
    smallest = model.smallest_side
    yield Inputs((3, smallest, smallest), 5)
    if not model.is_colour_only:
        side = smallest + model.multiple_of
        yield Inputs((1, side, side), 7)


@pytest.mark.parametrize(
    "name", [model.name for model in OFFERED if model.parameters <= LARGEST] if IS_FULL else SAMPLE
)
def test_model_trains_on_the_images_that_the_catalog_names(name: str) -> None:
    """With the number of parameters that it says, and with KO, whose groups leave out the head."""
    declared = MODELS[name]
    for inputs in largest_gray_and_smallest_colour(declared):
        model = build(model_class(name)(), inputs, seed=0)
        assert declared.problem_with(*inputs.shape) is None
        count = sum(parameter.numel() for parameter in model.parameters())
        if not declared.is_sized:
            assert count == declared.parameters_for(inputs.shape[0], inputs.classes)
        assert {len(weight) for weight in head(model)} == {inputs.classes}
        by_adamw = {parameter for group in muon_groups(model) if not group["use_muon"] for parameter in group["params"]}
        assert head(model) <= {parameter for _, parameter in by_adamw}
        optimizer = KO(ko_groups(model, embeddings=False, for_muon=False), base=torch.optim.SGD, lr=1e-3, seed=0)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        logits = model.train()(torch.rand(4, *inputs.shape))
        nn.functional.cross_entropy(logits, torch.arange(4) % inputs.classes).backward()
        optimizer.step()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert any((parameter != old).any() for parameter, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/squeezenet1_1"])
def test_same_seed_same_weights(name: str) -> None:
    declared = find_model(name)
    assert declared is not None
    inputs = Inputs((1, declared.native_side, declared.native_side), 10)
    first, second, other = (build(model_class(name)(), inputs, seed) for seed in (0, 0, 1))
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all((a == b).all() for a, b in pairs)
    assert any((a != b).any() for a, b in zip(first.parameters(), other.parameters(), strict=True))
