from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from service import catalog
from service.spec import TrainSpec
from workers.training import datasets, models, optimizers, schedules
from workers.training.loop import Run

BASES = [
    base.model_fields["base"].default for base in (get_args(arm)[0] for arm in get_args(get_args(catalog.KoParams)[0]))
]
CHOICES = [(name, {}) for name in catalog.OPTIMIZERS] + [("ko", {"base": base}) for base in BASES]


@pytest.mark.parametrize(
    ("builders", "names"),
    [
        (datasets.BUILDERS, catalog.DATASETS),
        (models.BUILDERS, catalog.MODELS),
        (optimizers.BUILDERS, catalog.OPTIMIZERS),
        (schedules.BUILDERS, catalog.SCHEDULES),
    ],
)
def test_the_catalog_and_the_builders_name_the_same(builders: dict[str, object], names: dict[str, object]) -> None:
    assert set(builders) == set(names)


def test_every_base_is_known() -> None:
    assert set(BASES) == set(catalog.OPTIMIZERS) - {"ko"}


@pytest.mark.parametrize(("name", "params"), CHOICES)
def test_every_optimizer_moves_every_weight(spec: Callable[..., TrainSpec], name: str, params: dict[str, str]) -> None:
    run = Run(
        spec(optimizer={"name": name, "params": params}, budget={"steps": 3}),
        lambda step, metrics: None,
        Path("nowhere"),
    )
    before = [p.detach().clone() for p in run.parameters]
    run.execute(lambda: False)
    for old, new in zip(before, run.parameters, strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)


@pytest.mark.parametrize("name", catalog.MODELS)
def test_muon_takes_the_hidden_matrices_only(name: str) -> None:
    choice = catalog.MODELS[name]()
    inputs = datasets.Inputs((20,), 7, 50) if choice.reads == "text" else datasets.Inputs((3, 32, 32), 10)
    model = models.build(choice, inputs, seed=0)
    groups = {group["use_muon"]: set(group["params"]) for group in optimizers.muon_groups(model)}
    apart = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)} | {models.head(model).weight}
    assert all(p.ndim >= 2 for p in groups[True])
    assert apart <= groups[False]
    assert groups[True] | groups[False] == set(model.parameters())
    assert not groups[True] & groups[False]


@pytest.mark.parametrize("base", BASES)
def test_ko_does_not_collide_words(base: str) -> None:
    model = models.build(catalog.TextCnn(), datasets.Inputs((20,), 7, 50), seed=0)
    choice = catalog.Ko.model_validate({"name": "ko", "params": {"base": base, "lr": 1e-3}})
    groups = optimizers.build(choice, model, seed=0).param_groups
    (words,) = (m.weight for m in model.modules() if isinstance(m, nn.Embedding))
    assert {id(words)} == {id(p) for group in groups if group["collision"] == "none" for p in group["params"]}
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}


def test_two_optimizers_see_the_same_batches_and_start() -> None:
    request = datasets.Request(catalog.Digits(), Path("nowhere"), 64, 11, torch.device("cpu"), with_test=False)
    (first, inputs), (second, _) = datasets.load(request), datasets.load(request)
    for _ in range(2):
        for a, b in zip(first.train_batches(), second.train_batches(), strict=True):
            assert torch.equal(a[0], b[0])
    built = [models.build(catalog.Mlp(), inputs, seed=11) for _ in range(2)]
    assert all(map(torch.equal, built[0].parameters(), built[1].parameters()))


def test_an_epoch_is_a_new_permutation() -> None:
    request = datasets.Request(catalog.Digits(), Path("nowhere"), 64, 11, torch.device("cpu"), with_test=False)
    task, _ = datasets.load(request)
    epochs = [list(task.train_batches()) for _ in range(2)]
    assert [len(batch[1]) for batch in epochs[0]] == [64] * 12 + [32]
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    sums = [sum(float(inputs.sum()) for inputs, _ in epoch) for epoch in epochs]
    assert sums[0] == pytest.approx(sums[1])
