"""The verdict on a point: floors, fractions, the wall, the doubts, and the gap in words. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from . import circumstances, parts
from .clock_doubts import beside_graph, clock_doubts, dispatch_remark
from .contract import Chain
from .diagnoses import warn
from .faster_unit import explained_by_unit
from .floors import FloorSet, best_floors, compute_spread, own_floors
from .machine import Machine
from .record import Achieved, Direction, Fraction, Intensity, Part, Point, Timing, Warning_
from .steadiness import unsteady
from .units import percent, seconds, si
from .walls import WALL_WORDS
from .work import Work

# A point may beat its floor by this much before it is called impossible: the roof is the best of a few rounds only.
ROOF_SLACK = 0.05
# A design's floor this little above the best one is the same floor in words, and a time this near its floor is at it.
SAME_FLOOR, AT_ITS_WALL = 1.02, 1.10


def judge(point: Point, machine: Machine, more_time: str = "--rounds 40") -> Point:
    """Fill in everything that follows from a point's work and time on a machine.

    Points without a work are returned as they are; points without a time get their floors only. `more_time` is the
    advice to measure longer, which depends on the flags already in use.
    """
    if point.work is None or point.weights is None or point.chain is None:
        return point
    own, best = (
        _own(point, point.work, machine, point.depth),
        best_floors(point.work, point.dtype, machine, point.cache),
    )
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
            "parts": tuple(judge_part(part, point, machine) for part in point.parts),
            "step_s": point.time_s.median / point.steps if point.time_s and point.steps > 1 else None,
            "intensity": Intensity(
                compulsory=_ratio(work.flops, work.compulsory_bytes), streamed=_ratio(work.flops, work.streamed_bytes)
            ),
        }
    )
    if point.time_s is None or point.status not in ("ok", "invalid"):
        return filled
    return _score(filled, own, best, machine, more_time)


def _own(point: Point, work: Work, machine: Machine, depth: int | None) -> FloorSet:
    """Floors of a work done as the point's implementation does it."""
    assert point.weights is not None and point.chain is not None
    chain: Chain = "graph" if point.clock == "graph" and point.chain == "launch" else point.chain
    return own_floors(work, point.dtype, point.weights, chain, machine, point.cache, hoists=point.hoists, depth=depth)


def judge_part(part: Part, point: Point, machine: Machine) -> Part:
    """Give a part its own floors and fractions, in the class of the implementation that it belongs to.

    A part of one step is a plain product: nothing is read again, and it starts with a launch.
    """
    if part.work is None:
        return part
    plain = part.work.depth == 1
    like = point.model_copy(update={"weights": "reread", "chain": "launch"}) if plain else point
    depth = point.depth if point.work and part.work.depth == point.work.depth and not plain else None
    own, best = _own(like, part.work, machine, depth), best_floors(part.work, point.dtype, machine, point.cache)
    time = part.time_s
    return part.model_copy(
        update={
            "floors_s": own.floors,
            "bound": own.bound,
            "best_floors_s": best.floors,
            "best_bound": best.bound,
            "attainable_fraction": fraction(own.largest_s, time, own.spread) if time else None,
            "best_fraction": fraction(best.largest_s, time, best.spread) if time else None,
        }
    )


def with_launch_tax(points: Iterable[Point]) -> tuple[Point, ...]:
    """Add what launching costs per dependent step, where one case was timed warm by the host's clock and as a graph.

    And the doubts that a graph casts on the same calls by events.
    """
    points = tuple(points)
    warm = {(_case(point), point.clock): point.time_s for point in points if point.cache == "warm" and point.time_s}
    taxed = []
    for point in points:
        host, graph = warm.get((_case(point), "host")), warm.get((_case(point), "graph"))
        tax = (host.median - graph.median) / point.steps if host and graph and point.steps > 1 else None
        doubts = (*point.warnings, *beside_graph(point, graph))
        taxed.append(point.model_copy(update={"launch_tax_s": tax, "warnings": doubts}))
    return tuple(taxed)


def _case(point: Point) -> tuple[str, str, str, str, Direction]:
    return point.kernel, point.implementation, point.shape_text, point.dtype, point.direction


