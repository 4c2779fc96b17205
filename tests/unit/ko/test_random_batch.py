"""Random batches: soft collisions within random groups estimate the sum over all rows."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ko import collisions, rng
from ko.collisions.soft_collision import _random_groups
from tests.devices import DEVICES

N, D = 12, 5


def layer(n: int = N, d: int = D, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    w, g = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return (w + 1).to(device), (g + 1).to(device)  # similar rows, so that the estimated sum is not small


def groups_of(n: int, size: int, key: int = 0) -> list[list[int]]:
    return [rows for chunk in _random_groups(torch.zeros(n, 3), size, key) for rows in chunk.tolist()]


class TestGroups:
    @pytest.mark.parametrize("n", [2, 3, 7, 12, 95, 127, 128, 1000])
    @pytest.mark.parametrize("size", [2, 3, 4, 64])
    def test_every_row_is_in_one_group_of_at_least_two(self, n: int, size: int) -> None:
        groups = groups_of(n, size)
        assert sorted(row for group in groups for row in group) == list(range(n))
        heights = {len(group) for group in groups}
        assert min(heights) >= 2
        assert max(heights) - min(heights) <= 1
        assert max(heights) <= max(1.5 * size, 3)  # about `size`

    def test_keys_give_different_groups(self) -> None:
        assert groups_of(64, 8, key=1) != groups_of(64, 8, key=2)

    def test_all_pairs_share_a_group_equally_often(self) -> None:
        # 66 pairs, each together with probability 3 / 11; chi-square with 65 degrees of freedom, 0.999 quantile. Pairs
        # of one grouping depend on each other, which makes the statistic smaller: the test is on the safe side.
        counts = np.zeros((N, N))
        n_draws = 4000
        for step in range(n_draws):
            for group in groups_of(N, 4, rng.key(step)):
                counts[np.ix_(group, group)] += 1
        counts_of_pairs = counts[np.triu_indices(N, 1)]
        expected = n_draws * 3 / 11
        assert ((counts_of_pairs - expected) ** 2 / (expected * (1 - 3 / 11))).sum() < stats.chi2.ppf(
            0.999, len(counts_of_pairs) - 1
        )


@pytest.mark.parametrize("device", DEVICES)
class TestEstimate:
    @pytest.mark.parametrize("size", [2, 3, 4, 5, 7])  # 12 rows: into 6, 4, 3, 2 and 2 groups
    def test_unbiased_in_the_unbounded_form(self, device: str, size: int) -> None:
        # 60 numbers with 3,000 draws each; a two-sided test of each at 0.001 / 60 makes 99.9 % confidence in all.
        w, g = layer(device=device)
        exact = collisions.soft(w, g, 0.3)
        draws = torch.stack([collisions.soft(w, g, 0.3, group_size=size, key=rng.key(s)) for s in range(3000)])
        error = draws.std(0) / len(draws) ** 0.5
        assert (error > 0).all()
        assert ((draws.mean(0) - exact).abs() / error).max() < stats.norm.ppf(1 - 0.001 / 60 / 2)

    def test_unbiased_where_the_group_size_does_not_divide(self, device: str) -> None:
        w, g = layer(11, device=device)
        draws = torch.stack([collisions.soft(w, g, 0.3, group_size=4, key=rng.key(s)) for s in range(3000)])
        error = draws.std(0) / len(draws) ** 0.5
        z = (draws.mean(0) - collisions.soft(w, g, 0.3)).abs() / error
        assert z.max() < stats.norm.ppf(1 - 0.001 / 55 / 2)

    def test_equals_the_formula(self, device: str) -> None:
        w, g = layer(10, device=device)
        expected = g.clone()
        for group in groups_of(10, 3, key=5):
            unit = [collisions.unit_rows(rows[group]) for rows in (w, g)]
            c = (unit[0] @ unit[0].mT) * (unit[1] @ unit[1].mT)
            c = c * 9 / (len(group) - 1)
            c.fill_diagonal_(1)
            expected[group] -= 0.2 * c @ g[group]
        torch.testing.assert_close(collisions.soft(w, g, 0.2, group_size=3, key=5), expected)

    def test_group_of_all_rows_is_exact(self, device: str) -> None:
        w, g = layer(device=device)
        for size in (9, N, 10**6):
            torch.testing.assert_close(collisions.soft(w, g, 0.3, group_size=size), collisions.soft(w, g, 0.3))

    def test_bounded_form_is_a_descent_direction(self, device: str) -> None:
        w, g = layer(40, device=device)
        for key in range(50):
            moved = collisions.soft(w, g, 1e3, bounded=True, group_size=5, key=key)
            assert (g * moved).sum() >= 0.049 * g.square().sum()

    def test_batch_of_layers_equals_single_layers(self, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        w, g = (torch.randn(3, 10, 4, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
        keys = [rng.key(k) for k in range(3)]
        for bounded in (False, True):
            together = collisions.soft(w, g, 2.0, bounded, group_size=3, key=rng.as_tensor(keys))
            alone = [collisions.soft(w[k], g[k], 2.0, bounded, group_size=3, key=keys[k]) for k in range(3)]
            torch.testing.assert_close(together, torch.stack(alone))

    def test_zero_and_non_finite_rows_are_handled_as_in_the_exact_form(self, device: str) -> None:
        w, g = layer(device=device)
        w[1], g[3], g[5, 0] = 0, 0, torch.nan
        for bounded in (False, True):
            moved = collisions.soft(w, g, 0.5, bounded, group_size=4, key=1)
            assert torch.equal(moved[[1, 3]], g[[1, 3]])
            assert moved[5].isnan().tolist() == [True, False, False, False, False]
            assert moved[[0, 2, 4, 6, 7, 8, 9, 10, 11]].isfinite().all()
