"""Puts counted bytes to the points of a run: their amplification, and counters that were read with ncu elsewhere."""

from __future__ import annotations

import re
from collections import defaultdict

from . import circumstances, ncu
from .record import Evidence, Point, Run
from .telemetry import Counted

# Kernels that are named in the evidence when they fit no point: enough to see what they are.
_MOST_NAMES = 5


def with_counts(point: Point, counted: Counted) -> Point:
    """A point with its counted bytes and how many times the modelled ones they are."""
    work, moved = point.work, counted.dram_bytes
    if work is not None and moved is not None:
        counted = counted.model_copy(
            update={
                "amplification": moved / work.compulsory_bytes if work.compulsory_bytes else None,
                "amplification_streamed": moved / work.streamed_bytes if work.streamed_bytes else None,
            }
        )
    return point.model_copy(update={"counted": counted})


def imported(run: Run, text: str, source: str) -> Run:
    """A run with the counts of an ncu CSV at the points that its kernels belong to; raises `NcuError`.

    A kernel belongs to the one headline point whose kernels are known to have its name, or whose Triton kernel file has
    it as a part of the name. What fits none or several is named in the evidence.
    """
    rows: dict[int, list[ncu.Launch]] = defaultdict(list)
    homeless = []
    for launch in ncu.parse(text):
        fitting = [index for index, point in enumerate(run.points) if _fits(launch.name, point)]
        # `lstm` is a part of the names of `lstm_step` too: the longest name fits best.
        longest = max((len(run.points[index].kernel) for index in fitting), default=0)
        fitting = [index for index in fitting if len(run.points[index].kernel) == longest]
        if len(fitting) == 1:
            rows[fitting[0]].append(launch)
        else:
            homeless.append((launch.name, len(fitting)))
    points = list(run.points)
    for index, launches in rows.items():
        points[index] = _counted_again(points[index], launches, source)
    names = {name: f"fits {fitting} points" for name, fitting in homeless}
    told = "; ".join(f"{name}: {why}" for name, why in list(names.items())[:_MOST_NAMES])
    evidence = Evidence(
        id="ncu-import",
        values={"points": len(rows), "kernels": sum(map(len, rows.values())), "kernels_left_out": len(homeless)},
        how=f"kernels of {source}, mapped by name" + (f". Left out: {told}" if told else ""),
    )
    return run.model_copy(update={"points": tuple(points), "evidence": (*run.evidence, evidence)})


def _counted_again(point: Point, launches: list[ncu.Launch], source: str) -> Point:
    """A point with these launches, which are as many calls as its own number of launches allows."""
    calls = max(1.0, len(launches) / _launches_per_call(point, len({launch.name for launch in launches})))
    point = with_counts(point, ncu.summed(launches, calls, f"ncu, imported from {source}"))
    if point.counted is not None and (point.counted.launches or 0) > 1:
        point = point.model_copy(update={"counted": _without_amplification(point.counted)})
    kept = tuple(warning for warning in point.warnings if warning.id != "declared-bytes-differ")
    declared = tuple(doubt for doubt in circumstances.doubts(point) if doubt.id == "declared-bytes-differ")
    return point.model_copy(update={"warnings": (*kept, *declared)})


def _launches_per_call(point: Point, kinds: int) -> float:
    """Kernels of one call: as the second clock counted them, else as declared, else one of each of `kinds` names."""
    second = point.second_clock
    if second is not None and second.launches and second.calls:
        return second.launches / second.calls
    return point.launches or kinds


def _without_amplification(counted: Counted) -> Counted:
    """Counts of several kernels whose caches ncu may have flushed in between, as it does unless it is told not to."""
    how = f"{counted.how}; several kernels, between which ncu may have flushed the caches: no amplification is derived"
    return counted.model_copy(update={"amplification": None, "amplification_streamed": None, "how": how})


def _fits(name: str, point: Point) -> bool:
    if not point.headline or point.time_s is None:
        return False
    seen = str(point.compiler.get("kernels_observed") or "").split("; ")
    known = {kernel for kernel in (*seen, *(point.counted.kernels if point.counted else ())) if kernel}
    if known:
        return any(_plain(name).startswith(_plain(kernel)) for kernel in known)
    return point.implementation.startswith("triton") and _plain(point.kernel) in _plain(name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
