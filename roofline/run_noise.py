"""How far two runs of the same code differ: as measured, or a cautious guess from the two runs themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import calibration
from .record import Run, Timing
from .stats import median
from .units import percent, ratio_within

# Half width (95 %) of the ratio of two runs of identical code, in logarithms, where nobody has measured it. Chosen, not
# measured: what machines that do nothing else may be hoped to keep to. A busy one can differ by many times as much
# (docs/noise.md), so whatever rests on these says "assumed" and how to measure.
ASSUMED_NOISE = {"cpu": 0.05, "cuda": 0.02}
# Fewer points do not tell how far the points of two runs scatter.
FEWEST_POINTS = 8
# 95 % of a normal law lie within so many median absolute deviations: 1.4826 of them are one standard deviation.
DEVIATIONS = 1.96 * 1.4826
# A median deviation of so many points is as certain as a standard deviation of one: its efficiency is 37 %.
POINTS_PER_FREEDOM = 3
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


def assumed(base: Run, new: Run, times: Sequence[tuple[Timing, Timing]]) -> KnownNoise:
    """The noise where nobody has measured it: the largest of three figures, the last two of which the runs show.

    A stated default; how far the ratios of the points, whose `times` in both runs are given, scatter around their
    median; and by how much the calibration copy, which no change of a kernel touches, differs between the runs. Changes
    of some kernels widen the second, which costs verdicts and never makes one.
    """
    floor = ASSUMED_NOISE[new.machine.device or "cpu"]
    scatter, shift = _scatter(times), _shift(base, new)
    if max(scatter, shift) <= floor:
        return KnownNoise(floor, "assumed", f"not measured here: {HOW_TO_MEASURE}")
    if scatter >= shift:
        told = f"from how far the {len(times)} points of these two runs scatter"
        return KnownNoise(
            scatter, "derived", f"{told}; to measure it, {HOW_TO_MEASURE}", len(times) // POINTS_PER_FREEDOM
        )
    told = f"the calibration copy took {percent(math.expm1(shift))} longer in one of the runs"
    return KnownNoise(shift, "derived", f"{told}; to measure it, {HOW_TO_MEASURE}")


def _scatter(times: Sequence[tuple[Timing, Timing]]) -> float:
    """Log half width (95 %) of the ratios around their median, by the median deviation; 0 for too few."""
    if len(times) < FEWEST_POINTS:
        return 0.0
    logs = [math.log(new.median / base.median) for base, new in times]
    middle = median(logs)
    return DEVIATIONS * median([abs(value - middle) for value in logs])


def _shift(base: Run, new: Run) -> float:
    """By how much the calibration copy differs between the runs, in logarithms; 0 where one has none."""
    old, fresh = _copy_rate(base), _copy_rate(new)
    return abs(math.log(fresh / old)) if old and fresh else 0.0


def _copy_rate(run: Run) -> float | None:
    """The median of what the calibration copies of a run reached, in bytes per second; None without one."""
    values = [entry.values for entry in run.evidence if entry.id == calibration.ID]
    rates = [rate for one in values for when in calibration.TIMES if (rate := one.get(f"{when}_bytes_per_s"))]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0]
    return median(known) if known else None


def describe(noise: KnownNoise) -> str:
    """The noise of a comparison as a sentence."""
    return (
        f"95 % of the time, two runs of the same code differ on this machine by no more than "
        f"{ratio_within(noise.value)} ({noise.provenance}; {noise.source})."
    )
