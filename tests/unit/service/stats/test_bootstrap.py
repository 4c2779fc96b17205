"""The stratified bootstrap and the interquartile mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats
from service.stats import bootstrap


class TestStratifiedBootstrap:
    def test_seeds_stay_within_their_task(self):
        tasks = [np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])]

        def sum_of_means(resampled):
            for x, original in zip(resampled, tasks, strict=True):
                assert x.shape == (50, len(original))
                assert set(x.ravel()) == set(original)
            return resampled[0].mean(axis=1) + resampled[1].mean(axis=1)

        assert bootstrap.stratified_bootstrap(tasks, sum_of_means, replicates=50).shape == (50,)

    def test_variance_of_the_mean_is_the_plug_in_estimate(self):
        # Var of a stratified resampled mean of means: sum over tasks of s_t^2 (ddof 0) / n_t, over T^2
        generator = np.random.default_rng(5)
        tasks = [generator.normal(0, 1, 5), generator.normal(5, 3, 9)]
        means = bootstrap.stratified_bootstrap(
            tasks, lambda x: (x[0].mean(axis=1) + x[1].mean(axis=1)) / 2, replicates=20_000
        )
        expected = sum(x.var() / len(x) for x in tasks) / 4
        assert means.var() == pytest.approx(expected, rel=0.04)  # four standard errors: sqrt(2 / 20,000) each

    def test_result_does_not_depend_on_block_size(self, monkeypatch):
        tasks = [np.arange(7.0)]
        calls = []

        def total(x):
            calls.append(len(x[0]))
            return x[0].sum(axis=1)

        monkeypatch.setattr(bootstrap, "BLOCK", 70)
        assert bootstrap.stratified_bootstrap(tasks, total, replicates=25).shape == (25,)
        assert calls == [10, 10, 5]

    def test_reproducible_by_default(self):
        tasks = [np.arange(7.0)]
        first, second, other = (
            bootstrap.stratified_bootstrap(tasks, lambda x: x[0].sum(axis=1), replicates=9, rng=rng)
            for rng in (0, 0, 1)
        )
        assert (first == second).all()
        assert (first != other).any()


class TestInterquartileMean:
    @pytest.mark.parametrize("n", [20, 21, 22, 23, 100])
    def test_value_agrees_with_scipy(self, n):
        x = np.random.default_rng(n).exponential(size=n)
        assert stats.interquartile_mean(x).value == pytest.approx(reference.trim_mean(x, 0.25), rel=1e-12)

    def test_interval_agrees_with_scipy(self):
        x = np.random.default_rng(0).normal(size=40)
        result = stats.interquartile_mean(x, replicates=20_000)
        expected = reference.bootstrap(
            (x,),
            lambda x, axis: reference.trim_mean(x, 0.25, axis=axis),
            method="percentile",
            n_resamples=20_000,
            rng=np.random.default_rng(1),
        ).confidence_interval
        assert result.interval == pytest.approx((expected.low, expected.high), abs=0.02)  # a width of 0.7

    def test_no_value_below_20_values(self):
        result = stats.interquartile_mean(range(19))
        assert (result.n, result.value, result.interval) == (19, None, None)
        assert result.cannot_say == "percentile intervals need 20 values; there are 19"

    def test_no_interval_for_equal_values(self):
        result = stats.interquartile_mean([0.5] * 20)
        assert (result.value, result.interval) == (0.5, None)
        assert "all values are equal" in result.cannot_say

    @given(st.lists(st.floats(), max_size=3), st.integers(0, 30))
    def test_never_nan(self, check_invariants, values, repetitions):
        check_invariants(stats.interquartile_mean(values * repetitions, replicates=20))