def _score(point: Point, own: FloorSet, best: FloorSet, machine: Machine, more_time: str) -> Point:
    time, work = point.time_s, point.work
    assert time is not None and work is not None
    warnings = tuple(detect(point, best, machine, more_time))
    invalid = [warning for warning in warnings if warning.severity == "invalid"]
    scored = not invalid
    classic, classic_spread = _classic_roof(point, own, machine)
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
            "roof_fraction": fraction(classic, time, classic_spread) if scored else None,
            "normalised_time_s": circumstances.normalised_time_s(point),
            "warnings": warnings,
            "gap": gap_in_words(point, own, best) + dispatch_remark(point, machine),
        }
    )


def fraction(floor_s: float | None, time: Timing, spread: float) -> Fraction | None:
    """Floor over time with the interval of both; None without a floor, or when all of it is above what a roof may err.

    A roof is the best of its rounds, so the truth may lie below it by its spread: the fraction may be larger by that.
    A value above 1 is told as 1: the point is at its roof, by its own interval or by what the roof is uncertain, and
    `roof-uncertain` says the latter. It is None where `above-a-physical-roof` stands for the best floor.
    """
    if not floor_s:
        return None
    value, low, high = floor_s / time.median, floor_s / time.high, floor_s / time.low * (1 + spread)
    if low > 1 + ROOF_SLACK + spread:
        return None
    return Fraction(value=min(value, 1.0), low=min(low, 1.0), high=high)


def _classic_roof(point: Point, own: FloorSet, machine: Machine) -> tuple[float | None, float]:
    """Time on the classic roofline, with the spread of that roof: compute, or compulsory bytes over DRAM bandwidth."""
    work = point.work
    assert work is not None
    roof = machine.bandwidth("dram", work.read_bytes, work.write_bytes)
    known = [(work.compulsory_bytes / roof.value, roof.spread)] if roof else []
    if own.floors.compute is not None:
        known.append((own.floors.compute, compute_spread(work, point.dtype, machine)))
    return max(known, default=(None, 0.0))


def detect(point: Point, best: FloorSet, machine: Machine, more_time: str) -> list[Warning_]:
    """Apply every detector that needs one point only; warnings that the worker attached stay."""
    time, work = point.time_s, point.work
    assert time is not None and work is not None
    found = [warning for warning in point.warnings if warning.id not in _DERIVED_HERE]
    limit = best.largest_s or 0.0
    if time.high < limit / (1 + ROOF_SLACK + best.spread) and best.bound:
        values = {"time": seconds(time.median), "floor": seconds(limit), "wall": WALL_WORDS[best.bound]}
        found.append(explained_by_unit(point, best, machine) or warn("above-a-physical-roof", **values))
    elif time.high < limit and best.bound:
        values = {"time": seconds(time.median), "floor": seconds(limit), "spread": percent(best.spread + ROOF_SLACK)}
        found.append(warn("roof-uncertain", **values))
    roof = machine.bandwidth("dram", work.read_bytes, work.write_bytes)
    if roof is not None:
        rate = work.compulsory_bytes / time.median
        if rate > roof.value * (1 + ROOF_SLACK + roof.spread):
            found.append(warn("fits-in-cache", rate=si(rate, "B/s"), roof=si(roof.value, "B/s")))
    found += unsteady(point, more_time) + clock_doubts(point, machine)
    return found + parts.doubts(point) + circumstances.doubts(point)


_DERIVED_HERE = (
    "faster-unit",
    "roof-uncertain",
    "above-a-physical-roof",
    "fits-in-cache",
    "noisy",
    "drifting",
    "too-short-for-the-clock",
    "launch-bound",
    "two-clocks-disagree",
    "profiler-lost-events",
    "no-clock-left",
    "parts-do-not-add-up",
    *circumstances.DERIVED,
)


def gap_in_words(point: Point, own: FloorSet, best: FloorSet) -> str:
    """Tell the way from the best possible time over the floor of this design to the measured time."""
    time = point.time_s
    if time is None or not best.largest_s or not own.largest_s or best.bound is None or own.bound is None:
        return ""
    text = f"best possible {seconds(best.largest_s)} ({WALL_WORDS[best.bound]})"
    if own.largest_s > SAME_FLOOR * best.largest_s:
        more = f": {point.depth}, where {point.work.depth} would do" if point.depth and point.work else ""
        wall = WALL_WORDS[own.bound] + (more if own.bound == "serial" else "")
        text += f"; this design cannot be below {seconds(own.largest_s)} ({wall})"
    text += f"; measured {seconds(time.median)}"
    over = time.median / own.largest_s
    if over < AT_ITS_WALL:
        return text + ": at its wall"
    return text + f": {over:.1f} x the floor of this design"


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
