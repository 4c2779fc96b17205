"""KO on two processes (CPU, gloo): DDP, FSDP2 with distributed checkpoints, and FSDP1.

The two processes start once and run all scenarios; each test checks the results of its scenario.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ko import KO
from tests.programs import run_forked

WORLD = 2
STEPS = 3
FORMS: dict[str, dict[str, Any]] = {
    "soft": {"collision": "soft", "gamma": 0.1},
    "bounded": {"collision": "soft", "gamma": 2.0, "bounded": True},
    "hard": {"collision": "hard", "rate": 20.0},
    "random_batch": {"collision": "soft", "gamma": 0.1, "group_size": 3},
    "columns": {"collision": "soft", "gamma": 0.1, "row_dim": 1, "maximize": True},
    "none": {"collision": "none"},
}
# Muon orthogonalizes in bfloat16, whose sums depend on the sharding: see test_muon_differs_by_rounding_only.
BASES = ["sgd", "adam"]


def network(base: str = "") -> nn.Sequential:
    """Layers of 7 rows (sharded unevenly over two processes), 6 rows (evenly) and 1 row (on one process only).

    torch's Muon cannot step a sharded matrix of one row (torch 2.14), so with "muon" the last layer has two.
    """
    torch.manual_seed(0)
    head = nn.Linear(6, 2 if base == "muon" else 1)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), head)


def backward(model: nn.Module, step: int, part: slice = slice(None)) -> None:
    """Gradients of a batch of 8, or of a part of it."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    model(x[part]).square().mean().backward()


def train(model: nn.Module, optimizer: KO, steps: range, part: slice = slice(None)) -> None:
    for step in steps:
        backward(model, step, part)
        optimizer.step()


def build(model: nn.Module, base: str, form: str, seed: int | None = 3) -> KO:
    options = dict(FORMS[form])
    layout = {name: options.pop(name) for name in ("row_dim", "maximize") if name in options}
    return KO([{"params": list(model.parameters()), **layout}], lr=0.05, base=base, seed=seed, **options)


def full_weights(model: nn.Module) -> list[Tensor]:
    """Copies of all parameters, gathered if they are sharded."""
    return [(p.full_tensor() if isinstance(p, DTensor) else p).detach().clone() for p in model.parameters()]


def single_process_weights(base: str, form: str) -> list[Tensor]:
    """The weights after training in a single process."""
    model = network(base)
    train(model, build(model, base, form), range(STEPS))
    return full_weights(model)


def sharded(base: str = "") -> nn.Module:
    model = network(base)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=init_device_mesh("cpu", (WORLD,)))
    return fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))


def ddp(rank: int) -> dict[str, Any]:
    torch.manual_seed(rank)
    plain = network()
    torch.manual_seed(rank + 10)
    model = DistributedDataParallel(plain)
    optimizer = build(plain, "adam", "hard", seed=None)
    half = slice(rank * 4, rank * 4 + 4)
    train(model, optimizer, range(STEPS), half)
    return {"seed": optimizer.param_groups[0]["collision_seed"], "weights": full_weights(plain)}


