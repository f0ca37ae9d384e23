"""Whether a time below its floor is explained by a faster unit than the one that its dtype stands for."""

from __future__ import annotations

from .diagnoses import warn
from .floors import FloorSet
from .machine import Machine
from .record import Point, Warning_
from .units import seconds

# Strict fp32 products belong to the vector units; libraries may give them to the tensor units, rounded to TF32. No
# other dtype is given to another unit behind its back.
QUIETLY_ROUNDED = {"fp32": "tf32"}


def explained_by_unit(point: Point, best: FloorSet, machine: Machine) -> Warning_ | None:
    """A warning where products bind and the tensor units' rate for the rounded dtype allows the measured time."""
    dtype = QUIETLY_ROUNDED.get(point.dtype, "")
    rate = machine.best("rate", "tensor", dtype) if dtype else None
    time, work, floors = point.time_s, point.work, best.floors
    if rate is None or time is None or work is None or best.bound != "compute":
        return None
    others = [value for value in (floors.dram, floors.cache, floors.serial) if value is not None]
    if time.median < max([work.matmul_flops / rate.value, *others]):
        return None
    values = {"time": seconds(time.median), "dtype": point.dtype, "floor": seconds(best.largest_s), "unit": dtype}
    return warn("faster-unit", **values)
