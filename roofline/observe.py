"""Findings across points: what a larger batch, more steps and padding cost, beside what the model expects."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

from .attribution import agreement
from .machine import Machine
from .predict import crossing
from .record import Observation, Point
from .units import percent, seconds
from .walls import WALL_WORDS, holds, share_of_floor

# Fewer sizes than this say nothing about a curve.
LEAST_SIZES = 3
# Per doubling of the batch: below the first share time is flat (bytes rule), above the second it follows the FLOPs.
FLAT, STEEP = 0.15, 0.50
# Under a memory wall a doubling of the batch that costs more than this has another reason: the weights are read once.
UNEXPLAINED = 0.60
# Time per step has settled when all longer sequences stay this close to the longest: what starting costs is spread out.
SETTLED = 0.10
# A chain along the sequence has at least a step for so many positions; dilated recurrences have fewer than positions.
CHAIN_SHARE = 16


def sweeps(points: tuple[Point, ...], size: str) -> list[list[Point]]:
    """Points that differ in one size only, ordered by it; size 0 and sweeps of fewer than three left out."""
    found: dict[tuple, list[Point]] = defaultdict(list)
    for point in points:
        if point.status == "ok" and point.time_s is not None and point.headline and point.shape.get(size):
            found[(point.kernel, point.implementation, point.dtype, point.direction, _rest(point, size))].append(point)
    ordered = [sorted(sweep, key=lambda point: point.shape[size]) for sweep in found.values()]
    return [sweep for sweep in ordered if len(sweep) >= LEAST_SIZES]


def batch_sweeps(points: tuple[Point, ...]) -> list[list[Point]]:
    """Points that differ in the batch size B only."""
    return sweeps(points, "B")


def step_sweeps(points: tuple[Point, ...]) -> list[list[Point]]:
    """Points of recurrences that differ in the number of steps T only."""
    return [sweep for sweep in sweeps(points, "T") if all(point.step_s is not None for point in sweep)]


def observations(points: tuple[Point, ...], machine: Machine) -> list[Observation]:
    """What sweeps show, depth 1 beside depth T, what padding costs beside packed rows, and how far outputs see."""
    walks = sorted((sweep for sweep in batch_sweeps(points) if _has_weights(sweep[0])), key=_largest_fastest)
    found = [_walk(sweep, machine) for sweep in walks]
    found += [_settling(sweep) for sweep in step_sweeps(points)]
    return found + depths(points) + padding(points) + reach(points) + agreement(points)


def _largest_fastest(sweep: list[Point]) -> tuple[str, int, float]:
    """Sort key: kernels, of each the sweep that ends with the most operations first, of equal ones the fastest."""
    last = sweep[-1]
    return last.kernel, -(last.work.flops if last.work else 0), last.time_s.median if last.time_s else math.inf


def by_importance(found: Sequence[Observation]) -> list[Observation]:
    """Findings as they are read: doubts and calibration first, further batch sweeps of the same kernel last."""
    first: dict[str, str] = {}
    for one in found:
        if one.id.startswith("batch-walk "):
            first.setdefault(one.id.split()[1], one.id)

    def rank(one: Observation) -> int:
        if one.id in ("doubts", "calibration-copy"):
            return 0
        return 2 if one.id.startswith("batch-walk ") and one.id not in first.values() else 1

    return sorted(found, key=rank)


def _unexplained(before: Point, after: Point, doubling: float) -> bool:
    """Whether the model cannot explain what a doubling cost: too much under a memory wall, or less time for more work.

    Less time counts where the intervals are apart.
    """
    assert before.time_s and after.time_s
    return (before.bound in ("dram", "cache") and doubling > UNEXPLAINED) or after.time_s.high < before.time_s.low


def _has_weights(point: Point) -> bool:
    """Whether something is read once whatever the batch; elsewhere bytes grow as operations do."""
    return point.work is not None and point.work.weight_bytes > 0


def length(point: Point) -> int | None:
    """Positions of the sequences that a point works on: its time steps T, or its queries S; None for a single step."""
    return point.shape.get("T", point.shape.get("S"))


def token_s(point: Point) -> float | None:
    """Measured time per sequence position, in seconds; None where it is not known."""
    return point.time_s.median / point.work.tokens if point.time_s and point.work and point.work.tokens else None


def is_chain(point: Point) -> bool:
    """Whether steps wait for one another along the sequence: layers on top of each other are no recurrence."""
    return point.steps > 1 and point.steps * CHAIN_SHARE >= (length(point) or math.inf)


def depths(points: tuple[Point, ...]) -> list[Observation]:
    """Depth 1 against depth T: the fastest of either kind, at the longest sequence that both were measured at."""
    groups: dict[tuple[str, str], dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        size = length(point)
        if point.status == "ok" and point.headline and size and size > 1 and token_s(point):
            groups[point.dtype, point.direction][size].append(point)
    found = []
    for (dtype, direction), lengths in groups.items():
        for size in sorted(lengths, reverse=True):
            flat, chained = [p for p in lengths[size] if p.steps == 1], [p for p in lengths[size] if is_chain(p)]
            if flat and chained:
                best = [min(kind, key=lambda point: token_s(point) or math.inf) for kind in (flat, chained)]
                found.append(_depth(dtype, direction, size, *best))
                break
    return found


def _depth(dtype: str, direction: str, size: int, flat: Point, chained: Point) -> Observation:
    one, other = token_s(flat), token_s(chained)
    assert one and other
    turn = "" if direction == "forward" else f" {direction}"
    return Observation(
        id=f"depth {dtype}{turn} {size}",
        text=f"Depth 1 against depth {chained.steps}, {dtype}{turn}, sequences of {size}: {flat.kernel} "
        f"{flat.implementation} ({_rest(flat)}) takes {seconds(one)} per token, {chained.kernel} "
        f"{chained.implementation} ({_rest(chained)}) {seconds(other)}, {other / one:.3g} times that "
        "(the fastest of each kind; their work differs).",
        numbers={"depth": chained.steps, "flat_token_s": one, "chained_token_s": other},
    )


def _rest(point: Point, *left_out: str) -> str:
    """The sizes of a point but for those left out, as typed."""
    return ",".join(f"{name}={value}" for name, value in point.shape.items() if name not in left_out)


def _name(point: Point, *left_out: str) -> str:
    """What findings call a point: kernel, implementation, dtype, direction unless forward, sizes."""
    direction = "" if point.direction == "forward" else f" {point.direction}"
    return f"{point.kernel} {point.implementation} {point.dtype}{direction} ({_rest(point, *left_out)})"


def _settling(sweep: list[Point]) -> Observation:
    """Where time per step stops falling with T, and how much of it the chain of steps explains."""
    first, last = sweep[0], sweep[-1]
    assert first.step_s and last.step_s
    apart = [index for index, point in enumerate(sweep) if abs((point.step_s or 0.0) / last.step_s - 1) > SETTLED]
    start = apart[-1] + 1 if apart else 0
    settled = sweep[start] if start < len(sweep) - 1 else None
    serial = last.floors_s.serial if last.floors_s else None
    share = serial / last.steps / last.step_s if serial is not None else None
    if settled:
        text = (
            f"time per step settles at {seconds(last.step_s)} (within {percent(SETTLED)}) from T={settled.shape['T']}"
            f" on, from {seconds(first.step_s)} at T={first.shape['T']}"
        )
    else:
        text = (
            f"time per step goes from {seconds(first.step_s)} at T={first.shape['T']} to {seconds(last.step_s)} at "
            f"T={last.shape['T']}, and just before it was still {seconds(sweep[-2].step_s or 0.0)}: not settled within "
            f"{percent(SETTLED)}"
        )
    text += f"; the serial floor is {percent(share)} of it" if share is not None else "; the serial floor is not known"
    if last.bound:
        told = "bound" if holds(last) else f"highest floor, {percent(share_of_floor(last))} of the time"
        text += f"; {told}: {WALL_WORDS[last.bound]}"
    return Observation(
        id=f"step-walk {_name(first, 'T')}",
        text=f"{_name(first, 'T')}: {text}.",
        numbers={
            "step_s": last.step_s,
            "settled_from_T": settled.shape["T"] if settled else None,
            "serial_share": share,
            "bound": last.bound,
        },
    )


def padding(points: tuple[Point, ...]) -> list[Observation]:
    """Ragged batches beside padded ones of the same run.

    The padded counterpart is the row `NAME.padded` of the same case, else the same row with `ragged=0`.
    """
    measured = {
        (p.kernel, p.implementation, p.dtype, p.direction, p.shape_text): p
        for p in points
        if p.status == "ok" and p.time_s is not None and p.headline
    }
    found = []
    for (kernel, name, dtype, direction, sizes), point in measured.items():
        if not point.padding_waste or name.endswith(".padded"):
            continue
        full = ",".join(f"{size}={0 if size == 'ragged' else value}" for size, value in point.shape.items())
        rival = measured.get((kernel, f"{name}.padded", dtype, direction, sizes))
        rival = rival or measured.get((kernel, name, dtype, direction, full))
        if rival is not None:
            found.append(_packed_against_padded(point, rival))
    return found


def _packed_against_padded(point: Point, padded: Point) -> Observation:
    assert point.time_s and padded.time_s and point.padding_waste
    ratio = point.time_s.median / padded.time_s.median
    beside = padded.implementation if padded.implementation != point.implementation else "ragged=0"
    return Observation(
        id=f"padding {_name(point)}",
        text=f"{_name(point)}: {percent(point.padding_waste)} of the padded steps are padding; packed takes "
        f"{percent(ratio)} of the padded time ({beside}).",
        numbers={"padding_waste": point.padding_waste, "packed_over_padded": ratio},
    )


def reach(points: tuple[Point, ...]) -> list[Observation]:
    """How far back the outputs of a kernel see, once for every shape."""
    found = {}
    for point in points:
        if point.receptive_field and point.time_s is not None:
            found.setdefault((point.kernel, point.shape_text), point)
    return [_field_of(point) for point in found.values()]


def _field_of(point: Point) -> Observation:
    field, steps = point.receptive_field, point.shape.get("T")
    assert field
    share = f", {percent(min(1.0, field / steps))} of the sequence" if steps else ""
    return Observation(
        id=f"reach {point.kernel} {point.shape_text}",
        text=f"{point.kernel} ({point.shape_text}): an output sees {field} {'step' if field == 1 else 'steps'}{share}.",
        numbers={"receptive_field": field, "steps": steps},
    )


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
    name = _name(first, "B")
    low, high, share = steps[0]
    last_low, last_high, last_share = steps[-1]
    text = (
        f"{name}: from B={low} to {high} the time changes by {100 * share:+.0f} % while the FLOPs grow "
        f"{high / low:.3g}-fold; from B={last_low} to {last_high} by {100 * last_share:+.0f} %. "
    )
    if _unexplained(sweep[0], sweep[1], doubling[0][2]):
        text += "The first doubling is not explained by the model: another code path, or noise. "
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
        id=f"batch-walk {name}",
        text=text,
        numbers={
            "first_growth": share,
            "last_growth": last_share,
            "modelled_crossing_B": expected,
            "measured_flat_until_B": flat_until,
            "measured_steep_from_B": steep_from,
        },
    )
