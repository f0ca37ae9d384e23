"""The verdict on a point: floors, fractions, the wall, the doubts, and the gap in words. Pure functions."""

from __future__ import annotations

from .diagnoses import warn
from .floors import FloorSet, best_floors, own_floors
from .machine import Machine
from .record import Achieved, Fraction, Intensity, Point, Timing, Wall, Warning_
from .stats import drift
from .units import percent, seconds, si

# A point may beat its floor by this much before it is called impossible: the roof is the best of a few rounds only.
ROOF_SLACK = 0.05
# Widest interval, relative to the median, that is called quiet.
QUIET_WIDTH = 0.10
# Change between the first and last third of the rounds that is called drift.
DRIFT_SHARE = 0.05
# The host takes a fifth longer than the device: beyond the spread of two quiet clocks, so launching sets the pace.
LAUNCH_BOUND_RATIO = 1.2
# A design's floor this little above the best one is the same floor in words, and a time this near its floor is at it.
SAME_FLOOR, AT_ITS_WALL = 1.02, 1.10
# A host clock call costs some 50 ns and a CUDA event resolves 0.5 us: a hundred, or four, of them keep it near 1 %.
LEAST_TIME_S = {"host": 5e-6, "events": 2e-6, "graph": 0.0}

WALL_WORDS: dict[Wall, str] = {
    "compute": "compute",
    "dram": "DRAM bandwidth",
    "cache": "cache bandwidth",
    "serial": "the chain of dependent steps",
}


def judge(point: Point, machine: Machine, more_time: str = "--rounds 40") -> Point:
    """Fill in everything that follows from a point's work and time on a machine.

    Points without a work are returned as they are; points without a time get their floors only. `more_time` is the
    advice to measure longer, which depends on the flags already in use.
    """
    if point.work is None or point.weights is None or point.chain is None:
        return point
    chain = "graph" if point.clock == "graph" and point.chain == "launch" else point.chain
    own = own_floors(point.work, point.dtype, point.weights, chain, machine, point.cache)
    best = best_floors(point.work, point.dtype, machine, point.cache)
    work = point.work
    filled = point.model_copy(
        update={
            "residency": own.residency,
            "floors_s": own.floors,
            "floor_notes": own.notes,
            "bound": own.bound,
            "contested_with": own.contested_with,
            "best_floors_s": best.floors,
            "best_bound": best.bound,
            "estimate_s": own.estimate_s,
            "intensity": Intensity(
                compulsory=_ratio(work.flops, work.compulsory_bytes), streamed=_ratio(work.flops, work.streamed_bytes)
            ),
        }
    )
    if point.time_s is None or point.status not in ("ok", "invalid"):
        return filled
    return _score(filled, own, best, machine, more_time)


def _score(point: Point, own: FloorSet, best: FloorSet, machine: Machine, more_time: str) -> Point:
    time, work = point.time_s, point.work
    assert time is not None and work is not None
    warnings = tuple(detect(point, best, machine, more_time))
    invalid = [warning for warning in warnings if warning.severity == "invalid"]
    scored = not invalid
    classic = _classic_roof_s(point, machine)
    return point.model_copy(
        update={
            "status": "invalid" if invalid else "ok",
            "reason": invalid[0].cause if invalid else "" if point.status == "invalid" else point.reason,
            "achieved": Achieved(
                flops_per_s=work.flops / time.median,
                bytes_per_s=work.compulsory_bytes / time.median,
                streamed_bytes_per_s=work.streamed_bytes / time.median,
            ),
            "attainable_fraction": fraction(own.largest_s, time, own.spread) if scored else None,
            "best_fraction": fraction(best.largest_s, time, best.spread) if scored else None,
            "roof_fraction": fraction(classic, time, own.spread) if scored else None,
            "warnings": warnings,
            "gap": gap_in_words(point, own, best),
        }
    )


