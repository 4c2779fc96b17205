"""The models: shapes of outputs, padding of texts and initial weights."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from service.specs.catalog.models import MODELS, Mlp, MlpParams, ResNet18
from workers.training.datasets import Inputs
from workers.training.models import build, head

IMAGES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar": (3, 32, 32)}
TEXTS = [name for name, choice in MODELS.items() if choice.reads == "text"]
TEXT = Inputs((15,), 7, 50)


def words(*lengths: int) -> Tensor:
    """Texts of these lengths, padded to the longest."""
    ids = torch.randint(
        2, 50, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0), dtype=torch.int32
    )
    return ids * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_image_model_has_one_output_per_class(name: str, shape: tuple[int, ...]) -> None:
    model = build(MODELS[name](), Inputs(shape, 10), seed=0)
    assert model(torch.rand(2, *shape)).shape == (2, 10)
    (weight,) = head(model)
    assert len(weight) == 10


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_deep_resnet_has_one_output_per_class(name: str) -> None:
    model = build(MODELS[name](), Inputs((1, 8, 8), 100), seed=0)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 100)


def test_resnet_stem_depends_on_image_size() -> None:
    small, large, grey = (
        build(ResNet18(), Inputs(shape, 10), seed=0) for shape in ((3, 64, 64), (3, 65, 65), (1, 96, 96))
    )
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(small.maxpool, nn.Identity)
    assert (large.conv1.kernel_size, large.conv1.in_channels) == ((7, 7), 3)
    assert (grey.conv1.kernel_size, grey.conv1.in_channels) == ((7, 7), 1)


@pytest.mark.parametrize("name", MODELS)
def test_single_record_trains_unless_the_catalog_says_otherwise(name: str) -> None:
    """The API refuses such batches by `Model.batch_side`."""
    choice = MODELS[name]
    for side, shape in {1: (3, 1, 1), 8: (1, 5, 8), 9: (1, 8, 9), 65: (3, 2, 65)}.items():
        inputs, batch = (
            (Inputs(shape, 7), torch.rand(1, *shape)) if choice.reads == "image" else (TEXT, words(min(side, 12)))
        )
        model = build(choice(), inputs, seed=0)
        with pytest.raises(ValueError, match="more than 1 value") if side <= choice.batch_side else nullcontext():
            model(batch)


@pytest.mark.parametrize("name", TEXTS)
def test_text_model_has_one_finite_output_per_class(name: str) -> None:
    model = build(MODELS[name](), TEXT, seed=0).eval()
    assert model(words(5, 0, 12, 1)).shape == (4, 7)
    assert model(words(5, 0, 12, 1)).isfinite().all()


@pytest.mark.parametrize("name", TEXTS)
def test_text_model_ignores_padding(name: str) -> None:
    model = build(MODELS[name](), TEXT, seed=0).eval()
    texts = words(6, 1, 12)
    alone = torch.cat([model(text[None, :length]) for text, length in zip(texts, (6, 1, 12), strict=True)])
    torch.testing.assert_close(model(nn.functional.pad(texts, (0, 3))), alone)


def test_init_scale_multiplies_initial_weights() -> None:
    params = MlpParams(hidden=(16,), init_scale=0.1)
    plain = build(Mlp(params=MlpParams(hidden=(16,))), Inputs((1, 8, 8), 10), seed=2)
    small = build(Mlp(params=params), Inputs((1, 8, 8), 10), seed=2)
    for a, b in zip(plain.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a * 0.1, b)


def test_mlp_without_hidden_layers_is_linear() -> None:
    model = build(Mlp(params=MlpParams(hidden=())), Inputs((1, 8, 8), 10), seed=0)
    assert sum(p.numel() for p in model.parameters()) == 650
