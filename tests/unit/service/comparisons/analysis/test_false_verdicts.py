"""Rates of false verdicts between equal optimizers, from the schedule of the runs to the verdict."""

import numpy as np
import pytest
from scipy.stats import binom

from tests.thoroughness import replicates
from tests.unit.service.comparisons.analysis.synthetic_runs import answer, play_runs
from tests.unit.service.comparisons.plans import fixed, scored


def most_false_reports(reports):
    """The number of false reports that a rate of 5 % exceeds with probability 0.005."""
    return binom.isf(0.005, reports, 0.05)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    ("seeds", "reports"),
    [(5, 400), ({"max": 20, "looks": [5, 10, 20]}, 200), ({"max": 8, "looks": "any"}, 100)],
)
def test_equal_optimizers_get_false_verdicts_in_at_most_5_percent(count, seeds, reports):
    """From the schedule to the verdict; values of a seed are correlated, as in real runs."""
    reports = replicates(reports)
    plan = fixed(count, seeds=seeds)
    rng = np.random.default_rng(11)
    false = 0
    for _ in range(reports):
        shared, own = rng.normal(0, 0.01, 20), rng.normal(0, 0.01, (count, 20))
        runs = play_runs(plan, lambda c, s=shared, o=own: scored(float(0.9 + s[c.seed] + o[c.optimizer, c.seed])))
        (task,) = answer(plan, runs).tasks
        significant = any(pair.significant for pair in task.pairs)
        false += significant
        assert significant or not task.verdict.decided
    assert false <= most_false_reports(reports)


def test_dropped_optimizer_causes_no_false_verdicts_on_the_others():
    """Two equal optimizers, and one that gets no seeds after the first look: false reports on the former."""
    plan = fixed(3, seeds={"max": 20, "looks": [5, 10, 20]})
    rng = np.random.default_rng(12)
    false, reports = 0, replicates(200)
    for _ in range(reports):
        own = rng.normal(0, 0.01, (3, 20)) - np.array([[0.0], [0.0], [0.3]])
        runs = play_runs(plan, lambda c, o=own: scored(float(0.9 + o[c.optimizer, c.seed])))
        assert len([run for run in runs if run.cell.optimizer == 2]) < 20
        (task,) = answer(plan, runs).tasks
        false += any(pair.significant for pair in task.pairs if "0.003" not in pair.a + pair.b)
    assert false <= most_false_reports(reports)
