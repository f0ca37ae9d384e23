"""Floors of a kernel on any machine of the catalogue, without running it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from .contract import Chain, Weights
from .floors import best_floors, capacity, matmul_rate, own_floors
from .machine import Machine
from .record import CacheState
from .work import Work


def prediction(
    work: Work,
    dtype: str,
    weights: Weights,
    chain: Chain,
    machine: Machine,
    cache: CacheState = "cold",
    *,
    hoists: bool = False,
    depth: int | None = None,
) -> dict[str, Any]:
    """What `seqroof predict --json` prints: the work's sums, both floor sets and the machine, in the record's names.

    hoists, depth : of an implementation whose own they are, as `own_floors` takes them.
    """
    own = own_floors(work, dtype, weights, chain, machine, cache, hoists=hoists, depth=depth)
    best = best_floors(work, dtype, machine, cache)
    return {
        "work": work.model_dump(mode="json"),
        "dtype": dtype,
        "cache": cache,
        "weights": weights,
        "chain": chain,
        "residency": own.residency,
        "floors_s": own.floors.model_dump(),
        "floor_notes": own.notes,
        "bound": own.bound,
        "contested_with": own.contested_with,
        "estimate_s": own.estimate_s,
        "best_residency": best.residency,
        "best_floors_s": best.floors.model_dump(),
        "best_floor_notes": best.notes,
        "best_bound": best.bound,
        "machine": machine.model_dump(mode="json"),
    }


@dataclass(frozen=True)
class Fit:
    """Where in a sweep the recurrent weights outgrow a place.

    level : the place in words. last, first_without : the neighbouring sizes. size : interpolated on log scales.
    """

    level: str
    capacity_bytes: float
    last: int
    first_without: int
    size: float


# Places that can hold weights from step to step, by their capacity's level.
PLACES = {
    "shared": "shared memory alone",
    "chip": "shared memory and registers together",
    "cache": "the last shared cache",
}


def fits(sizes_and_works: list[tuple[int, Work]], machine: Machine) -> list[Fit]:
    """Where recurrent weights stop fitting within a sweep that is ordered by size, the smallest place first."""
    found = []
    for level, words in PLACES.items():
        held = capacity(machine, level)
        for (low, small), (high, large) in itertools.pairwise(sizes_and_works):
            if 0 < small.recurrent_bytes <= held < large.recurrent_bytes:
                share = math.log(held / small.recurrent_bytes) / math.log(large.recurrent_bytes / small.recurrent_bytes)
                found.append(Fit(words, held, low, high, low * (high / low) ** share))
    return sorted(found, key=lambda fit: fit.size)


def ridge(machine: Machine, dtype: str) -> float | None:
    """Operations per byte at which the compute roof meets the DRAM roof; None where one of them is not known."""
    rate, bandwidth = matmul_rate(machine, dtype), machine.bandwidth("dram", 1, 0)
    return rate.value / bandwidth.value if rate and bandwidth else None


def crossing(sizes_and_works: list[tuple[int, Work]], dtype: str, machine: Machine) -> float | None:
    """The size at which streamed intensity passes the ridge, interpolated on log scales; None if it never does.

    `sizes_and_works` is ordered by size; those without products, or of nothing, are passed over. Below the crossing the
    bytes rule the time, above it the matrix products.
    """
    turn = ridge(machine, dtype)
    if turn is None:
        return None
    before: tuple[float, float] | None = None
    for size, work in sizes_and_works:
        if not (size and work.matmul_flops and work.streamed_bytes):
            continue
        at, lead = math.log(size), math.log(work.matmul_flops / work.streamed_bytes / turn)
        if lead >= 0:
            if before is None:
                return float(size)
            return math.exp(before[0] + (at - before[0]) * before[1] / (before[1] - lead))
        before = at, lead
    return None
