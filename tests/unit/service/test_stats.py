import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats

values = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6))
samples = st.lists(values, min_size=0, max_size=12)
pairs = st.lists(st.tuples(values, values), min_size=0, max_size=12)
probabilities = st.lists(st.none() | st.floats(0, 1), max_size=12)
anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6)


def numbers(result):
    """Every number in a result, intervals taken apart."""
    fields = [value for name, value in vars(result).items() if name not in {"n", "cannot_say"}]
    return [x for field in fields if field is not None for x in (field if isinstance(field, tuple) else (field,))]


class TestDescribe:
    def test_hand_computed(self):
        # mean 3, squared deviations 4 + 1 + 0 + 1 + 4 = 10, sd sqrt(10 / 4), t(4, 0.975) = 2.776 from the printed table
        result = stats.describe([1, 2, 3, 4, 5])
        assert (result.n, result.mean) == (5, 3.0)
        assert result.sd == pytest.approx(math.sqrt(2.5))
        half = 2.776 * math.sqrt(2.5) / math.sqrt(5)
        assert result.interval == pytest.approx((3 - half, 3 + half), abs=1e-3)
        assert result.cannot_say is None

    @pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
    def test_agrees_with_scipy(self, n):
        x = np.random.default_rng(n).normal(0.9, 0.01, n)
        result = stats.describe(x)
        expected = reference.t.interval(0.95, n - 1, loc=x.mean(), scale=reference.sem(x))
        assert result.interval == pytest.approx(expected, rel=1e-12)
        assert result.sd == pytest.approx(reference.tstd(x), rel=1e-12)

    @pytest.mark.parametrize(
        ("x", "mean", "sd", "because"),
        [
            ([], None, None, "no value"),
            ([0.5], 0.5, None, "only one value"),
            ([0.5, 0.5, 0.5], 0.5, 0.0, "all values are equal"),
            ([0.5, math.nan], None, None, "not finite"),
            ([0.5, math.inf], None, None, "not finite"),
            ([0.5, 1e308], None, None, "not finite"),
        ],
    )
    def test_degenerate_input_says_why(self, x, mean, sd, because):
        result = stats.describe(x)
        assert (result.n, result.mean, result.sd, result.interval) == (len(x), mean, sd, None)
        assert result.cannot_say.startswith("cannot say, because")
        assert because in result.cannot_say

    def test_values_of_equal_single_precision_are_equal(self):
        x = np.float64([0.9, np.nextafter(np.float32(0.9), np.float32(1))])
        assert stats.describe(x).interval is None

    @given(samples)
    def test_interval_holds_the_mean(self, x):
        result = stats.describe(x)
        assert (result.interval is None) == (result.cannot_say is not None)
        if result.interval is not None:
            assert result.interval[0] < result.mean < result.interval[1]

    @given(anything)
    def test_never_nan(self, x):
        assert all(math.isfinite(number) for number in numbers(stats.describe(x)))

    def test_a_table_is_refused(self):
        with pytest.raises(ValueError, match="one dimension"):
            stats.describe([[1.0, 2.0]])


