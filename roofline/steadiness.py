"""Whether a time holds still: the width of its interval, and a trend over its rounds. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from .clock_doubts import taken_away
from .diagnoses import warn
from .record import Point, Warning_
from .stats import drift
from .units import percent

# Widest interval, relative to the median, that is called quiet.
QUIET_WIDTH = 0.10
# Change between the first and last third of the rounds that is called drift.
DRIFT_SHARE = 0.05
# Two-sided 1 % of the normal distribution: of a hundred times that do not drift, one may seem to.
TREND_Z = 2.576


def trend(rounds: Sequence[float]) -> float:
    """How many standard deviations a series is away from having no trend: Mann and Kendall's test, ties considered.

    It counts the pairs that rise against those that fall, so neither the spread nor the tail of the times matters.
    Positive when they rise; 0 with fewer than three. Source: Kendall, Rank Correlation Methods, 1975, chapter 4.
    """
    n = len(rounds)
    if n < 3:
        return 0.0
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(rounds, 2))
    ties = sum(count * (count - 1) * (2 * count + 5) for count in Counter(rounds).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    # One less than the score is the usual correction for a count that moves in steps.
    return math.copysign(max(abs(score) - 1, 0) / math.sqrt(variance), score) if variance > 0 else 0.0


def drifts(rounds: Sequence[float]) -> bool:
    """Whether the last third of the rounds is far from the first, and the rounds have a trend in that direction.

    Thirds of a few noisy rounds differ by chance, so their difference alone is no drift.
    """
    change, towards = drift(rounds), trend(rounds)
    return abs(change) > DRIFT_SHARE and abs(towards) > TREND_Z and change * towards > 0


def unsteady(point: Point, more_time: str) -> list[Warning_]:
    """A wide interval, and times that drift."""
    time = point.time_s
    assert time is not None
    found, taken = [], taken_away(point)
    width = (time.high - time.low) / time.median
    if width > QUIET_WIDTH:
        found.append(warn("noisy", width=percent(width), taken=taken, flag=more_time))
    if drifts(time.rounds_s):
        found.append(warn("drifting", drift=percent(drift(time.rounds_s)), taken=taken, flag=more_time))
    return found
