import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import bootstrap_interval, holm, mean_interval, paired_difference


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_the_t_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, size=n)
    interval = mean_interval(values.tolist())
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.n, interval.mean) == (n, pytest.approx(values.mean()))
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_the_t_interval_of_three_seeds_covers_the_mean_in_95_of_100_studies() -> None:
    draws = np.random.default_rng(0).normal(1.0, 0.3, size=(4000, 3))
    intervals = [mean_interval(row) for row in draws.tolist()]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    # Four standard errors of a binomial share: a false alarm in 16,000 runs of a correct interval.
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_and_no_seed_have_no_interval() -> None:
    assert mean_interval([]).n == 0
    one = mean_interval([2.0])
    assert (one.n, one.mean) == (1, 2.0)
    assert math.isnan(one.half_width)


def test_the_bootstrap_needs_twenty_values_and_then_covers() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        bootstrap_interval([1.0] * 19)
    generator = np.random.default_rng(1)
    draws = generator.exponential(size=(300, 30))
    intervals = [bootstrap_interval(row, resamples=400, seed=i) for i, row in enumerate(draws.tolist())]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.86 < covered < 0.98  # the percentile bootstrap is known to be a little narrow at n = 30
    assert all((interval.n, interval.method) == (30, "bootstrap") for interval in intervals)


def test_paired_differences_are_those_of_scipy_in_value_and_in_logarithm() -> None:
    generator = np.random.default_rng(2)
    left = dict(enumerate(np.exp(generator.normal(size=6)).tolist()))
    right = {**dict(enumerate(np.exp(generator.normal(size=6)).tolist())), 99: 4.0}  # a seed without partner
    pair = paired_difference(left, right)
    a, b = (np.array([side[seed] for seed in range(6)]) for side in (left, right))
    test = stats.ttest_rel(np.log(a), np.log(b))
    expected = test.confidence_interval(0.95)
    assert pair.n == 6
    assert pair.p_value == pytest.approx(test.pvalue)
    assert pair.ratio is not None
    assert (pair.ratio.low, pair.ratio.high) == (
        pytest.approx(np.exp(expected.low)),
        pytest.approx(np.exp(expected.high)),
    )
    difference = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (pair.difference.low, pair.difference.high) == (
        pytest.approx(difference.low),
        pytest.approx(difference.high),
    )


def test_pairing_finds_a_difference_that_the_spread_of_seeds_would_hide() -> None:
    base = {0: 1.0, 1: 5.0, 2: 9.0}
    better = {0: 0.91, 1: 4.5, 2: 8.05}
    assert paired_difference(better, base).p_value < 0.01
    assert stats.ttest_ind(list(better.values()), list(base.values())).pvalue > 0.5


def test_values_that_are_not_positive_have_no_ratio_and_are_tested_as_they_are() -> None:
    left, right = {0: -1.0, 1: 0.5, 2: 0.1}, {0: 1.0, 1: 1.1, 2: 1.5}
    pair = paired_difference(left, right)
    assert pair.ratio is None
    assert pair.p_value == pytest.approx(stats.ttest_rel(list(left.values()), list(right.values())).pvalue)


def test_differences_without_any_spread_are_not_tested() -> None:
    assert math.isnan(paired_difference({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0}).p_value)
    assert paired_difference({0: 2.0, 1: 2.0}, {0: 2.0, 1: 2.0}).p_value == 1.0
    assert math.isnan(paired_difference({0: 2.0}, {0: 1.0}).p_value)
    assert paired_difference({0: 2.0}, {1: 1.0}).n == 0


def test_holm_on_the_textbook_example_and_with_missing_comparisons() -> None:
    # Holm (1979): 0.01·4, max(·, 0.013·3), 0.014·2 carried up, 0.9.
    assert holm([0.01, 0.9, 0.014, 0.013]) == pytest.approx([0.04, 0.9, 0.04, 0.04])
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[0] == pytest.approx(0.02)
    assert adjusted[2] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert holm([]) == []
    assert holm([0.7, 0.8]) == [1.0, 1.0]


def test_holm_keeps_the_chance_of_any_false_claim_below_five_percent() -> None:
    p_values = np.random.default_rng(3).uniform(size=(3000, 6))
    wrong = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert wrong < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 3000)
