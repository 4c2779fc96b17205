"""Seeds needed for a given power of the paired t test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats
from service.stats.power import power_of_t


def differences(effect, n=5):
    """n values whose mean is `effect` times their sd."""
    x = np.arange(float(n))
    return x / x.std(ddof=1) - x.mean() / x.std(ddof=1) + effect


class TestSeedsNeeded:
    @pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
    def test_equals_published_sample_sizes(self, effect, n):
        # Published for a paired t test at 5 %, two-sided, with power 0.8 (G*Power 3.1): 199, 34, 15
        assert stats.seeds_needed(differences(effect)) == n
        assert stats.seeds_needed(-differences(effect)) == n

    @pytest.mark.parametrize("n", [2, 3, 5, 20, 60])
    @pytest.mark.parametrize("effect", [0.05, 0.3, 0.6])
    @pytest.mark.parametrize("alpha", [0.05, 0.005])
    def test_power_agrees_with_scipys_noncentral_t(self, n, effect, alpha):
        critical = reference.t.isf(alpha / 2, n - 1)
        shift = effect * n**0.5
        expected = reference.nct.sf(critical, n - 1, shift) + reference.nct.cdf(-critical, n - 1, shift)
        assert power_of_t(n, effect, alpha) == pytest.approx(expected, abs=2e-4)

    def test_smaller_level_and_higher_power_need_more_seeds(self):
        x = differences(0.7)
        assert stats.seeds_needed(x) < stats.seeds_needed(x, alpha=0.005) < stats.seeds_needed(x, 0.005, power=0.95)

    @pytest.mark.parametrize("x", [[], [1.0], [1.0, 1.0], [1.0, np.nan], [-1.0, 1.0], differences(0.001)])
    def test_none_for_untestable_differences(self, x):
        assert stats.seeds_needed(x) is None

    def test_huge_effect_needs_two_seeds(self):
        assert stats.seeds_needed([1.0, 1.0 + 1e-6]) == 2

    @pytest.mark.parametrize(("alpha", "power"), [(0, 0.8), (0.05, 1), (np.nan, 0.8)])
    def test_raises_value_error_for_alpha_or_power_out_of_range(self, alpha, power):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.seeds_needed([1, 2], alpha, power)

    @given(st.lists(st.floats(), max_size=6))
    def test_never_raises(self, x):
        needed = stats.seeds_needed(x)
        assert needed is None or 2 <= needed <= 10_000
