"""The few statistics that a timing needs, in plain Python so that reading a run needs no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist, stdev

# Below six samples no order-statistic interval of the median reaches 95 %: (1/2)^5 * 2 = 6.25 % lie outside.
FEWEST_SAMPLES = 6
CONFIDENCE = 0.95
# Beyond so many degrees of freedom the expansion of Student's quantiles is right to 0.1 % out to five deviations.
NORMAL_BEYOND = 200
# Beyond this many samples the normal approximation of the ranks, rounded outwards by one, is as good as the exact sum.
EXACT_UP_TO = 1000


def median(values: Sequence[float]) -> float:
    """Take the median of at least one value."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """Take the nearest-rank percentile; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@lru_cache(maxsize=4096)
def interval_ranks(n: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Ranks (from 0) of the order statistics that enclose the median with at least `confidence`.

    The number of samples below the median is binomial(n, 1/2), whatever the distribution. With fewer than six samples
    the widest interval, the whole range, is returned; it covers less than 95 %.
    """
    if n > EXACT_UP_TO:
        low = math.floor((n - NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(n)) / 2) - 1
        return low, n - 1 - low
    tail = 0.0
    low = 0
    while low < n // 2:
        tail += math.comb(n, low) / 2**n
        if 2 * tail > 1 - confidence:
            break
        low += 1
    low = max(low - 1, 0)
    return low, n - 1 - low


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median with its order-statistic interval: (low, median, high)."""
    ordered = sorted(values)
    low, high = interval_ranks(len(ordered), confidence)
    return ordered[low], median(ordered), ordered[high]


def timing_interval(rounds: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Median over all samples with the wider of two intervals: (low, median, high).

    The interval within one pool of samples understates the truth when rounds differ, so the interval of the round
    medians is taken where it is wider.
    """
    pooled = [value for samples in rounds for value in samples]
    low, middle, high = median_interval(pooled)
    between_low, _, between_high = median_interval([median(samples) for samples in rounds if samples])
    return min(low, between_low), middle, max(high, between_high)


def drift(round_medians: Sequence[float]) -> float:
    """Relative change from the first third of the rounds to the last third; 0 with fewer than six rounds."""
    third = len(round_medians) // 3
    if third < 2:
        return 0.0
    first, last = median(round_medians[:third]), median(round_medians[-third:])
    return (last - first) / first


# Above this many pairs neighbours are merged: sums of ranks stay small, and rounds that resemble their neighbours count
# as fewer. 40 rounds is the most that a run takes unless asked for more.
MOST_PAIRS = 50


@lru_cache(maxsize=256)
def signed_rank(n: int, confidence: float = CONFIDENCE) -> int:
    """How many of the n (n + 1) / 2 Walsh averages lie outside the interval at either end.

    The sum of the ranks of the positive differences of n pairs takes each of the 2^n choices of signs with equal
    probability when nothing differs (Wilcoxon, Biometrics Bulletin 1, 1945), whatever the distribution. Returns 0 where
    even the whole range covers less than `confidence`, that is below six pairs for 95 %.
    """
    most = n * (n + 1) // 2
    ways = [1] + [0] * most
    for rank in range(1, n + 1):
        for total in range(most, rank - 1, -1):
            ways[total] += ways[total - rank]
    tail, outside = 0, 0
    while outside <= most // 2 and 2 * (tail + ways[outside]) <= (1 - confidence) * 2**n:
        tail += ways[outside]
        outside += 1
    return max(outside - 1, 0)


def centre_interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Centre of symmetry of paired differences with its exact interval: (low, Hodges-Lehmann estimate, high).

    The interval consists of the Walsh averages (means of two, each with itself included) that the signed-rank test does
    not reject (Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963). Its only assumption, differences that
    are symmetric, holds for two subjects with the same kind of noise that are timed in random order, however far the
    tails reach. It is a fifth narrower than the order statistics of the median are on well-behaved noise.
    """
    values = _merged(differences)
    walsh = sorted((a + b) / 2 for index, a in enumerate(values) for b in values[index:])
    outside = signed_rank(len(values), confidence)
    return walsh[outside], median(walsh), walsh[len(walsh) - 1 - outside]


def _merged(values: Sequence[float]) -> list[float]:
    size = math.ceil(len(values) / MOST_PAIRS)
    return [median(values[start : start + size]) for start in range(0, len(values), size)]


def slow_spread(values: Sequence[float]) -> float:
    """Half width of the interval (95 %) of the level, from the medians of consecutive blocks; 0 below six values.

    Drift, steps and any likeness of neighbours move whole blocks, so they count here and not in an interval that takes
    the values as independent. After batch means (Law and Carson, Operations Research 27, 1979), with the median of each
    batch, since tails reach far. Four blocks, or three where they would hold a single value.
    """
    if len(values) < FEWEST_SAMPLES:
        return 0.0
    blocks = 4 if len(values) >= 8 else 3
    edges = [len(values) * block // blocks for block in range(blocks + 1)]
    levels = [median(values[start:end]) for start, end in pairwise(edges)]
    return student(blocks - 1, (1 + CONFIDENCE) / 2) * stdev(levels) / math.sqrt(blocks)


@lru_cache(maxsize=1024)
def student(freedom: int, probability: float) -> float:
    """Quantile of Student's t with `freedom` degrees, for a probability above one half; by bisection.

    Of many degrees by the first term of its expansion around the normal quantile (Abramowitz and Stegun, 26.7.5).
    """
    if freedom > NORMAL_BEYOND:
        z = NormalDist().inv_cdf(probability)
        return z + (z**3 + z) / (4 * freedom)
    low, high = 0.0, 1.0
    while _student_inside(freedom, high) < 2 * probability - 1:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_inside(freedom, middle) < 2 * probability - 1 else (low, middle)
    return high


def _student_inside(freedom: int, t: float) -> float:
    """Probability of [-t, t]: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for step in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (step - 1) / step
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