def fraction(floor_s: float | None, time: Timing, spread: float) -> Fraction | None:
    """Floor over time with the interval of both; None without a floor, or when it is above 1 beyond its interval.

    A roof is the best of its rounds, so the truth may lie below it by its spread: the fraction may be larger by that.
    A value just above 1 inside the interval is printed as 1: the point is at its roof.
    """
    if not floor_s:
        return None
    value, low, high = floor_s / time.median, floor_s / time.high, floor_s / time.low * (1 + spread)
    if value > 1 + max(ROOF_SLACK, spread):
        return None
    return Fraction(value=min(value, 1.0), low=min(low, 1.0), high=high)


def _classic_roof_s(point: Point, machine: Machine) -> float | None:
    """Time on the classic roofline: compute, or compulsory bytes over the DRAM roof, whichever is longer."""
    work = point.work
    assert work is not None
    roof = machine.bandwidth("dram", work.read_bytes, work.write_bytes)
    compute = point.floors_s.compute if point.floors_s else None
    parts = [value for value in (compute, work.compulsory_bytes / roof.value if roof else None) if value is not None]
    return max(parts) if parts else None


def detect(point: Point, best: FloorSet, machine: Machine, more_time: str) -> list[Warning_]:
    """Apply every detector that needs one point only; warnings that the worker attached stay."""
    time, work = point.time_s, point.work
    assert time is not None and work is not None
    found = [warning for warning in point.warnings if warning.id not in _DERIVED_HERE]
    limit = best.largest_s or 0.0
    if time.high < limit / (1 + ROOF_SLACK + best.spread) and best.bound:
        values = {"time": seconds(time.median), "floor": seconds(limit), "wall": WALL_WORDS[best.bound]}
        found.append(warn("above-a-physical-roof", **values))
    elif time.high < limit and best.bound:
        values = {"time": seconds(time.median), "floor": seconds(limit), "spread": percent(best.spread + ROOF_SLACK)}
        found.append(warn("roof-uncertain", **values))
    roof = machine.bandwidth("dram", work.read_bytes, work.write_bytes)
    if roof is not None:
        rate = work.compulsory_bytes / time.median
        if rate > roof.value * (1 + ROOF_SLACK + roof.spread):
            found.append(warn("fits-in-cache", rate=si(rate, "B/s"), roof=si(roof.value, "B/s")))
    width = (time.high - time.low) / time.median
    if width > QUIET_WIDTH:
        found.append(warn("noisy", width=percent(width), flag=more_time))
    change = drift(time.rounds_s)
    if abs(change) > DRIFT_SHARE and abs(change) > width / 2:
        found.append(warn("drifting", drift=percent(change), flag=more_time))
    least = LEAST_TIME_S[point.clock] if point.cache == "cold" or point.clock != "host" else 0.0
    if time.median < least:
        found.append(warn("too-short-for-the-clock", time=seconds(time.median), least=seconds(least)))
    if point.host_s is not None and point.clock == "events" and point.host_s.median > LAUNCH_BOUND_RATIO * time.median:
        found.append(warn("launch-bound", host=seconds(point.host_s.median), device=seconds(time.median)))
    return found


_DERIVED_HERE = (
    "roof-uncertain",
    "above-a-physical-roof",
    "fits-in-cache",
    "noisy",
    "drifting",
    "too-short-for-the-clock",
    "launch-bound",
)


def gap_in_words(point: Point, own: FloorSet, best: FloorSet) -> str:
    """Tell the way from the best possible time over the floor of this design to the measured time."""
    time = point.time_s
    if time is None or not best.largest_s or not own.largest_s or best.bound is None or own.bound is None:
        return ""
    text = f"best possible {seconds(best.largest_s)} ({WALL_WORDS[best.bound]})"
    if own.largest_s > SAME_FLOOR * best.largest_s:
        text += f"; this design cannot be below {seconds(own.largest_s)} ({WALL_WORDS[own.bound]})"
    text += f"; measured {seconds(time.median)}"
    over = time.median / own.largest_s
    if over < AT_ITS_WALL:
        return text + ": at its wall"
    return text + f": {over:.1f} x the floor of this design"


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
