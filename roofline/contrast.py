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
# Complete layers by their kernels, as readers know them.
NAMES = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "RNN",
    "transformer_block": "attention block",
    "hierarchical_attention": "attention hierarchy",
    "gated_conv_block": "gated convolution",
    "gated_conv": "gated convolution alone",
    "dilated_conv": "dilated convolution",
}
# Layers of a recorded run count as equal when their parameters differ by no more than those that are solved for.
TOGETHER = 0.02
# Classes of implementations in the order in which pages show them: what people run comes first.
CLASSES = ("torch", "triton", "reference", "compile")
_DIRECTIONS = ("forward", "both", "backward")  # as pages show them


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
        if point.cache == CACHE
        and point.clock in CLOCKS
        and class_of(point.implementation) == rows
        and point.status != "skipped"
    ]
    timed = [point for point in mine if point.status == "ok" and point.time_s]
    fastest = min(timed, key=lambda point: point.time_s.median if point.time_s else 0.0, default=None)
    lost = tuple(f"{point.implementation}: {point.status}, {point.reason}" for point in mine if point not in timed)
    return Row(layer, kernel, shape, direction, work, floors.largest_s, floors.bound, fastest, lost)


def class_of(implementation: str) -> str:
    """The class of an implementation: "torch.flash" and "torch" are the library, "triton_step" is Triton."""
    return implementation.split(".")[0].split("_")[0]


def spread(rows: Sequence[Row], basis: Basis) -> float:
    """How far the basis is from equal over rows of one length: the largest over the smallest, less one."""
    values = {"parameters": lambda row: row.work.parameters, "flops": lambda row: row.work.flops}
    if basis == "width":
        return 0.0
    found = [values[basis](row) for row in rows]
    return max(found) / min(found) - 1 if found and min(found) else 0.0


@dataclass(frozen=True)
class Equal:
    """Recorded layers of one class of implementations with as many parameters, at one batch, length and direction.

    points : the fastest of each kernel, in the order of `NAMES`; all with a time, a work and tokens. device : of a
    fleet, the rank that they were measured on. run : the letter of their run, empty where there is one only.
    """

    rows: str
    direction: str
    B: int
    T: int
    dtype: str
    points: tuple[Point, ...]
    device: int | None = None
    run: str = ""

    @property
    def parameters(self) -> tuple[int, int]:
        """The smallest and the largest number of parameters."""
        counts = [point.work.parameters for point in self.points if point.work]
        return min(counts), max(counts)


def token_s(point: Point) -> float:
    """Measured seconds per token; 0 where there is no time or no token."""
    tokens = point.work.tokens if point.work else 0
    return point.time_s.median / tokens if point.time_s and tokens else 0.0


def equal_layers(points: Iterable[Point]) -> list[Equal]:
    """The groups of a run's complete layers that can be compared: warm, valid, of equal parameters within 2 %."""
    groups: dict[tuple, list[Point]] = {}
    for point in filter(_comparable, points):
        key = (
            class_of(point.implementation),
            point.direction,
            point.dtype,
            point.shape["T"],
            point.shape["B"],
            point.device,
        )
        groups.setdefault(key, []).append(point)
    found = []
    for (rows, direction, dtype, T, B, device), members in groups.items():
        for layers in _of_equal_size(members):
            found.append(Equal(rows, direction, B, T, dtype, layers, device))
    return sorted(found, key=_reading_order)


def class_rank(rows: str) -> int:
    """The place of a class of implementations on pages: that of `CLASSES`, others last."""
    return CLASSES.index(rows) if rows in CLASSES else len(CLASSES)


def _reading_order(group: Equal) -> tuple:
    device = -1 if group.device is None else group.device
    turn = _DIRECTIONS.index(group.direction)
    return class_rank(group.rows), device, turn, group.T, group.B, group.parameters


def _comparable(point: Point) -> bool:
    plain = all(point.shape.get(name, 1) == 1 for name in ("L", "D", "dilation")) or point.kernel == "dilated_conv"
    return (
        point.kernel in NAMES
        and point.status == "ok"
        and point.cache == CACHE
        and point.clock in CLOCKS
        and plain
        and not point.shape.get("ragged")
        and {"B", "T"} <= set(point.shape)
        and bool(point.work and point.work.parameters)
        and token_s(point) > 0
    )


def _of_equal_size(points: list[Point]) -> list[tuple[Point, ...]]:
    """Sets of at least two kernels whose parameters lie within 2 % of the smallest of them."""
    rest = sorted(points, key=_parameters)
    found = []
    while rest:
        near = [point for point in rest if _parameters(point) <= (1 + TOGETHER) * _parameters(rest[0])]
        rest = rest[len(near) :]
        best = {name: [point for point in near if point.kernel == name] for name in NAMES}
        fastest = tuple(min(of, key=token_s) for of in best.values() if of)
        if len(fastest) > 1:
            found.append(fastest)
    return found


def _parameters(point: Point) -> int:
    return point.work.parameters if point.work else 0