def fsdp2(rank: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for base in ("muon", *BASES):
        for form in FORMS:
            model = sharded(base)
            train(model, build(model, base, form), range(STEPS))
            results[f"{base}-{form}"] = full_weights(model)
    results["local rows"] = [len(p.to_local()) for p in model.parameters() if p.ndim == 2]  # type: ignore[operator]
    return results


def checkpoint(rank: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for form in ("soft", "hard"):
        for flat in (False, True):
            options = StateDictOptions(flatten_optimizer_state_dict=flat)
            model = sharded()
            optimizer = build(model, "adam", form)
            train(model, optimizer, range(1))
            model.zero_grad()
            saved = copy.deepcopy(
                (get_model_state_dict(model), get_optimizer_state_dict(model, optimizer, options=options))
            )
            restored = sharded()
            resumed = build(restored, "adam", form, seed=77)
            set_model_state_dict(restored, saved[0])
            set_optimizer_state_dict(restored, resumed, saved[1], options=options)
            train(restored, resumed, range(1, STEPS))
            results[f"{form}-{flat}"] = full_weights(restored)
    return results


def fsdp1(rank: int) -> dict[str, Any]:
    results = {}
    for original in (False, True):
        model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=original)
        try:
            KO(model.parameters())
        except ValueError as error:
            results[f"use_orig_params={original}"] = str(error)
        uncollided = KO([{"params": list(model.parameters()), "collision": "none"}], lr=0.05, seed=3)
        train(model, uncollided, range(STEPS))
        results[f"uncollided {original}"] = [p.detach().clone() for p in model.parameters()]
    return results


SCENARIOS: dict[str, Callable[[int], dict[str, Any]]] = {
    scenario.__name__: scenario for scenario in (ddp, fsdp2, checkpoint, fsdp1)
}


def work(rank: int, folder: Path) -> None:
    """Main function of one process: run all scenarios and save their results or tracebacks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=30),
    )
    results: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        try:
            results[name] = scenario(rank)
        except Exception:
            results[name] = traceback.format_exc()
            break  # the other process can be waiting for this one
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


PROGRAM = """
import sys
from pathlib import Path
import torch
from tests.unit.ko.test_distributed import WORLD, work

torch.multiprocessing.start_processes(work, (Path(sys.argv[1]),), nprocs=WORLD, start_method="fork")
print("null")
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    run_forked(PROGRAM, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def of_scenario(results: list[dict[str, Any]], scenario: str) -> list[dict[str, Any]]:
    """Results of one scenario by rank."""
    by_rank = [
        result.get(scenario, f"{scenario} was not reached; the scenarios before it failed") for result in results
    ]
    for result in by_rank:
        assert not isinstance(result, str), result
    return by_rank


class TestDDP:
    def test_all_ranks_use_the_seed_of_rank_0(self, results: list[dict[str, Any]]) -> None:
        assert [result["seed"] for result in of_scenario(results, "ddp")] == [10, 10]

    def test_weights_of_all_ranks_are_equal(self, results: list[dict[str, Any]]) -> None:
        first, second = (result["weights"] for result in of_scenario(results, "ddp"))
        assert all(map(torch.equal, first, second))

    def test_equals_a_single_process_on_the_full_batch(self, results: list[dict[str, Any]]) -> None:
        model = network()
        train(model, build(model, "adam", "hard", seed=10), range(STEPS))
        torch.testing.assert_close(of_scenario(results, "ddp")[0]["weights"], full_weights(model), rtol=1e-4, atol=1e-5)


class TestFSDP2:
    def test_rows_are_sharded_unevenly(self, results: list[dict[str, Any]]) -> None:
        assert [result["local rows"] for result in of_scenario(results, "fsdp2")] == [[4, 3, 1], [3, 3, 0]]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("base", BASES)
    def test_equals_a_single_process(self, results: list[dict[str, Any]], base: str, form: str) -> None:
        for result in of_scenario(results, "fsdp2"):
            torch.testing.assert_close(result[f"{base}-{form}"], single_process_weights(base, form))

    def test_collision_forms_give_different_weights(self, results: list[dict[str, Any]]) -> None:
        result = of_scenario(results, "fsdp2")[0]
        weights = [torch.cat([p.flatten() for p in result[f"adam-{form}"]]) for form in FORMS]
        for number, vector in enumerate(weights):
            assert not any(torch.allclose(vector, other, rtol=1e-3, atol=1e-4) for other in weights[:number])

    @pytest.mark.parametrize("form", FORMS)
    def test_muon_differs_by_rounding_only(self, results: list[dict[str, Any]], form: str) -> None:
        # Muon orthogonalizes matrices that may be nearly singular in bfloat16, so moves differ by some percent.
        def move(weights: list[Tensor]) -> Tensor:
            return torch.cat([(w - w0).flatten() for w, w0 in zip(weights, full_weights(network("muon")), strict=True)])

        for result in of_scenario(results, "fsdp2"):
            assert (
                torch.cosine_similarity(move(result[f"muon-{form}"]), move(single_process_weights("muon", form)), dim=0)
                > 0.98
            )

    @pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
    @pytest.mark.parametrize("form", ["soft", "hard"])
    def test_resumes_from_a_distributed_checkpoint(self, results: list[dict[str, Any]], form: str, flat: bool) -> None:
        uninterrupted = of_scenario(results, "fsdp2")
        for result, expected in zip(of_scenario(results, "checkpoint"), uninterrupted, strict=True):
            assert all(map(torch.equal, result[f"{form}-{flat}"], expected[f"adam-{form}"]))


class TestFSDP1:
    @pytest.mark.parametrize("original", [False, True])
    def test_flattened_parameters_raise_value_error(self, results: list[dict[str, Any]], original: bool) -> None:
        for result in of_scenario(results, "fsdp1"):
            assert result[f"use_orig_params={original}"] == (
                "params of parameter group 0: FullyShardedDataParallel has flattened a parameter, so KO cannot find "
                'its rows; use fully_shard (FSDP2), or collision="none" for this group'
            )

    def test_flattened_parameters_train_without_collisions(self, results: list[dict[str, Any]]) -> None:
        shards = [result["uncollided False"][0] for result in of_scenario(results, "fsdp1")]
        expected = torch.cat([p.flatten() for p in single_process_weights("adam", "none")])
        torch.testing.assert_close(torch.cat(shards)[: len(expected)], expected)
