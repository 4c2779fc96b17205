"""Collisions agree with float64 numpy references and have the documented properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ko import collisions, rng

pytestmark = pytest.mark.usefixtures("device")

Array = NDArray[np.float64]


def layer(n: int, d: int, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)), generator.standard_normal((n, d))


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(a).to(torch.get_default_device()) for a in arrays]


def reference_cosine(a: Array, b: Array) -> float:
    lengths = math.sqrt(sum(a * a)) * math.sqrt(sum(b * b))
    return float(sum(a * b)) / lengths if 0 < lengths < math.inf else 0.0


def reference_c(w: Array, g: Array) -> Array:
    """C by its definition, one pair of rows at a time."""
    n = len(w)
    c = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            c[i, j] = reference_cosine(w[i], w[j]) * reference_cosine(g[i], g[j])
    return c


def reference_soft(w: Array, g: Array, gamma: float, bounded: bool) -> Array:
    c = reference_c(w, g)
    if bounded:
        largest = max(sum(abs(row)) for row in c)
        gamma = min(gamma, 0.95 / largest) if largest else gamma
    return g - gamma * c @ g


def reference_bits(key: int, counters: list[int]) -> list[int]:
    """SplitMix64 in Python integers, masked to 64 bits."""
    mask, bits = 2**64 - 1, []
    for number in counters:
        z = (number * 0x9E3779B97F4A7C15 + key) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        bits.append(z ^ (z >> 31))
    return bits


def signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


def matching(n: int, key: int) -> torch.Tensor:
    """Rows in the order that pairs row p with row p + n // 2."""
    return torch.tensor(sorted(range(n), key=lambda i: signed(reference_bits(key, [i])[0])))


