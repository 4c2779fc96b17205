"""Coverage of intervals and error rates of tests over simulated optimizers. Seeded; all decisions by `service.stats`.

Limits include the Monte Carlo error of the rate: `margin` is three standard errors at the nominal rate. A method with
exactly this rate would fail with 1 of 700 seeds; a method with twice the rate always fails.
"""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as reference

from service import stats
from tests.thoroughness import replicates

LOOKS = (5, 10, 20)
ALPHA = 0.05


def margin(number):
    return 3 * (ALPHA * (1 - ALPHA) / number) ** 0.5


def identical(number, optimizers, seeds, rng):
    """Scores of identical optimizers, (replicates, optimizers, seeds), with a common effect of the seed."""
    shared = rng.normal(size=(number, 1, seeds))
    return 0.9 + 0.01 * (0.7 * shared + rng.normal(size=(number, optimizers, seeds)))


class TestCoverage:
    def test_paired_t_interval_of_five_seeds(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(0.3, 1, (replicates(4000), 5)), rng.normal(0, 1, (replicates(4000), 5))
        low, high = np.array([stats.paired_difference(x, y).interval for x, y in zip(a, b, strict=True)]).T
        assert np.mean((low < 0.3) & (high > 0.3)) == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize("effect", [0.0, 0.5, 1.0])
    def test_repeated_interval_at_the_look_where_it_stops(self, effect):
        """Effects that stop early, late and never."""
        number = replicates(4000)
        differences = np.random.default_rng(1).normal(effect, 1, (number, 20))
        results = [stats.group_sequential(x, LOOKS) for x in differences]
        missed = np.mean([not result.interval[0] < effect < result.interval[1] for result in results])
        assert missed <= ALPHA + margin(number)
        assert np.mean([result.crossed for result in results]) == pytest.approx(
            {0: 0.05, 0.5: 0.55, 1: 0.99}[effect], abs=1.9 / number**0.5
        )

    def test_levels_of_all_looks_spend_exactly_alpha(self):
        """With a look at each of 5 to 10 seeds, levels for normal statistics would have an error rate of 5.7 %."""
        looks, number = tuple(range(5, 11)), replicates(150_000)
        differences = np.random.default_rng(2).normal(0, 1, (number, 10))
        stopped = np.zeros(number, dtype=bool)
        for n, level in zip(looks, stats.nominal_levels(looks, ALPHA), strict=True):
            stopped |= reference.ttest_1samp(differences[:, :n], 0, axis=1).pvalue <= level
        assert stopped.mean() == pytest.approx(ALPHA, abs=margin(number))

    def test_anytime_interval_under_adversarial_stopping(self):
        """An adversary stops at an n from 2 to 50 at which the interval misses the true effect, if any."""
        differences = np.random.default_rng(3).normal(0.4, 1, (replicates(400), 50))
        missed = 0
        for x in differences:
            intervals = (stats.anytime(x[:n]).interval for n in range(2, 51))
            missed += any(not interval[0] < 0.4 < interval[1] for interval in intervals if interval)
        assert 0 < missed / len(differences) <= ALPHA + margin(len(differences))

    @pytest.mark.parametrize("tasks", [4, 8])
    def test_probability_of_improvement_with_five_seeds_per_task(self, tasks):
        """Coverage is about 93 %, as documented: resampling 5 seeds reproduces 4/5 of their variance."""
        rng = np.random.default_rng(4)
        runs = zip(rng.normal(0.5, 1, (800, tasks, 5)), rng.normal(0, 1, (800, tasks, 5)), strict=True)
        results = [stats.probability_of_improvement(a, b, replicates=300) for a, b in runs]
        truth = 0.638163  # normal scores: Phi(0.5 / sqrt 2)
        assert 0.90 < np.mean([result.interval[0] < truth < result.interval[1] for result in results]) < 0.96


@pytest.mark.parametrize("optimizers", [2, 5])
class TestFalseVerdicts:
    """Any significant difference between identical optimizers is a false verdict."""

    number = replicates(2500)

    def test_rate_with_a_fixed_number_of_seeds_and_holm(self, optimizers):
        rate = self.rate(optimizers, 5, self.by_holm(stats.paired_difference))
        assert 0.01 < rate <= ALPHA + margin(self.number)

    def test_rate_with_planned_looks_and_bonferroni(self, optimizers):
        pairs = optimizers * (optimizers - 1) // 2

        def decides(scores):
            tests = (stats.group_sequential(a - b, LOOKS, ALPHA / pairs, scale=1.0) for a, b in combinations(scores, 2))
            return any(test.crossed for test in tests)

        assert 0.01 < self.rate(optimizers, 20, decides) <= ALPHA + margin(self.number)

    def test_rate_with_a_look_after_each_seed_and_holm(self, optimizers):
        rate = self.rate(optimizers, 20, self.by_holm(lambda a, b: stats.anytime(a - b, scale=1.0)))
        assert 0.005 < rate <= ALPHA + margin(self.number)

    def by_holm(self, test):
        def decides(scores):
            return any(p <= ALPHA for p in stats.holm([test(a, b).p for a, b in combinations(scores, 2)]))

        return decides

    def rate(self, optimizers, seeds, decides):
        rng = np.random.default_rng(optimizers)
        return np.mean([decides(scores) for scores in identical(self.number, optimizers, seeds, rng)])


class TestAddingSeedsUntilSignificant:
    """The mistake that planned looks and always-valid tests prevent: adding seeds while the interval contains zero."""

    def test_from_3_to_20_seeds_23_percent_of_identical_pairs_are_significant(self):
        scores = identical(replicates(1500), 2, 20, np.random.default_rng(6))
        rate = np.mean([any(self.excludes_zero(a[:n], b[:n]) for n in range(3, 21)) for a, b in scores])
        assert rate == pytest.approx(0.23, abs=3 * (0.23 * 0.77 / len(scores)) ** 0.5)

    def test_at_5_10_and_20_seeds_the_error_rate_is_twice_alpha(self):
        scores = identical(replicates(3000), 2, 20, np.random.default_rng(7))
        rate = np.mean([any(self.excludes_zero(a[:n], b[:n]) for n in LOOKS) for a, b in scores])
        assert rate > 2 * ALPHA

    def excludes_zero(self, a, b):
        low, high = stats.paired_difference(a, b).interval
        return low > 0 or high < 0
