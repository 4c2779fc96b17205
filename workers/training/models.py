"""Builders of the catalog's models. The last linear layer of each is its head."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet18, resnet34, resnet50

from service.specs.catalog.model_libraries import LibraryModel
from service.specs.catalog.models import CnnParams, LstmParams, MlpParams, Model, TextCnnParams, TransformerParams
from workers.training import model_libraries
from workers.training.datasets import Inputs
from workers.training.words import PADDING

SMALL_SIDE = 64
"""Up to this image side, in pixels, ResNets have a stem without downsampling."""


def build(choice: Model, inputs: Inputs, seed: int) -> nn.Module:
    """The model on the CPU, with torch's default initialization for `seed`, multiplied by `init_scale` if it has one.

    Models of libraries have the initialization of their library. Seeds the global generators, which dropout uses, too.
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    if choice.declared is not None:
        return _of_library(choice.declared, inputs)
    model: nn.Module = BUILDERS[choice.name](choice.params, inputs)
    scale = getattr(choice.params, "init_scale", 1.0)
    if scale != 1.0:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
    return model


def _of_library(declared: LibraryModel, inputs: Inputs) -> nn.Module:
    channels, height, width = inputs.shape
    model = model_libraries.construct(declared, channels, (height, width), inputs.classes)
    _HEADS[model] = declared.head
    return model


_HEADS: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()
"""Model of a library -> names of the modules of its head."""


def head(model: nn.Module) -> set[Tensor]:
    """The weights of a model's head: of the linear layer registered last, or as the catalog says."""
    if (names := _HEADS.get(model)) is not None:
        return {parameter for name in names for parameter in model.get_submodule(name).parameters()}
    return {[module for module in model.modules() if isinstance(module, nn.Linear)][-1].weight}


def mlp(params: MlpParams, inputs: Inputs) -> nn.Module:
    """ReLU layers of the given widths on the flattened image, or on a table's row."""
    widths = (math.prod(inputs.shape), *params.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip(widths, params.hidden, strict=False):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], inputs.classes))


def cnn(params: CnnParams, inputs: Inputs) -> nn.Module:
    """Convolution, ReLU and pooling for each number of channels; an image of one pixel is not pooled further."""
    fan_in, *sides = inputs.shape
    layers: list[nn.Module] = []
    for fan_out in params.channels:
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU()]
        if min(sides) >= 2:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        fan_in = fan_out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(fan_in * sides[0] * sides[1], inputs.classes))


def _resnet(architecture: Callable[..., ResNet]) -> Callable[[Any, Inputs], nn.Module]:
    def resnet(params: object, inputs: Inputs) -> nn.Module:
        channels, *sides = inputs.shape
        model: nn.Module = architecture(num_classes=inputs.classes)
        if max(sides) <= SMALL_SIDE:
            model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        elif channels != 3:
            model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        return model

    return resnet


class TextCnn(nn.Module):
    """Convolutions over word vectors, maximum over the words, dropout, one linear layer (Kim 2014)."""

    def __init__(self, params: TextCnnParams, inputs: Inputs) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs.vocabulary, params.embedding)
        sizes = params.kernel_sizes
        self.convolutions = nn.ModuleList(nn.Conv1d(params.embedding, params.channels, size) for size in sizes)
        self.dropout = nn.Dropout(params.dropout)
        self.head = nn.Linear(params.channels * len(sizes), inputs.classes)
        self._sizes = sizes

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, classes) of word ids (B, words)."""
        ids = _trimmed(ids)
        mask = (ids != PADDING).unsqueeze(1)  # (B, 1, words)
        vectors = self.embedding(ids).transpose(1, 2) * mask  # (B, embedding, words)
        # A window starts at each word and may extend past the last one, so that logits do not depend on the padding.
        features = [
            (convolution(nn.functional.pad(vectors, (0, size - 1))).relu() * mask).max(2).values
            for size, convolution in zip(self._sizes, self.convolutions, strict=True)
        ]
        logits: Tensor = self.head(self.dropout(torch.cat(features, 1)))
        return logits


class Lstm(nn.Module):
    """LSTM over the words; the state after the last word (and, backwards, the first) goes through one linear layer."""

    def __init__(self, params: LstmParams, inputs: Inputs) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs.vocabulary, params.embedding)
        self.lstm = nn.LSTM(
            params.embedding, params.hidden, params.layers, batch_first=True, bidirectional=params.bidirectional
        )
        self.dropout = nn.Dropout(params.dropout)
        self._directions = 2 if params.bidirectional else 1
        self.head = nn.Linear(self._directions * params.hidden, inputs.classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, classes) of word ids (B, words)."""
        lengths = (ids != PADDING).sum(1).clamp(min=1).cpu()
        words = nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        with _autocast_of_lstm(ids.device):
            _, (state, _) = self.lstm(words)  # (layers * directions, B, hidden)
        last = state[-self._directions :].transpose(0, 1).flatten(1)  # (B, directions * hidden)
        logits: Tensor = self.head(self.dropout(last))
        return logits


def _autocast_of_lstm(device: torch.device) -> AbstractContextManager[object]:
    """Use float32 on CPUs without bf16 instructions: there, oneDNN has no LSTM for bf16 and raises an error."""
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


class Transformer(nn.Module):
    """Pre-norm encoder with learned positions, mean over the words, one linear layer."""

    def __init__(self, params: TransformerParams, inputs: Inputs) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs.vocabulary, params.width)
        self.positions = nn.Embedding(inputs.shape[0], params.width)
        self.dropout = nn.Dropout(params.dropout)
        layer = nn.TransformerEncoderLayer(
            params.width, params.heads, params.feedforward, params.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, params.layers, nn.LayerNorm(params.width), False)
        self.head = nn.Linear(params.width, inputs.classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, classes) of word ids (B, words)."""
        ids = _trimmed(ids)
        padding = ids == PADDING  # (B, words)
        padding[:, 0] = False  # an empty text attends to its first padding: attention needs at least one key
        positions = torch.arange(ids.shape[1], device=ids.device)
        tokens = self.dropout(self.embedding(ids) + self.positions(positions))  # (B, words, width)
        encoded = self.encoder(tokens, src_key_padding_mask=padding)
        mask = (~padding).unsqueeze(2)  # (B, words, 1)
        logits: Tensor = self.head((encoded * mask).sum(1) / mask.sum(1))
        return logits


def _trimmed(ids: Tensor) -> Tensor:
    """Word ids (B, words) without the columns that are padding in every text; at least one column remains."""
    longest = int((ids != PADDING).sum(1).max())
    return ids[:, : max(1, longest)]


BUILDERS: dict[str, Callable[[Any, Inputs], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": _resnet(resnet18),
    "resnet34": _resnet(resnet34),
    "resnet50": _resnet(resnet50),
    "textcnn": TextCnn,
    "lstm": Lstm,
    "transformer": Transformer,
}
