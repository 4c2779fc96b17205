"""Statistics of comparisons: means, intervals, tests and adjusted p values, as pure functions on numpy arrays.

A result that cannot be computed is None, never NaN, and the field `cannot_say` gives the reason, a clause that can
follow "because". Distributions come from `scipy.special`: importing `scipy.stats` costs the API process 47 MB and 0.5 s
of CPU time, so functions that need it access it as `scipy.stats`, which scipy imports at the first use.
"""

from __future__ import annotations

from service.stats.across_tasks import interquartile_mean_across, probability_of_improvement
from service.stats.anytime import anytime
from service.stats.bootstrap import interquartile_mean
from service.stats.checks import Interval
from service.stats.friedman import average_ranks, friedman, nemenyi_critical_difference
from service.stats.paired import Paired, holm, paired_detail, paired_difference
from service.stats.power import seeds_needed
from service.stats.profiles import algoperf_scores, performance_profile
from service.stats.sample import Sample, describe
from service.stats.sequential import group_sequential
from service.stats.spending import nominal_levels
from service.stats.time_to_target import median_to_target, paired_to_target
from service.stats.tuning import expected_best, good_range

__all__ = [
    "Interval",
    "Paired",
    "Sample",
    "algoperf_scores",
    "anytime",
    "average_ranks",
    "describe",
    "expected_best",
    "friedman",
    "good_range",
    "group_sequential",
    "holm",
    "interquartile_mean",
    "interquartile_mean_across",
    "median_to_target",
    "nemenyi_critical_difference",
    "nominal_levels",
    "paired_detail",
    "paired_difference",
    "paired_to_target",
    "performance_profile",
    "probability_of_improvement",
    "seeds_needed",
]
