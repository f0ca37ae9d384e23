"""Findings across points: how time grows when the batch grows, beside what the model expects."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

from .machine import Machine
from .predict import crossing
from .record import Observation, Point, Run
from .units import percent

# Fewer sizes than this say nothing about a curve.
LEAST_SIZES = 3
# Per doubling of the batch: below the first share time is flat (bytes rule), above the second it follows the FLOPs.
FLAT, STEEP = 0.15, 0.50


def batch_sweeps(points: tuple[Point, ...]) -> list[list[Point]]:
    """Points that differ in the batch size B only, ordered by B; sweeps with fewer than three sizes are left out."""
    sweeps: dict[tuple, list[Point]] = defaultdict(list)
    for point in points:
        if point.status == "ok" and point.time_s is not None and point.headline and "B" in point.shape:
            rest = tuple((name, value) for name, value in point.shape.items() if name != "B")
            sweeps[(point.kernel, point.implementation, point.dtype, point.direction, rest)].append(point)
    ordered = [sorted(sweep, key=lambda point: point.shape["B"]) for sweep in sweeps.values()]
    return [sweep for sweep in ordered if len(sweep) >= LEAST_SIZES]


def observations(points: tuple[Point, ...], machine: Machine) -> list[Observation]:
    """One observation for every batch sweep in a run."""
    return [_walk(sweep, machine) for sweep in batch_sweeps(points)]


def _growth(sweep: list[Point]) -> list[tuple[int, int, float]]:
    """Growth of time between neighbours: (B, next B, share), 0.5 for half as long again."""
    steps = []
    for point, after in itertools.pairwise(sweep):
        assert point.time_s is not None and after.time_s is not None
        ratio = after.time_s.median / point.time_s.median
        steps.append((point.shape["B"], after.shape["B"], ratio - 1))
    return steps


def _walk(sweep: list[Point], machine: Machine) -> Observation:
    first = sweep[0]
    steps = _growth(sweep)
    doubling = [(low, high, (1 + share) ** (1 / math.log2(high / low)) - 1) for low, high, share in steps]
    flat_until = max((after for _, after, share in doubling if share < FLAT), default=first.shape["B"])
    # The last step that was not steep ends where the steep ones begin.
    gentle = max((index for index, (_, _, share) in enumerate(doubling) if share <= STEEP), default=-1)
    steep_from = steps[gentle + 1][0] if gentle + 1 < len(steps) else None
    works = [(point.shape["B"], point.work) for point in sweep if point.work is not None]
    expected = crossing(works, first.dtype, machine)
    rest = ",".join(f"{name}={value}" for name, value in first.shape.items() if name != "B")
    low, high, share = steps[0]
    last_low, last_high, last_share = steps[-1]
    text = (
        f"{first.kernel} {first.implementation} {first.dtype} ({rest}): from B={low} to {high} the time changes by "
        f"{100 * share:+.0f} % while the FLOPs grow {high / low:.3g}-fold; from B={last_low} to {last_high} "
        f"by {100 * last_share:+.0f} %. "
    )
    if expected is None:
        text += "The model expects compute to overtake the bytes at no B of this sweep"
    else:
        text += f"The model expects compute to overtake the bytes at B = {expected:.0f}"
    if steep_from is not None:
        text += (
            f"; measured, time follows the FLOPs (more than {percent(STEEP)} per doubling) from B = {steep_from} on."
        )
    else:
        text += "; measured, time never follows the FLOPs in this sweep."
    return Observation(
        id=f"batch-walk {first.kernel} {first.implementation} {first.dtype} {rest}",
        text=text,
        numbers={
            "first_growth": share,
            "last_growth": last_share,
            "modelled_crossing_B": expected,
            "measured_flat_until_B": flat_until,
            "measured_steep_from_B": steep_from,
        },
    )


def next_command(run: Run) -> str:
    """The command that is worth typing after this run."""
    if batch_sweeps(run.points):
        return "seqroof profile --suite standard"
    return "seqroof profile lstm_step --shape B=1:256:x2,I=2048,H=2048"
