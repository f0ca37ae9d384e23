"""The few statistics that a timing needs, in plain Python so that reading a run needs no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

# Below six samples no order-statistic interval of the median reaches 95 %: (1/2)^5 * 2 = 6.25 % lie outside.
FEWEST_SAMPLES = 6
CONFIDENCE = 0.95
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
