"""The geometry of a roofline chart: roofs of a machine, logarithmic axes, and the coordinates of points.

x is operations per compulsory byte, y is operations per second; both axes are logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._view import Row, clean
from .machine import Machine, Provenance
from .record import Wall
from .units import si
from .walls import WALL_NAMES

_MERGED = 0.04  # roofs of one unit closer than this are one line on any chart that fits a screen
_SHORTEST = 10.0  # an axis shows a decade at least, so that equal values still make a chart
_MARGIN = 3.0  # factor left free around the outermost point or ridge
_DEEPEST = 30.0  # a serial floor further than this below every point does not stretch the axis


@dataclass(frozen=True)
class Roof:
    """One line no kernel can rise above: a bandwidth (slope 1) or a compute rate (flat).

    value : B/s for the walls "dram" and "cache", FLOP/s for "compute"; text : the value or range in words.
    """

    wall: Wall
    name: str
    value: float
    text: str
    provenance: Provenance

    def rate(self, intensity: float) -> float:
        """The most operations per second that this roof allows at so many operations per byte."""
        return self.value if self.wall == "compute" else self.value * intensity


def roofs(machine: Machine, dtypes: Iterable[str]) -> list[Roof]:
    """The bandwidth roofs and the compute roofs of the given dtypes; of all dtypes when none is given."""
    result = []
    levels: tuple[Wall, ...] = ("dram", "cache")
    for level in levels:
        best = machine.best("bandwidth", level)
        if best:
            result.append(Roof(level, WALL_NAMES[level], best.value, si(best.value, "B/s"), best.provenance))
    return result + _compute_roofs(machine, set(dtypes))


def _compute_roofs(machine: Machine, dtypes: set[str]) -> list[Roof]:
    known = {(c.level, c.dtype) for c in machine.ceilings if c.quantity == "rate" and c.unit == "FLOP/s"}
    wanted = {key for key in known if key[1] in dtypes} or known
    best = [found for level, dtype in sorted(wanted) if (found := machine.best("rate", level, dtype))]
    best.sort(key=lambda ceiling: -ceiling.value)
    result = []
    while best:
        top = best[0]
        near = [c for c in best if c.level == top.level and c.value >= top.value * (1 - _MERGED)]
        best = [ceiling for ceiling in best if ceiling not in near]
        name = clean(f"{top.level} {', '.join(ceiling.dtype for ceiling in near)}".strip())
        result.append(Roof("compute", name, top.value, si(top.value, "FLOP/s"), top.provenance))
    return result


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis from `low` to `high` over `length` pixels or cells; position 0 is `low`."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        """Position of a positive value; outside the domain it is below 0 or above `length`."""
        return self.length * math.log(value / self.low) / math.log(self.high / self.low)

    def value(self, position: float) -> float:
        """The value at a position: the inverse of `at`."""
        return self.low * (self.high / self.low) ** (position / self.length)

    def ticks(self) -> list[float]:
        """Powers of ten inside the domain, every second or third on long axes, and 2 and 5 times them on short ones."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first >= 2:
            step = 1 + (last - first) // 9
            return [10.0**exponent for exponent in range(first, last + 1, step)]
        steps = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [tick for tick in steps if self.low <= tick <= self.high]


@dataclass(frozen=True)
class LinearAxis:
    """An even axis from `low` to `high` over `length` pixels; position 0 is `low`."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        """Position of a value; outside the domain it is below 0 or above `length`."""
        return self.length * (value - self.low) / (self.high - self.low)

    def value(self, position: float) -> float:
        """The value at a position: the inverse of `at`."""
        return self.low + (self.high - self.low) * position / self.length


def coordinates(row: Row) -> tuple[float, float]:
    """Operations per compulsory byte and operations per second of a row that stands on the chart."""
    point = row.point
    if point.intensity is None or point.intensity.compulsory is None or point.achieved is None:
        raise ValueError(f"the point {point.key} has no place on a chart: ask `on_chart` first")
    return point.intensity.compulsory, point.achieved.flops_per_s


def serial_rate(row: Row) -> float | None:
    """Operations per second at which the chain of dependent steps alone would stop this point, if it is known."""
    point = row.point
    serial = point.floors_s.serial if point.floors_s else None
    return point.work.flops / serial if serial and point.work and point.work.flops else None


def axes(rows: Sequence[Row], of: Sequence[Roof], width: float, height: float) -> tuple[LogAxis, LogAxis]:
    """Axes that hold all points, the ridges and the serial floors near the points, with a margin."""
    points = [coordinates(row) for row in rows]
    slopes = [roof for roof in of if roof.wall != "compute"]
    flats = [roof for roof in of if roof.wall == "compute"]
    xs = [x for x, _ in points] + [flat.value / slope.value for flat in flats for slope in slopes]
    low, high = domain(xs, _MARGIN)
    ys = [y for _, y in points] + [roof.value for roof in flats]
    if not ys:
        ys = [slope.rate(x) for slope in slopes for x in (low, high)]
    least = min(ys, default=1.0) / _DEEPEST
    ys += [rate for row in rows if (rate := serial_rate(row)) and least <= rate <= max(ys) * _MARGIN]
    return LogAxis(low, high, width), LogAxis(*domain(ys, _MARGIN), height)


def domain(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The ends of an axis that holds all values with a factor of `margin` around them, a decade at least."""
    usable = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = min(usable) / margin, max(usable) * margin
    if high / low < _SHORTEST:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(_SHORTEST), middle * math.sqrt(_SHORTEST)
    return low, high


def segment(roof: Roof, of: Sequence[Roof], x: LogAxis, y: LogAxis) -> tuple[float, float] | None:
    """The stretch of intensities over which a roof is drawn: slopes up to the highest flat roof, flat roofs from the
    steepest slope on, both cut at the frame. None when nothing of it is inside.
    """
    low, high = x.low, x.high
    if roof.wall == "compute":
        low = max([low, *(roof.value / slope.value for slope in of if slope.wall != "compute" and _highest(slope, of))])
    else:
        top = min(max((flat.value for flat in of if flat.wall == "compute"), default=y.high), y.high)
        low, high = max(low, y.low / roof.value), min(high, top / roof.value)
    return (low, high) if low < high else None


def _highest(slope: Roof, of: Sequence[Roof]) -> bool:
    return slope.value == max(other.value for other in of if other.wall != "compute")
