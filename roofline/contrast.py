"""The equal-task contrast: complete layers at equal parameters, operations or width, beside one another.

Pure functions: sizes are solved for with a cost that the caller supplies, rows are made of works and recorded points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .floors import best_floors
from .machine import Machine
from .record import CacheState, Fraction, Point, Wall
from .work import Work

Basis = Literal["parameters", "flops", "width"]

# Sizes are multiples of the largest of these with which a layer comes close enough: kernels like round sizes.
GRANULES = (64, 32, 16, 8, 4, 2, 1)
# So close to what was asked for, so that any two layers are within 2 % of one another.
EQUAL = 0.0099
LARGEST = 16384
# One state of the caches for all, and the clocks of headlines: a graph's clock leaves out what launching costs.
CACHE: CacheState = "warm"
CLOCKS = ("host", "events")


def solved(cost: Callable[[int], float], target: float, multiple: int = 1) -> int:
    """The size whose cost, which grows with it, is nearest to a target: as round as within 1 % of it.

    multiple : sizes that are no multiple of it do not exist, as those of heads that share a width. Raises ValueError
    with a sentence where no size up to 16384 comes within 1 %.
    """
    size = multiple
    for granule in (granule for granule in GRANULES if granule % multiple == 0):
        low, high = 1, LARGEST // granule
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if cost(middle * granule) < target else (low, middle)
        size = min((count * granule for count in (low - 1, low) if count), key=lambda n: abs(cost(n) / target - 1))
        if abs(cost(size) / target - 1) <= EQUAL:
            return size
    raise ValueError(
        f"no size comes within 1 % of {target:,.0f}; the nearest is {size} with {cost(size):,.0f}. Ask for more."
    )


@dataclass(frozen=True)
class Row:
    """One layer at one length: what it costs, what the machine would need at least, and what was measured of it.

    least_s : the best possible floor, modelled. The rest of the second half is None where nothing was measured:
    `point` is the fastest valid row of the class that is compared; `lost` says why others are not there.
    """

    layer: str
    kernel: str
    shape: dict[str, Any]
    direction: str
    work: Work
    least_s: float | None
    bound: Wall | None
    point: Point | None
    lost: tuple[str, ...] = ()

    @property
    def token_s(self) -> float | None:
        """Measured seconds per token."""
        time = self.point.time_s if self.point else None
        return time.median / self.work.tokens if time and self.work.tokens else None

    @property
    def tokens_per_s(self) -> float | None:
        """Measured tokens per second."""
        return 1 / self.token_s if self.token_s else None

    @property
    def joules_per_token(self) -> float | None:
        """Energy per token without idle power, where a meter was read."""
        return self.point.energy.per_token_j if self.point and self.point.energy else None

    @property
    def fractions(self) -> tuple[Fraction | None, Fraction | None, Fraction | None]:
        """Of the machine, of this design, and the classic roofline figure."""
        point = self.point
        if point is None:
            return None, None, None
        return point.best_fraction, point.attainable_fraction, point.roof_fraction


def row(
    layer: str,
    kernel: str,
    shape: dict[str, Any],
    direction: str,
    work: Work,
    dtype: str,
    machine: Machine,
    points: Iterable[Point],
    rows: str,
) -> Row:
    """A layer beside its measured point.

    rows : the class of implementations that is compared, "reference", "torch" or "triton": the part of their names
        before a dot or an underscore, so that a library is never compared with plain code. All rows are taken with warm
        caches, whatever the headline of their kernel, or recurrences would be compared warm with what is timed cold.
    """
    floors = best_floors(work, dtype, machine, CACHE)
    mine = [
        point
        for point in points
        if (point.kernel, point.shape, point.dtype, point.direction) == (kernel, shape, dtype, direction)
        if point.cache == CACHE and point.clock in CLOCKS and class_of(point) == rows and point.status != "skipped"
    ]
    timed = [point for point in mine if point.status == "ok" and point.time_s]
    fastest = min(timed, key=lambda point: point.time_s.median if point.time_s else 0.0, default=None)
    lost = tuple(f"{point.implementation}: {point.status}, {point.reason}" for point in mine if point not in timed)
    return Row(layer, kernel, shape, direction, work, floors.largest_s, floors.bound, fastest, lost)


def class_of(point: Point) -> str:
    """The class of an implementation: "torch.flash" and "torch" are the library, "triton_step" is Triton."""
    return point.implementation.split(".")[0].split("_")[0]


def spread(rows: Sequence[Row], basis: Basis) -> float:
    """How far the basis is from equal over rows of one length: the largest over the smallest, less one."""
    values = {"parameters": lambda row: row.work.parameters, "flops": lambda row: row.work.flops}
    if basis == "width":
        return 0.0
    found = [values[basis](row) for row in rows]
    return max(found) / min(found) - 1 if found and min(found) else 0.0
