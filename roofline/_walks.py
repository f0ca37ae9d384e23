"""Batch sweeps: points that differ only in their batch size B, and so show a kernel climbing the roof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ._view import Row, clean
from .record import Point, Wall


@dataclass(frozen=True)
class Walk:
    """Points that differ only in their batch size B, in order of B: how a kernel climbs the roof."""

    name: str
    rows: tuple[Row, ...]

    def changes(self) -> list[tuple[int, Wall, Wall]]:
        """Where the model expects another wall: (first B behind it, wall before, wall from there on)."""
        result = []
        for before, after in pairwise(self.rows):
            old, new = before.point.bound, after.point.bound
            if old and new and old != new:
                result.append((after.point.shape["B"], old, new))
        return result


def walks(of: Sequence[Row]) -> list[Walk]:
    """The batch sweeps among charted points: at least two batch sizes of one row of a kernel on one device."""
    groups: dict[tuple, list[Row]] = {}
    for row in of:
        if row.number and "B" in row.point.shape:
            groups.setdefault(row.but("B"), []).append(row)
    result = []
    for members in groups.values():
        if len({row.point.shape["B"] for row in members}) > 1:
            result.append(Walk(_name(members[0].point), tuple(sorted(members, key=lambda row: row.point.shape["B"]))))
    return result


def _name(point: Point) -> str:
    """A sweep by what its points have in common."""
    sizes = ",".join(f"{name}={size}" for name, size in point.shape.items() if name != "B")
    direction = "" if point.direction == "forward" else f" {point.direction}"
    where = "" if point.device is None else f", device {point.device}"
    return clean(f"{point.kernel} {point.implementation} {point.dtype} {sizes}{direction}{where}")
