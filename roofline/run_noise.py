"""How far two runs of the same code differ: as measured, or a cautious guess from the two runs themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import calibration
from .record import Point, Run
from .stats import CONFIDENCE, median
from .units import percent, ratio_within

# Half width (95 %) of the ratio of two runs of identical code, in logarithms, where nobody has measured it. Chosen, not
# measured: what machines that do nothing else may be hoped to keep to. A busy one can differ by many times as much
# (docs/noise.md), so whatever rests on these says "assumed" and how to measure.
ASSUMED_NOISE = {"cpu": 0.05, "cuda": 0.02}
# Fewer points do not tell how far the points of two runs scatter.
FEWEST_POINTS = 8
# 95 % of a normal law lie within so many median absolute deviations: 1.4826 of them are one standard deviation.
DEVIATIONS = 1.96 * 1.4826
# A median deviation of so many cases is as certain as a standard deviation of one: its efficiency is 37 %.
CASES_PER_FREEDOM = 3
# Two runs give one difference of their copies, which knows a spread no better than two values do.
FREEDOM_OF_SHIFT = 1
HOW_TO_MEASURE = "run `seqroof doctor --aa`"


@dataclass(frozen=True)
class KnownNoise:
    """The noise between runs that a comparison counts with. value : log half width (95 %) of a ratio.

    freedom : degrees of freedom with which it is known; None where it is assumed.
    """

    value: float
    provenance: Literal["measured", "derived", "assumed"]
    source: str
    freedom: int | None = None


def assumed(base: Run, new: Run, pairs: Sequence[tuple[Point, Point]]) -> KnownNoise:
    """The noise where nobody has measured it: a stated default, or what the two runs show where that is larger.

    They show how far the ratios of the points in `pairs`, timed in both runs, scatter around their median; and by how
    much the calibration copy, which no change of a kernel touches, differs between the runs, as all points may. Both
    add in squares. Changes of kernels widen the scatter, which costs verdicts and never makes one.
    """
    floor = ASSUMED_NOISE[new.machine.device or "cpu"]
    scatter, cases, shift = _scatter(pairs), len({_case(fresh) for _, fresh in pairs}), _shift(base, new)
    unseen = "" if shift is not None else "; a run without a calibration copy does not show what moved all points alike"
    shift = shift or 0.0
    value = math.hypot(scatter, shift)
    if value <= floor:
        return KnownNoise(floor, "assumed", f"not measured here: {HOW_TO_MEASURE}{unseen}")
    told = [f"from how far the {len(pairs)} points of these two runs scatter"] if scatter else []
    told += [f"the calibration copy took {percent(math.expm1(shift))} longer in one of the runs"] if shift else []
    source = f"{', and '.join(told)}{unseen}; to measure it, {HOW_TO_MEASURE}"
    return KnownNoise(value, "derived", source, _freedom(scatter, max(1, cases // CASES_PER_FREEDOM), shift))


def _freedom(scatter: float, of_scatter: int, shift: float) -> int:
    """Degrees of freedom of both added in squares (Welch and Satterthwaite), at least 1; not both may be 0."""
    parts = scatter**4 / of_scatter + shift**4 / FREEDOM_OF_SHIFT
    return max(1, round((scatter**2 + shift**2) ** 2 / parts))


def _case(point: Point) -> tuple[str, ...]:
    """What the cache states and clocks of a point have in common: they were timed in turn, and move together."""
    device = "" if point.device is None else str(point.device)
    return (point.kernel, point.implementation, point.shape_text, point.dtype, point.direction, device)


def _scatter(pairs: Sequence[tuple[Point, Point]]) -> float:
    """Log half width (95 %) of the ratios around their median; 0 for too few.

    What 95 % of them keep to, for ratios of runs have tails far longer than a normal law; but no less than the median
    deviation of such a law says, which a few ratios do not miss.
    """
    times = [(old.time_s.median, fresh.time_s.median) for old, fresh in pairs if old.time_s and fresh.time_s]
    if len(times) < FEWEST_POINTS:
        return 0.0
    logs = [math.log(fresh / old) for old, fresh in times]
    middle = median(logs)
    away = sorted(abs(value - middle) for value in logs)
    within = away[min(len(away), math.ceil(CONFIDENCE * (len(away) + 1))) - 1]
    return max(within, DEVIATIONS * median(away))


def _shift(base: Run, new: Run) -> float | None:
    """By how much the calibration copy differs between the runs, in logarithms; None where one has none."""
    old, fresh = _copy_rate(base), _copy_rate(new)
    return abs(math.log(fresh / old)) if old and fresh else None


def _copy_rate(run: Run) -> float | None:
    """The median of what the calibration copies of a run reached, in bytes per second; None without one."""
    values = calibration.values_of(run.evidence)
    rates = [rate for one in values for when in calibration.TIMES if (rate := one.get(f"{when}_bytes_per_s"))]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0]
    return median(known) if known else None


def describe(noise: KnownNoise) -> str:
    """The noise of a comparison as a sentence."""
    return (
        f"95 % of the time, two runs of the same code differ on this machine by no more than "
        f"{ratio_within(noise.value)} ({noise.provenance}; {noise.source})."
    )
