"""Two runs, point by point: SAME, FASTER, SLOWER or AMBIGUOUS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .record import Point, Run

Verdict = Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]

# Changes below this are no news: separate runs of the same code on a quiet machine differ by about as much.
EQUIVALENCE_BAND = 0.02


@dataclass(frozen=True)
class Comparison:
    """One point of both runs. `ratio` is new over base time with its interval: below 1 is faster."""

    point: Point
    ratio: float
    low: float
    high: float
    verdict: Verdict


def compare_points(base: Point, new: Point, band: float = EQUIVALENCE_BAND) -> Comparison | None:
    """Compare a point with its counterpart; None unless both have a valid time.

    The interval of the ratio is conservative: the ends of both intervals against each other.
    """
    if base.time_s is None or new.time_s is None or base.status != "ok" or new.status != "ok":
        return None
    ratio = new.time_s.median / base.time_s.median
    low, high = new.time_s.low / base.time_s.high, new.time_s.high / base.time_s.low
    verdict: Verdict = "AMBIGUOUS"
    if high < 1 and ratio < 1 - band:
        verdict = "FASTER"
    elif low > 1 and ratio > 1 + band:
        verdict = "SLOWER"
    elif low >= 1 - band and high <= 1 + band:
        verdict = "SAME"
    return Comparison(new, ratio, low, high, verdict)


def compare_runs(base: Run, new: Run, band: float = EQUIVALENCE_BAND) -> tuple[list[Comparison], list[str]]:
    """Compare all points that both runs measured; also the keys that only one of them has."""
    old = {point.key: point for point in base.points}
    fresh = {point.key: point for point in new.points}
    both = [key for key in fresh if key in old]
    found = [made for key in both if (made := compare_points(old[key], fresh[key], band)) is not None]
    timed = {key for keys in (old, fresh) for key, point in keys.items() if point.time_s is not None}
    return found, sorted(key for key in timed if key not in old or key not in fresh)


def geometric_mean(comparisons: list[Comparison]) -> float | None:
    """Overall ratio of new to base time."""
    if not comparisons:
        return None
    return math.exp(sum(math.log(comparison.ratio) for comparison in comparisons) / len(comparisons))


def same_machine(base: Run, new: Run) -> bool:
    """Whether two runs come from the same device, as far as the record tells."""
    left, right = (
        (run.machine.id, run.environment.device_hash, run.environment.threads, run.environment.os)
        for run in (base, new)
    )
    return left == right
