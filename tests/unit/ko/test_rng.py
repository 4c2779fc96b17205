"""Keys and random numbers of the collisions."""

import torch

from ko import rng


def test_key_depends_on_parts_and_their_order() -> None:
    keys = {rng.key(*parts) for parts in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0), (0,), (2**63, 0, 0)]}
    assert len(keys) == 7
    assert all(0 <= key < 2**64 for key in keys)


def test_equals_the_published_splitmix64_sequence() -> None:
    # The first outputs for the seed 1234567, from Vigna's reference implementation.
    bits = rng.bits(1234567, torch.arange(1, 4)).tolist()
    assert [b % 2**64 for b in bits] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_is_uniform() -> None:
    u = rng.uniform(rng.bits(7, torch.arange(100_000)))
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    assert float(((counts - 5000) ** 2 / 5000).sum()) < 43.8  # 0.999 quantile of chi-square, 19 degrees of freedom


def test_normal_has_the_moments_of_a_standard_normal_and_independent_halves() -> None:
    z = rng.normal(rng.bits(7, torch.arange(100_000)[:, None])).double()  # (100000, 2)
    assert z.mean().abs() < 0.01
    assert (z.var() - 1).abs() < 0.02
    assert (z.pow(4).mean() - 3).abs() < 0.1
    assert (z[:, 0] * z[:, 1]).mean().abs() < 0.015
    assert (z[:-1] * z[1:]).mean().abs() < 0.015
