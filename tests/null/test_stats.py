"""The order-statistic interval against scipy-free oracles: exact binomial sums and simulated coverage."""

import random
from itertools import product

import pytest

from seqroof.roofline import stats


def test_median_of_even_and_odd():
    assert stats.median([3, 1, 2]) == 2
    assert stats.median([4, 1, 2, 3]) == 2.5


@pytest.mark.parametrize("n", range(6, 16))
def test_interval_covers_the_median_by_enumeration(n):
    """Each sample lies below the median with probability one half: count all 2^n patterns."""
    low, high = stats.interval_ranks(n)
    covered = sum(low < sum(below) <= high for below in product((0, 1), repeat=n))
    assert covered / 2**n >= 0.95


def test_interval_is_the_narrowest_that_covers():
    low, high = stats.interval_ranks(20)
    narrower = sum(low + 1 < sum(below) <= high - 1 for below in product((0, 1), repeat=20)) / 2**20
    assert narrower < 0.95


def test_five_samples_give_their_range():
    assert stats.interval_ranks(5) == (0, 4)


def test_interval_of_rounds_that_differ_is_the_wider_one():
    quiet_within = [[1.0 + 0.1 * r + 1e-4 * s for s in range(30)] for r in range(6)]
    low, _, high = stats.timing_interval(quiet_within)
    assert low <= 1.01 and high >= 1.5


def test_coverage_on_skewed_samples():
    source = random.Random(1)
    hits = 0
    for _ in range(400):
        samples = [source.lognormvariate(0, 0.5) for _ in range(21)]
        low, _, high = stats.median_interval(samples)
        hits += low <= 1.0 <= high
    assert hits / 400 >= 0.94


def test_drift_is_seen_and_noise_is_not():
    assert stats.drift([1, 1, 1.1, 1.1, 1.2, 1.2]) == pytest.approx(0.2)
    assert stats.drift([1, 1.2, 1, 1.2, 1, 1.2]) == 0
    assert stats.drift([1, 2, 3]) == 0


def test_many_samples_are_ranked_at_once_and_as_if_exactly():
    exact = stats.interval_ranks(1000)
    stats.interval_ranks.cache_clear()
    low, high = stats.interval_ranks(1001)
    assert abs(low - exact[0]) <= 2 and abs(high - exact[1]) <= 2
    low, high = stats.interval_ranks(1_000_000)
    assert 500_000 - 1000 < low < high < 500_000 + 1000
