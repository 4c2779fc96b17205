"""A collision gives one result however it is computed: at once, in blocks, strips or batches, in bfloat16, compiled."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ko import KO, collisions, rng
from ko.collisions import LayerBatch, collide, soft_collision
from tests.devices import DEVICES

FORMS: list[dict[str, Any]] = [
    {"gamma": 0.2},
    {"gamma": 5.0, "bounded": True},
    {"gamma": 0.2, "group_size": 5},
    {"gamma": 5.0, "bounded": True, "group_size": 5},
    {"collision": "hard", "rate": 50.0},
]


def rows(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return (w * 0.3 + 0.1).to(device, dtype), (g + 0.3).to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bounded", [False, True])
class TestBlocks:
    def test_result_does_not_depend_on_block_and_strip_sizes(
        self, device: str, bounded: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        w, g = rows(53, 7, device=device)
        w[3], g[20, 1] = 0, torch.inf
        whole = collisions.soft(w, g, 0.2, bounded)
        for strip in (1, 10, 64):
            monkeypatch.setattr(soft_collision, "_CPU_STRIP_ROWS", strip)
            for n_rows in (1, 7, 52, 53):
                monkeypatch.setattr(soft_collision, "BLOCK_BYTES", n_rows * 53 * 8)
                torch.testing.assert_close(collisions.soft(w, g, 0.2, bounded), whole)
                batch = collisions.soft(torch.stack((w, w)), torch.stack((g, g)), 0.2, bounded)
                torch.testing.assert_close(batch, torch.stack((whole, whole)))

    def test_bfloat16_cosines_and_products_are_within_their_rounding_error(self, device: str, bounded: bool) -> None:
        # A cosine in bfloat16 is off by at most 2^-8, a product of two by 2^-7; a sum of many by much less.
        w, g = rows(300, 40, device=device)
        exact = collisions.soft(w, g, 0.1, bounded)
        change = (exact - g).norm()
        w, g = w.float(), g.float()
        before = torch.get_float32_matmul_precision()
        try:
            for precision, tolerance in (("highest", 2**-8), ("medium", 2**-7)):
                torch.set_float32_matmul_precision(precision)
                close = collisions.soft(w, g, 0.1, bounded, gram=torch.bfloat16)
                assert 0 < (close - exact).norm() / change < tolerance
            g[7] = torch.nan
            assert collisions.soft(w, g, 0.1, bounded, gram=torch.bfloat16).isnan().any(1).sum() == 1
        finally:
            torch.set_float32_matmul_precision(before)


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that an operation returns."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.n_bytes = max(self.n_bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("options", [{}, {"bounded": True}, {"group_size": 64}])
def test_no_tensor_exceeds_the_memory_limit(options: dict[str, Any]) -> None:
    w, g = (r.float() for r in rows(6000, 3))  # all pairs: 144 MB
    with Largest() as largest:
        collisions.soft(w, g, 0.1, **options)
    assert largest.n_bytes <= collisions.BLOCK_BYTES < 6000 * 6000 * 4


@pytest.mark.parametrize("device", DEVICES)
class TestTogether:
    def test_batch_of_hard_collisions_equals_single_layers(self, device: str) -> None:
        w, g = rows(3, 11, 6, device=device)
        keys = [rng.key(k) for k in range(3)]
        together, shares = collisions.collide_pairs(w, g, 3.0, rng.as_tensor(keys))
        for k in range(3):
            alone, share = collisions.collide_pairs(w[k], g[k], 3.0, keys[k])
            assert torch.equal(together[k], alone)
            assert torch.equal(shares[k], share[0])
        assert 0 < shares.min() <= shares.max() <= 1

    @pytest.mark.parametrize("form", FORMS)
    def test_foreach_equals_for_loop(self, device: str, form: dict[str, Any]) -> None:
        results = []
        for foreach in (False, True, None):
            torch.manual_seed(0)
            model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 3)).double().to(device)
            optimizer = KO(model.parameters(), lr=0.1, base="sgd", seed=3, foreach=foreach, **form)
            for step in range(3):
                optimizer.zero_grad()
                x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
                model(x.to(device)).square().sum().backward()
                optimizer.step()
            results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(results[0], results[2], rtol=1e-9, atol=1e-12)

    def test_random_numbers_do_not_depend_on_the_device(self, device: str) -> None:
        w, g = rows(40, 6)
        expected = collisions.hard(w, g, 3.0, 5)
        torch.testing.assert_close(collisions.hard(w.to(device), g.to(device), 3.0, 5).cpu(), expected)
        for options in ({}, {"bounded": True}, {"group_size": 7, "key": 4}):
            moved = collisions.soft(w.to(device), g.to(device), 0.2, **options)  # type: ignore[arg-type]
            torch.testing.assert_close(moved.cpu(), collisions.soft(w, g, 0.2, **options))  # type: ignore[arg-type]


class TestCompiled:
    def batches(self, strength: float, key: int) -> list[LayerBatch]:
        force, keys = torch.tensor(strength, dtype=torch.float64), rng.as_tensor([key, key + 1])
        w, g = rows(2, 9, 5)
        return [
            LayerBatch(w, g, force, None, False, False, None),
            LayerBatch(w, g, force, None, False, True, None),
            LayerBatch(w, g, force, keys, False, False, 4),
            LayerBatch(w, g, force, keys, False, True, 4),
            LayerBatch(w, g, force * 10, keys, True, False, None),
            LayerBatch(w[:1], g[:1], force * 10, keys[:1], True, False, None),
        ]

    def test_compiles_one_graph_for_all_strengths_and_steps(self) -> None:
        torch.compiler.reset()
        graphs = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(collide, fullgraph=True, backend=backend)  # fullgraph: a graph break is an error
        for strength, key in ((0.1, 1), (0.2, 2), (0.0, 3)):
            results, shares = compiled(self.batches(strength, key))
            expected, expected_shares = collide(self.batches(strength, key))
            for a, b in zip(results, expected, strict=True):
                torch.testing.assert_close(a, b)
            assert [s is None for s in shares] == [s is None for s in expected_shares]
            torch.testing.assert_close(shares[4].double(), expected_shares[4].double())  # type: ignore[union-attr]
        assert len(graphs) == 1
