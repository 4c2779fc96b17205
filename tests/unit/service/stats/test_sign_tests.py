"""The sign-flip test: exact and sampled p values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service.stats.sign_tests import FLIPS, sign_flip_p

anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=15)


class TestSignFlip:
    def test_hand_computed(self):
        # |1 + 2 + 3 - 0.5| = 5.5 is reached by +++-, ++++ and their mirrors: 4 of 16
        assert sign_flip_p([1, 2, 3, -0.5]).p == pytest.approx(4 / 16)

    @pytest.mark.parametrize("n", [2, 5, 9, 12])
    def test_exact_agrees_with_scipy(self, n):
        x = np.random.default_rng(n).normal(0.5, 1, n)
        expected = reference.permutation_test(
            (x,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        assert sign_flip_p(x).p == pytest.approx(expected.pvalue, abs=1e-12)

    def test_ties_with_the_observed_mean_count_as_extreme(self):
        x = [0.1, 0.2, 0.3]  # -0.1 - 0.2 + 0.3 is not 0 in doubles, 0.1 + 0.2 not 0.3
        expected = sum(abs(a + 2 * b + 3 * c) >= 0 for a, b, c in itertools.product((-1, 1), repeat=3)) / 8
        assert sign_flip_p([x[0], x[1], -x[2]]).p == expected == 1

    def test_sampled_p_beyond_12_is_close_to_exact(self):
        x = np.random.default_rng(1).normal(0.2, 1, 14)
        signs = np.array(list(itertools.product((-1, 1), repeat=14)))
        exact = np.mean(np.abs(signs @ x) >= abs(x.sum()) - 1e-9)
        sampled = sign_flip_p(x).p
        assert 0.02 < exact < 0.5
        assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / FLIPS))
        assert sampled != exact

    def test_sampled_p_is_positive_and_reproducible(self):
        x = np.linspace(1, 2, 300)
        assert sign_flip_p(x).p == 1 / (1 + FLIPS)
        y = np.random.default_rng(2).normal(0.1, 1, 40)
        assert sign_flip_p(y).p == sign_flip_p(y).p != sign_flip_p(y, rng=1).p

    def test_differences_within_rounding_of_scale_are_equal(self):
        x = [1e-9, -2e-9, 3e-9]
        assert sign_flip_p(x).p == pytest.approx(0.75)
        assert "differences are all equal" in sign_flip_p(x, scale=0.9).cannot_say

    @given(anything)
    def test_never_nan(self, check_invariants, x):
        check_invariants(sign_flip_p(x))