def reference_hard(w: Array, g: Array, rate: float, key: int) -> Array:
    n, d = g.shape
    result = g.copy()
    order = matching(n, key).tolist()
    pairs = [(order[p], order[p + n // 2]) for p in range(n // 2)]
    speed = [np.linalg.norm(g[i] - g[j]) for i, j in pairs]
    for p, (i, j) in enumerate(pairs):
        probability = rate * speed[p] / max(speed) * np.exp(-np.linalg.norm(w[i] - w[j]))
        if (reference_bits(key, [n + p])[0] >> 40) / 2**24 >= min(probability, 1):
            continue
        half = (d + 1) // 2
        bits = reference_bits(key, [n + n // 2 + p * half + k for k in range(half)])
        radius = [math.sqrt(-2 * math.log(((b >> 40) + 1) / 2**24)) for b in bits]
        angle = [2 * math.pi * ((b >> 8) & 0xFFFFFF) / 2**24 for b in bits]
        cosines = [r * math.cos(a) for r, a in zip(radius, angle, strict=True)]
        sines = [r * math.sin(a) for r, a in zip(radius, angle, strict=True)]
        direction = np.array((cosines + sines)[:d])
        direction /= np.linalg.norm(direction)
        result[i] = (g[i] + g[j]) / 2 + speed[p] / 2 * direction
        result[j] = (g[i] + g[j]) / 2 - speed[p] / 2 * direction
    return result


SHAPES = [(2, 1), (2, 3), (7, 5), (16, 4), (5, 33)]


class TestSoft:
    @pytest.mark.parametrize("bounded", [False, True])
    @pytest.mark.parametrize("gamma", [0.0, 0.03, 1.0])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_equals_the_reference(self, shape: tuple[int, int], gamma: float, bounded: bool) -> None:
        w, g = layer(*shape)
        result = collisions.soft(*tensors(w, g), gamma, bounded)
        np.testing.assert_allclose(result.cpu().numpy(), reference_soft(w, g, gamma, bounded), rtol=1e-12, atol=1e-14)

    def test_float32_and_half_precision_agree_with_the_reference(self) -> None:
        w, g = layer(12, 20)
        expected = reference_soft(w, g, 0.1, False)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)):
            result = collisions.soft(*(t.to(dtype) for t in tensors(w, g)), 0.1)
            assert result.dtype == dtype
            np.testing.assert_allclose(result.double().cpu().numpy(), expected, atol=tolerance)

    @pytest.mark.parametrize("bounded", [False, True])
    def test_a_zero_row_has_cosine_zero_with_every_row(self, bounded: bool) -> None:
        w, g = layer(5, 3)
        w[1], g[3] = 0, 0
        result = collisions.soft(*tensors(w, g), 0.5, bounded).cpu().numpy()
        np.testing.assert_array_equal(result[[1, 3]], g[[1, 3]])
        others = [0, 2, 4]
        np.testing.assert_allclose(result[others], reference_soft(w[others], g[others], 0.5, bounded))

    def test_zero_weights_or_gradients_change_nothing(self) -> None:
        zero, g = torch.zeros(3, 4), torch.randn(3, 4)
        assert torch.equal(collisions.soft(zero, g, 0.5, bounded=True), g)
        assert torch.equal(collisions.soft(g, zero, 0.5, bounded=True), zero)

    @pytest.mark.parametrize("bounded", [False, True])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_non_finite_rows_pass_through_and_do_not_affect_others(self, bad: float, bounded: bool) -> None:
        w, g = layer(6, 4)
        w[1, 2], g[4, 0] = bad, bad
        result = collisions.soft(*tensors(w, g), 0.2, bounded).cpu().numpy()
        np.testing.assert_array_equal(result[[1, 4]], g[[1, 4]])
        others = [0, 2, 3, 5]
        np.testing.assert_allclose(result[others], reference_soft(w[others], g[others], 0.2, bounded))

    def test_rows_too_short_for_a_direction_do_not_interact(self) -> None:
        for w, g in ((torch.ones(3, 1), torch.full((3, 1), 1e-39)), (torch.full((3, 1), 1e-39), torch.ones(3, 1))):
            assert torch.equal(collisions.soft(w, g, 0.3), g)

    def test_extreme_scales_neither_overflow_nor_underflow(self) -> None:
        w, g = (t.float() for t in tensors(*layer(8, 4)))
        expected = collisions.soft(w, g, 0.3)
        for scale in (2.0**-50, 2.0**50):
            torch.testing.assert_close(collisions.soft(w * scale, g * scale, 0.3) / scale, expected)

    @given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32), st.floats(1e-6, 1e6))
    def test_homogeneous_of_degree_one_in_the_gradients(self, n: int, d: int, seed: int, scale: float) -> None:
        w, g = tensors(*layer(n, d, seed))
        for bounded in (False, True):
            scaled = collisions.soft(w, g * scale, 0.1, bounded)
            torch.testing.assert_close(scaled, collisions.soft(w, g, 0.1, bounded) * scale)

    @given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32))
    def test_c_is_positive_semidefinite_and_its_largest_eigenvalue_bounded_by_the_row_sums(
        self, n: int, d: int, seed: int
    ) -> None:
        # With gamma 1, g - soft(g) is C g.
        w, g = layer(n, d, seed)
        c = reference_c(w, g)
        moved = g - collisions.soft(*tensors(w, g), 1.0).cpu().numpy()
        np.testing.assert_allclose(moved, c @ g, atol=1e-12)
        assert np.sum(g * moved) >= -1e-12  # g^T C g, column by column
        eigenvalues = np.linalg.eigvalsh(c)
        assert eigenvalues[0] >= -1e-12
        assert eigenvalues[-1] <= np.abs(c).sum(axis=1).max() + 1e-12 <= n + 1e-11

    @given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32), st.floats(0, 100))
    def test_bounded_form_is_a_descent_direction(self, n: int, d: int, seed: int, gamma: float) -> None:
        w, g = tensors(*layer(n, d, seed))
        assert (g * collisions.soft(w, g, gamma, bounded=True)).sum() >= 0.049 * g.square().sum()

    def test_printed_form_reverses_aligned_rows_beyond_the_bound(self) -> None:
        w = g = torch.ones(16, 4)  # lambda_max(C) = N = 16
        assert (g * collisions.soft(w, g, 0.9 / 16)).sum() > 0
        assert (g * collisions.soft(w, g, 1.1 / 16)).sum() < 0

    @given(st.integers(2, 10), st.integers(1, 6), st.integers(0, 2**32), st.floats(0.01, 0.99))
    def test_printed_form_is_a_descent_direction_below_the_bound(self, n: int, d: int, seed: int, share: float) -> None:
        # gamma below 1 / lambda_max: g . (I - gamma C) g >= (1 - share) |g|^2.
        w, g = layer(n, d, seed)
        gamma = share / np.linalg.eigvalsh(reference_c(w, g))[-1]
        w_, g_ = tensors(w, g)
        assert (g_ * collisions.soft(w_, g_, gamma)).sum() >= (1 - share - 1e-9) * g_.square().sum()

    def test_equivariant_under_permutation_of_rows(self) -> None:
        w, g = tensors(*layer(9, 5))
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0), device="cpu").to(
            torch.get_default_device()
        )
        torch.testing.assert_close(collisions.soft(w[order], g[order], 0.1), collisions.soft(w, g, 0.1)[order])


