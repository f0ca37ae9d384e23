"""The order-statistic interval against scipy-free oracles: exact binomial sums and simulated coverage."""

import math
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


@pytest.mark.parametrize("n", range(5, 13))
def test_signed_ranks_by_enumeration(n):
    """All 2^n signs of the ranks: the interval misses the centre at most once in twenty, a narrower one more often."""
    sums = [sum(rank for rank, sign in enumerate(signs, start=1) if sign) for signs in product((0, 1), repeat=n)]
    outside = stats.signed_rank(n)
    if n < 6:
        assert outside == 0 and 2 * sums.count(0) / 2**n > 0.05
    else:
        assert 2 * sum(total <= outside for total in sums) / 2**n <= 0.05
        assert 2 * sum(total <= outside + 1 for total in sums) / 2**n > 0.05


def test_the_interval_holds_the_centres_that_the_test_does_not_reject():
    """The other way round: shift the centre, and count the ranks of positive differences."""
    source = random.Random(3)
    values = [source.gauss(0.3, 1) for _ in range(12)]
    low, middle, high = stats.centre_interval(values)

    def rejected(centre):
        ranked = sorted((value - centre for value in values), key=abs)
        positive = sum(rank for rank, value in enumerate(ranked, start=1) if value > 0)
        return min(positive, 12 * 13 // 2 - positive) < stats.signed_rank(12) + 1

    assert rejected(low - 1e-9) and rejected(high + 1e-9)
    assert not any(rejected(low + share * (high - low)) for share in (1e-9, 0.3, 0.7, 1 - 1e-9))
    assert low < middle < high


def test_a_far_tail_does_not_move_the_centre():
    values = [0.01 * (index % 5 - 2) for index in range(20)]
    low, middle, high = stats.centre_interval([*values[:-1], 50.0])
    assert abs(middle) < 0.01 and -0.02 < low <= high < 0.02


def test_many_pairs_are_merged_with_their_neighbours():
    waves = [math.sin(index / 20) for index in range(400)]  # neighbours alike: far fewer than 400 independent values
    low, _, high = stats.centre_interval(waves)
    alone = stats.centre_interval(waves[::8])
    assert high - low >= 0.9 * (alone[2] - alone[0])


# Two-sided 95 % and 99 % points of any printed table of Student's t.
@pytest.mark.parametrize(
    ("freedom", "probability", "value"),
    [(1, 0.975, 12.7062), (2, 0.995, 9.92484), (3, 0.975, 3.18245), (5, 0.995, 4.03214), (20, 0.995, 2.84534)],
)
def test_student_as_in_the_tables(freedom, probability, value):
    assert stats.student(freedom, probability) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("probability", [0.975, 0.9975, 0.99999])
def test_student_of_many_degrees_goes_on_where_the_exact_one_ends(probability):
    below, above = stats.student(stats.NORMAL_BEYOND, probability), stats.student(stats.NORMAL_BEYOND + 1, probability)
    assert 0.999 * below < above < below


def test_levels_that_differ_between_blocks_count():
    noise = [0.001 * (index * 7 % 5 - 2) for index in range(20)]
    step = [value + (0.05 if index >= 10 else 0.0) for index, value in enumerate(noise)]
    assert stats.slow_spread(noise) < 0.002 and stats.slow_spread(step) > 0.02
    assert stats.slow_spread([1.0, 2.0, 3.0]) == 0