class TestPairedDifference:
    def test_students_sleep_data(self):
        # Student (1908), the sleep data: mean difference 1.58, sd 1.230, t = 4.0621 with 9 df, p = 0.002833
        a = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
        b = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
        result = stats.paired_difference(a, b)
        assert result.n == 10
        assert result.difference == pytest.approx(1.58)
        assert result.p == pytest.approx(0.002833, abs=5e-7)
        assert result.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)

    @pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
    def test_agrees_with_scipy(self, n):
        generator = np.random.default_rng(n)
        a, b = generator.normal(0.9, 0.02, n), generator.normal(0.89, 0.01, n)
        result, expected = stats.paired_difference(a, b), reference.ttest_rel(a, b)
        assert result.p == pytest.approx(expected.pvalue, rel=1e-10)
        interval = expected.confidence_interval(0.95)
        assert result.interval == pytest.approx((interval.low, interval.high), rel=1e-10)

    @pytest.mark.parametrize(
        ("a", "b", "difference", "because"),
        [
            ([], [], None, "no pairs"),
            ([0.5], [0.25], 0.25, "only one pair"),
            ([0.5, 0.5], [0.5, 0.5], 0.0, "same difference"),
            ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], 0.1, "same difference"),
            ([0.5, math.nan], [0.1, 0.2], None, "not finite"),
            ([0.5, 0.4], [-math.inf, 0.2], None, "not finite"),
            ([1e-300, 0.0], [0.0, 0.0], 0.0, "same difference"),
        ],
    )
    def test_degenerate_input_says_why(self, a, b, difference, because):
        result = stats.paired_difference(a, b)
        assert (result.n, result.interval, result.p) == (len(a), None, None)
        assert result.difference == (None if difference is None else pytest.approx(difference))
        assert result.cannot_say.startswith("cannot say, because")
        assert because in result.cannot_say

    def test_different_lengths_are_refused(self):
        with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
            stats.paired_difference([1, 2], [1])

    @given(pairs)
    def test_swapping_mirrors(self, rows):
        a, b = [row[0] for row in rows], [row[1] for row in rows]
        there, back = stats.paired_difference(a, b), stats.paired_difference(b, a)
        assert there.p == back.p
        if there.interval is not None:
            assert back.interval == (-there.interval[1], -there.interval[0])
            assert back.difference == -there.difference

    @given(pairs)
    def test_interval_excludes_zero_exactly_when_p_is_below_a_twentieth(self, rows):
        result = stats.paired_difference([row[0] for row in rows], [row[1] for row in rows])
        if result.p is not None and abs(result.p - 0.05) > 1e-9:
            low, high = result.interval
            assert (low > 0 or high < 0) == (result.p < 0.05)

    @given(anything, anything)
    def test_never_nan(self, a, b):
        n = min(len(a), len(b))
        assert all(math.isfinite(number) for number in numbers(stats.paired_difference(a[:n], b[:n])))

    def test_interval_covers_the_truth_in_19_of_20_samples(self):
        generator = np.random.default_rng(0)
        a, b = generator.normal(0.3, 1, (2000, 5)), generator.normal(0, 1, (2000, 5))
        intervals = np.array([stats.paired_difference(x, y).interval for x, y in zip(a, b, strict=True)])
        covered = np.mean((intervals[:, 0] < 0.3) & (intervals[:, 1] > 0.3))
        assert covered == pytest.approx(0.95, abs=0.02)


class TestHolm:
    def test_hand_computed(self):
        # Sorted 0.005 0.01 0.03 0.04: times 4, 3, 2, 1 = 0.02 0.03 0.06 0.04, then never falling: 0.02 0.03 0.06 0.06
        assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_untested_stay_untested_and_do_not_count(self):
        assert stats.holm([None, 0.04, None]) == [None, 0.04, None]
        assert stats.holm([]) == []

    def test_equal_p_get_equal_answers(self):
        assert stats.holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])

    @given(probabilities)
    def test_between_raw_and_bonferroni_and_in_the_same_order(self, p):
        adjusted = stats.holm(p)
        both = [(raw, new) for raw, new in zip(p, adjusted, strict=True) if raw is not None]
        assert [new is None for new in adjusted] == [raw is None for raw in p]
        for raw, new in both:
            assert raw <= new <= min(1.0, raw * len(both)) + 1e-12
        by_raw = [new for _, new in sorted(both)]
        assert by_raw == sorted(by_raw)


class TestMedianToTarget:
    @pytest.mark.parametrize(
        ("hits", "median"),
        [
            ([], None),
            ([None], None),
            ([300], 300),
            ([100, 300, 200], 200),
            ([100, 300, 200, None], 250),  # the miss is the largest of four
            ([100, 300, None, None, 200], 300),
            ([100, None], None),  # half missed
            ([100, 200, None, None], None),
            ([100, None, None], None),
        ],
    )
    def test_misses_are_censored(self, hits, median):
        assert stats.median_to_target(hits) == median

    @given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9))
    def test_without_misses_it_is_the_median(self, hits):
        assert stats.median_to_target(hits) == float(np.median(hits))


def test_scipy_stats_stays_out_of_the_api_process():
    code = "import sys, service.stats; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