class TestHard:
    @pytest.mark.parametrize("shape", [(2, 2), (7, 5), (16, 4), (21, 33)])
    @pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
    def test_equals_the_reference(self, shape: tuple[int, int], key: int) -> None:
        w, g = layer(*shape)
        w *= 0.1
        expected = reference_hard(w, g, 2.0, key)
        assert not np.array_equal(expected, g)  # something collided
        np.testing.assert_allclose(collisions.hard(*tensors(w, g), 2.0, key).cpu().numpy(), expected, atol=1e-5)

    @given(st.integers(2, 20), st.integers(2, 9), st.integers(0, 2**32), st.integers(0, 2**64 - 1))
    def test_conserves_momentum_and_energy_of_each_pair(self, n: int, d: int, seed: int, key: int) -> None:
        _, g = tensors(*layer(n, d, seed))
        result = collisions.hard(torch.zeros_like(g), g, 1e9, key)  # equal positions: all pairs of unequal speed
        order = matching(n, key)
        first, second = order[: n // 2], order[n // 2 : n // 2 * 2]
        torch.testing.assert_close(result[first] + result[second], g[first] + g[second])
        before, after = (x[first].square().sum(1) + x[second].square().sum(1) for x in (g, result))
        torch.testing.assert_close(after, before)
        assert not torch.isclose(result[first], g[first]).all(dim=1).any()
        if n % 2:
            assert torch.equal(result[order[-1]], g[order[-1]])  # the unpaired row is unchanged

    def test_direction_is_defined_for_the_smallest_draw(self) -> None:
        # This key's radius rounds to 1 before the logarithm, so that both normal numbers of the direction would be 0.
        g = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        turned = collisions.hard(torch.zeros(2, 2), g, 1e9, 20455328)
        torch.testing.assert_close(turned.norm(dim=1), torch.ones(2))

    def test_one_column_is_returned_unchanged(self) -> None:
        w, g = torch.zeros(6, 1), torch.randn(6, 1)
        result = collisions.hard(w, g, 1e9, 3)
        assert torch.equal(result, g)
        assert result.data_ptr() != g.data_ptr()

    def test_no_collision_at_rate_zero_equal_gradients_or_large_distance(self) -> None:
        w, g = (t.float() for t in tensors(*layer(8, 3)))
        assert torch.equal(collisions.hard(w, g, 0.0, 1), g)
        assert torch.equal(collisions.hard(w, torch.ones(8, 3), 1e9, 1), torch.ones(8, 3))
        assert torch.equal(collisions.hard(w * 1e4, g, 0.5, 1), g)

    def test_acceptance_follows_the_collision_probability(self) -> None:
        # 4 rows, so 2 candidate pairs. The share of collisions over many keys against the stated probability.
        w = torch.tensor([[0.0, 0], [0.3, 0], [0, 0.5], [0.2, 0.2]], dtype=torch.float64)
        g = torch.tensor([[1.0, 0], [0, 1], [3, 0], [0.5, 0.5]], dtype=torch.float64)
        expected, collided, variance = 0.0, 0, 0.0
        for key in map(rng.key, range(1500)):
            order = matching(4, key).tolist()
            pairs = [(order[0], order[2]), (order[1], order[3])]
            speeds = [float((g[i] - g[j]).norm()) for i, j in pairs]
            for (i, j), speed in zip(pairs, speeds, strict=True):
                p = 0.7 * speed / max(speeds) * math.exp(-float((w[i] - w[j]).norm()))
                expected, variance = expected + p, variance + p * (1 - p)
            collided += int((collisions.hard(w, g, 0.7, key) != g).any(dim=1).sum()) // 2
        assert abs(collided - expected) < 4 * math.sqrt(variance)

    def test_directions_are_uniform_on_the_circle(self) -> None:
        # Chi-square over 16 sectors, 15 degrees of freedom: 37.7 is the 0.999 quantile; the keys are fixed.
        w, g = torch.zeros(2, 2), torch.tensor([[1.0, 0], [-1.0, 0]])
        turned = torch.stack([collisions.hard(w, g, 1e9, rng.key(step))[0] for step in range(3200)])
        sector = ((torch.atan2(turned[:, 1], turned[:, 0]) + math.pi) / (2 * math.pi) * 16).long().clamp(max=15)
        counts = torch.bincount(sector, minlength=16)
        assert float(((counts - 200) ** 2 / 200).sum()) < 37.7

    @pytest.mark.parametrize("d", [2, 3, 9])
    def test_directions_are_uniform_on_the_sphere(self, d: int) -> None:
        # The square of a coordinate of a uniform point on the sphere has the Beta(1/2, (d-1)/2) distribution, each sign
        # is as likely as the other, and different coordinates are uncorrelated. Chi-square over 10 equally likely
        # classes (9 degrees of freedom) and normal bounds, each at the 0.999 level; the keys are fixed.
        w, g = torch.zeros(2, d), torch.eye(d)[:1] * torch.tensor([[1.0], [-1.0]])
        n = 1000
        points = torch.stack([collisions.hard(w, g, 1e9, rng.key(7, step))[0] for step in range(n)]).cpu().numpy()
        edges = stats.beta.ppf(np.linspace(0, 1, 11), 0.5, (d - 1) / 2)
        for column in range(d):
            counts, _ = np.histogram(points[:, column] ** 2, bins=edges)
            assert counts.sum() == n
            assert stats.chisquare(counts).pvalue > 0.001 / d
            assert abs((points[:, column] > 0).sum() - n / 2) < 3.3 * math.sqrt(n / 4)
        products = points[:, 0] * points[:, 1]
        assert abs(products.mean()) < 3.3 * products.std() / math.sqrt(n)

    def test_homogeneous_of_degree_one_in_the_gradients(self) -> None:
        w, g = tensors(*layer(10, 6))
        torch.testing.assert_close(
            collisions.hard(w * 0.1, g * 1e-3, 1.0, 5), collisions.hard(w * 0.1, g, 1.0, 5) * 1e-3
        )

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_rows_do_not_collide(self, bad: float) -> None:
        g = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), device="cpu").to(torch.get_default_device())
        w = torch.zeros(8, 3)
        g[2, 1], w[5, 0] = bad, bad
        touched = torch.zeros(8, dtype=torch.bool)
        for key in range(30):
            result = collisions.hard(w, g, 1e9, key)
            assert torch.equal(result[[2, 5]].nan_to_num(), g[[2, 5]].nan_to_num())
            healthy = [0, 1, 3, 4, 6, 7]
            assert result[healthy].isfinite().all()
            touched |= (result != g).any(dim=1)
        assert touched[[0, 1, 3, 4, 6, 7]].all()

    def test_result_has_the_half_precision_dtype(self) -> None:
        g = (
            torch.randn(6, 4, generator=torch.Generator().manual_seed(0), device="cpu")
            .to(torch.get_default_device())
            .half()
        )
        result = collisions.hard(torch.zeros_like(g), g, 1e9, 0)
        assert result.dtype == torch.float16
        torch.testing.assert_close(result.sum(0), g.sum(0), atol=1e-2, rtol=0)
