"""The optimizers of the catalog as the engine builds them: parameter groups, colliding layers, fading and pairing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ko import KO
from service.specs.catalog.datasets import DATASETS, OWN, Digits
from service.specs.catalog.models import MODELS, Mlp
from service.specs.catalog.optimizers import KO_PARAMS, OPTIMIZERS, Ko, optimizer_class
from service.specs.catalog.schedules import SCHEDULES
from service.specs.training import TrainSpec
from workers.training import datasets, models, optimizers, schedules
from workers.training.run import Run

BASES = list(KO_PARAMS)
CHOICES = [(name, {}) for name in OPTIMIZERS] + [
    (wrapper, {"base": base}) for wrapper in ("ko", "bimaxwell") for base in BASES
]


@pytest.mark.parametrize(
    ("builders", "names"),
    [
        (datasets.BUILDERS, DATASETS),
        (models.BUILDERS, MODELS),
        (optimizers.BUILDERS, OPTIMIZERS),
        (schedules.BUILDERS, SCHEDULES),
    ],
)
def test_catalog_and_builders_have_same_names(builders: dict[str, object], names: dict[str, object]) -> None:
    assert set(builders) == set(names)


def test_each_kind_of_upload_has_a_builder() -> None:
    assert set(datasets.OWN_BUILDERS) == {choice.kind for choice in OWN.values()}


def test_ko_accepts_every_other_optimizer_as_base() -> None:
    assert set(BASES) == set(OPTIMIZERS) - {"ko", "bimaxwell", "control"}


@pytest.mark.parametrize(("name", "params"), CHOICES)
def test_optimizer_moves_every_weight(spec: Callable[..., TrainSpec], name: str, params: dict[str, str]) -> None:
    run = Run(
        spec(optimizer={"name": name, "params": params}, budget={"steps": 3}),
        lambda step, metrics: None,
        Path("nowhere"),
    )
    before = [p.detach().clone() for p in run.parameters]
    run.execute(lambda: None)
    for old, new in zip(before, run.parameters, strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)


def build_model(name: str) -> nn.Module:
    choice = MODELS[name]()
    inputs = datasets.Inputs((20,), 7, 50) if choice.reads == "text" else datasets.Inputs((3, 32, 32), 10)
    return models.build(choice, inputs, seed=0)


def ko_on(model: nn.Module, **params: Any) -> KO:
    choice = Ko.model_validate({"name": "ko", "params": {"lr": 1e-3, **params}})
    optimizer = optimizers.build(choice, model, seed=0, total_steps=10)
    assert isinstance(optimizer, KO)
    return optimizer


def tensors(optimizer: KO, **options: Any) -> set[nn.Parameter]:
    """The parameters of the groups with these options."""
    groups = optimizer.param_groups
    return {p for g in groups if all(g[name] == value for name, value in options.items()) for p in g["params"]}


def embeddings_of(model: nn.Module) -> set[nn.Parameter]:
    return {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}


def test_schedule_of_an_optimizer_spans_the_steps_of_the_run() -> None:
    choice = optimizer_class("pytorch_optimizer/ranger21").model_validate({"name": "pytorch_optimizer/ranger21"})
    optimizer: Any = optimizers.build(choice, build_model("mlp"), seed=0, total_steps=100)
    assert (optimizer.start_warm_down, optimizer.num_warm_down_iterations) == (72, 28)


@pytest.mark.parametrize("name", MODELS)
class TestMuon:
    def test_updates_hidden_matrices_only(self, name: str) -> None:
        model = build_model(name)
        groups = {group["use_muon"]: {p for _, p in group["params"]} for group in optimizers.muon_groups(model)}
        assert all(p.ndim >= 2 for p in groups[True])
        assert embeddings_of(model) | models.head(model) <= groups[False]
        assert groups[True] | groups[False] == set(model.parameters())
        assert not groups[True] & groups[False]

    @pytest.mark.parametrize("embeddings", [False, True])
    def test_updates_same_matrices_under_ko(self, name: str, embeddings: bool) -> None:
        model = build_model(name)
        alone = {group["use_muon"]: {p for _, p in group["params"]} for group in optimizers.muon_groups(model)}
        optimizer = ko_on(model, base="muon", embeddings=embeddings)
        assert {use: tensors(optimizer, use_muon=use) for use in (True, False)} == alone
        assert {g["lr"] for g in optimizer.param_groups if g["use_muon"]} == {1e-3}
        not_collided = {p for p in model.parameters() if p.ndim < 2} | (set() if embeddings else embeddings_of(model))
        assert tensors(optimizer, collision="none") == not_collided


class TestKo:
    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("name", ["textcnn", "transformer"])
    def test_embeddings_collide_only_on_request(self, name: str, base: str) -> None:
        model = build_model(name)
        rest = {p for p in model.parameters() if p.ndim < 2}
        assert tensors(ko_on(model, base=base), collision="none") == rest | embeddings_of(model)
        optimizer = ko_on(model, base=base, embeddings=True, group_size=32)
        assert tensors(optimizer, collision="none") == rest
        assert tensors(optimizer, collision="soft", group_size=64) == embeddings_of(model)
        assert tensors(optimizer) == set(model.parameters())

    def test_gates_and_projections_collide_separately(self) -> None:
        lstm, transformer = build_model("lstm"), build_model("transformer")
        gates = {p for name, p in lstm.named_parameters() if name.startswith("lstm.weight")}
        assert tensors(ko_on(lstm), blocks=4) == gates
        assert tensors(ko_on(transformer), blocks=3) == {
            p for name, p in transformer.named_parameters() if name.endswith("in_proj_weight")
        }

    def test_options_apply_to_every_layer(self) -> None:
        optimizer = ko_on(build_model("mlp"), group_size=16, bounded=True, gamma=0.3)
        assert {(g["group_size"], g["bounded"], g["gamma"]) for g in optimizer.param_groups} == {(16, True, 0.3)}

    @pytest.mark.parametrize("shape", ["cosine", "linear"])
    def test_strengths_fade_to_zero_over_the_budget(self, shape: str) -> None:
        optimizer = ko_on(build_model("mlp"), fade=shape, gamma=0.3, rate=0.7)
        for group in optimizer.param_groups:
            for name, start in (("gamma", 0.3), ("rate", 0.7)):
                strength = group[name]
                assert [strength(step) for step in (0, 5, 10, 11)] == pytest.approx([start, start / 2, 0, 0])
        expected = {"linear": 0.8, "cosine": (1 + math.cos(math.pi / 5)) / 2}[shape]
        assert optimizer.param_groups[0]["gamma"](2) == pytest.approx(0.3 * expected)

    def test_strengths_are_constant_without_fading(self) -> None:
        assert {g["gamma"] for g in ko_on(build_model("mlp"), gamma=0.3).param_groups} == {0.3}

    @pytest.mark.parametrize("params", [{"group_size": 4}, {"fade": "cosine"}, {"collision": "hard", "fade": "linear"}])
    def test_options_change_the_weights(self, spec: Callable[..., TrainSpec], params: dict[str, Any]) -> None:
        def train(options: dict[str, Any]) -> torch.Tensor:
            choice = {"name": "ko", "params": {"rate": 1.0} | options}
            run = Run(spec(optimizer=choice, budget={"steps": 6}), lambda step, metrics: None, Path("nowhere"))
            run.execute(lambda: None)
            return run.parameters[0].detach()

        without = {"collision": params.get("collision", "soft")}
        assert torch.equal(train(params), train(params))
        assert not torch.equal(train(params), train(without))


def test_equal_seeds_give_equal_batches_and_weights() -> None:
    request = datasets.Request(Digits(), Path("nowhere"), 64, 11, torch.device("cpu"), with_test=False)
    (first, inputs), (second, _) = datasets.load(request), datasets.load(request)
    for _ in range(2):
        for a, b in zip(first.train_batches(), second.train_batches(), strict=True):
            assert torch.equal(a[0], b[0])
    starts = [models.build(Mlp(), inputs, seed=11) for _ in range(2)]
    assert all(map(torch.equal, starts[0].parameters(), starts[1].parameters()))


def test_each_epoch_is_a_new_permutation() -> None:
    request = datasets.Request(Digits(), Path("nowhere"), 64, 11, torch.device("cpu"), with_test=False)
    task, _ = datasets.load(request)
    epochs = [list(task.train_batches()) for _ in range(2)]
    assert [len(batch[1]) for batch in epochs[0]] == [64] * 12 + [32]
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    sums = [sum(float(inputs.sum()) for inputs, _ in epoch) for epoch in epochs]
    assert sums[0] == pytest.approx(sums[1])
