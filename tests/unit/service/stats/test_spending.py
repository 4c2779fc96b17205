"""Nominal levels of the planned looks, and the overall p value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats
from service.stats.spending import SMALLEST_ALPHA, levels_that_spend, overall_p


class TestNominalLevels:
    def test_levels_for_looks_at_5_10_and_20_seeds(self):
        # Exact for t; the normal scores of Armitage, McPherson & Rowe would give 0.0031, 0.0105, 0.0432
        assert stats.nominal_levels((5, 10, 20)) == pytest.approx((0.003125, 0.00984, 0.04158), abs=1e-5)

    def test_single_look_is_an_ordinary_t_test(self):
        assert stats.nominal_levels((7,), 0.05) == pytest.approx((0.05,))

    @pytest.mark.parametrize(
        ("spent", "published"),
        [
            (lambda t: 4 * reference.norm.sf(reference.norm.isf(0.0125) / t**0.5), (4.877, 3.357, 2.680, 2.290, 2.031)),
            (lambda t: 0.05 * np.log(1 + (np.e - 1) * t), (2.438, 2.427, 2.410, 2.397, 2.386)),
        ],
        ids=["O'Brien-Fleming type", "Pocock type"],
    )
    def test_levels_for_many_seeds_equal_published_normal_boundaries(self, spent, published):
        # Lan & DeMets' boundaries for five equal looks at two-sided 5 % (Reboussin et al. 2000, program LanDeM; R's
        # ldbounds). t comes within 1 / n of them: extrapolated from 20 and 40 seeds a look.
        t = np.array([1, 2, 3, 4, 5]) / 5
        z = [
            reference.norm.isf(levels_that_spend(tuple(seeds * np.arange(1, 6)), spent(t)[None])[0] / 2)
            for seeds in (20, 40)
        ]
        assert 2 * z[1] - z[0] == pytest.approx(np.array(published), abs=1.5e-3)

    @pytest.mark.parametrize("alpha", [0.05, 0.05 / 300])
    def test_levels_of_two_looks_agree_with_quadrature(self, alpha):
        # P(|t_3| < c1 and |t_4| < c2) over the sphere of directions: v = (r_3 part) integrated with scipy
        first, second = stats.nominal_levels((3, 4), alpha)
        c1, c2 = reference.t.isf(first / 2, 2), reference.t.isf(second / 2, 3)

        def stopped_late(s):
            # With s = x_4 and mean m, spread q of the three others on the unit sphere: angle between them is free
            rest = 1 - s**2

            def crosses(angle):
                total, within = (3 * rest) ** 0.5 * np.cos(angle), rest * np.sin(angle) ** 2
                t3 = total / 3 / np.sqrt(within / 2 / 3)
                mean = (total + s) / 4
                t4 = mean / np.sqrt((rest + s**2 - 4 * mean**2) / 3 / 4)
                return (abs(t3) < c1) & (abs(t4) >= c2)

            angles = (np.arange(20_000) + 0.5) * np.pi / 20_000
            return np.mean(crosses(angles) * np.sin(angles)) * np.pi / 2

        s = (np.arange(2000) + 0.5) / 1000 - 1
        weights = np.sqrt(1 - s**2)
        late = np.array([stopped_late(value) for value in s]) @ weights / weights.sum()
        assert first + late == pytest.approx(alpha, rel=5e-3)

    def test_levels_increase_with_alpha_and_sum_to_at_least_alpha(self):
        small, large = (stats.nominal_levels((5, 8, 13, 20), alpha) for alpha in (0.01, 0.05))
        assert all(a < b for a, b in zip(small, large, strict=True))
        assert sum(large) > 0.05 > large[-1]  # more than Bonferroni allows, less than a single test

    @pytest.mark.parametrize("looks", [(), (1, 5), (5, 5), (10, 5)])
    def test_raises_value_error_for_invalid_looks(self, looks):
        with pytest.raises(ValueError, match="increasing numbers of seeds"):
            stats.nominal_levels(looks)

    @pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
    def test_raises_value_error_for_alpha_out_of_range(self, alpha):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.nominal_levels((5, 10), alpha)


class TestOverallP:
    @pytest.mark.parametrize("looks", [(5, 10, 20), (2, 3, 4), (3, 30), tuple(range(3, 16))])
    def test_inverts_the_levels(self, looks):
        for alpha in (0.05 / 300, 0.004, 0.05, 0.3, 0.97):
            levels = stats.nominal_levels(looks, alpha)
            for look, level in enumerate(levels):
                assert overall_p(looks, look, level) == pytest.approx(alpha, rel=3e-3)

    def test_increases_with_the_nominal_p(self):
        p = np.geomspace(1e-12, 1, 400)
        overall = [overall_p((5, 10, 20), 1, value) for value in p]
        assert overall == sorted(overall)
        assert overall[0] == SMALLEST_ALPHA
        assert overall[-1] == 1

    def test_overall_p_is_1_if_the_look_cannot_spend_enough(self):
        assert overall_p((5, 10, 20), 0, 0.07) == 1  # even alpha = 1 spends 1/16 there


@given(
    st.sets(st.integers(2, 79), max_size=4), st.sampled_from([80, 200]), st.sampled_from([0.05, 0.05 / 30, 0.05 / 300])
)
def test_level_is_between_share_of_look_and_total_spent(looks, last, alpha):
    """A level below the share of the look would waste it; one above the total spent would exceed the error rate."""
    plan = (*sorted(looks), last)
    spent = alpha * np.square(np.array(plan) / last)
    share = np.diff(spent, prepend=0.0)
    levels = np.array(stats.nominal_levels(plan, alpha))
    assert (levels >= 0.99 * share).all()
    assert (levels <= 1.01 * spent).all()


def test_raises_value_error_for_more_than_200_seeds():
    with pytest.raises(ValueError, match="200"):
        stats.nominal_levels((10, 201))
