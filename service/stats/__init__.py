"""Statistics of a comparison: numbers in; means, intervals, tests and adjusted p out.

Pure functions on numpy arrays. What cannot be said is None with the reason beside it, never NaN. Distributions come
from `scipy.special`, because `scipy.stats` alone would triple the memory of the API process.
"""

from __future__ import annotations

from service.stats.across import interquartile_mean_across, probability_of_improvement
from service.stats.anytime import Anytime, anytime
from service.stats.bootstrap import Estimate, interquartile_mean, stratified_bootstrap
from service.stats.friedman import Friedman, average_ranks, friedman, nemenyi_critical_difference
from service.stats.paired import Paired, PairedDetail, holm, paired_detail, paired_difference
from service.stats.power import seeds_needed
from service.stats.profiles import algoperf_scores, performance_profile, performance_ratios
from service.stats.ranks import cliffs_delta, wilcoxon_p
from service.stats.samples import Sample, describe
from service.stats.sequential import Sequential, group_sequential
from service.stats.signs import PValue, sign_flip_p
from service.stats.spending import nominal_levels
from service.stats.targets import PairedToTarget, median_to_target, paired_to_target
from service.stats.tuning import GoodRange, expected_best, good_range
from service.stats.values import CONFIDENCE, Interval

__all__ = [
    "CONFIDENCE",
    "Anytime",
    "Estimate",
    "Friedman",
    "GoodRange",
    "Interval",
    "PValue",
    "Paired",
    "PairedDetail",
    "PairedToTarget",
    "Sample",
    "Sequential",
    "algoperf_scores",
    "anytime",
    "average_ranks",
    "cliffs_delta",
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
    "performance_ratios",
    "probability_of_improvement",
    "seeds_needed",
    "sign_flip_p",
    "stratified_bootstrap",
    "wilcoxon_p",
]
