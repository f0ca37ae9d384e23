"""Several devices measured at once: which is slower than its kind, and the one record that holds them all.

Every rank of a fleet makes a run of its own device. Here they become one run whose points say which device they are of,
and the devices of one model are ranked by the geometric mean of their times over those of the median device.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from .record import DeviceRun, Evidence, Fraction, Observation, Point, Run, Warning_
from .telemetry import Telemetry
from .units import percent, seconds, si

# Two devices of one model differ by more than two runs of one device do, without being at fault.
BAND = 0.02
READINGS = ("clock_hz", "memory_clock_hz", "power_w", "temperature_c", "busy_share", "other_share", "steal_share")
# Readings of a straggler that differ from the median device's by less than this explain nothing.
TELLING = 0.03


class Part(NamedTuple):
    """What one rank left: how it ended, and its run where it left one."""

    device: DeviceRun
    run: Run | None


def merge(parts: Sequence[Part], tool: str) -> Run:
    """One record of all devices. Raises ValueError with a sentence where no rank has a run."""
    known = [(part.device, part.run) for part in parts if part.run is not None]
    if not known:
        raise ValueError("No rank left anything that could be merged")
    first = known[0][1]
    points = tuple(p.model_copy(update={"device": device.rank}) for device, run in known for p in run.points)
    devices = ranked([part.device for part in parts], points)
    own = [_of_device(device.rank, found) for device, run in known for found in run.observations]
    durations = [run.duration_s for _, run in known if run.duration_s is not None]
    complete = all(device.state == "complete" for device in devices)
    return first.model_copy(
        update={
            "tool": tool,
            "state": "complete" if complete else "interrupted",
            "duration_s": max(durations, default=None),
            "points": points,
            "devices": tuple(devices),
            "observations": (*fleet_observations(devices, points), *own),
            "evidence": tuple(_seen_by(device.rank, found) for device, run in known for found in run.evidence),
            "warnings": tuple(_doubt_of(device.rank, doubt) for device, run in known for doubt in run.warnings),
        }
    )


def _of_device(rank: int, found: Observation) -> Observation:
    return found.model_copy(update={"id": f"{found.id} device {rank}", "text": f"Device {rank}: {found.text}"})


def _seen_by(rank: int, found: Evidence) -> Evidence:
    return found.model_copy(update={"id": f"{found.id} device {rank}", "how": f"Device {rank}: {found.how}"})


def _doubt_of(rank: int, doubt: Warning_) -> Warning_:
    return doubt.model_copy(update={"cause": f"Device {rank}: {doubt.cause}"})


def ranked(devices: Sequence[DeviceRun], points: Sequence[Point]) -> list[DeviceRun]:
    """The devices with their times relative to the median device of their model, and whether that makes stragglers."""
    result = {device.rank: device for device in devices}
    for model in {device.machine.id for device in devices if device.machine}:
        members = [device.rank for device in devices if device.machine and device.machine.id == model]
        times = {rank: _timed(points, rank) for rank in members}
        reference = _median_device(times)
        for rank in members if reference is not None else ():
            result[rank] = _beside(result[rank], times[rank], times[reference])  # type: ignore[index]
    return list(result.values())


def _timed(points: Iterable[Point], rank: int) -> dict[tuple, Point]:
    """The valid times of a device by what was timed."""
    return {_case(p): p for p in points if p.device == rank and p.status == "ok" and p.time_s is not None}


def _case(point: Point) -> tuple:
    return point.kernel, point.implementation, point.shape_text, point.dtype, point.direction, point.cache, point.clock


def _median_device(times: dict[int, dict[tuple, Point]]) -> int | None:
    """The device whose times lie in the middle; of an even number the faster one. None where nothing is common."""
    logs: dict[int, list[float]] = {}
    for case in {case for found in times.values() for case in found}:
        seen = {rank: _median_s(found[case]) for rank, found in times.items() if case in found}
        if len(seen) > 1:
            middle = median(seen.values())
            for rank, time_s in seen.items():
                logs.setdefault(rank, []).append(math.log(time_s / middle))
    order = sorted(logs, key=lambda rank: (sum(logs[rank]) / len(logs[rank]), rank))
    return order[(len(order) - 1) // 2] if order else None


def _median_s(point: Point) -> float:
    assert point.time_s is not None
    return point.time_s.median


def _beside(device: DeviceRun, times: dict[tuple, Point], reference: dict[tuple, Point]) -> DeviceRun:
    """A device with its time over that of the reference; the interval sets the far ends of both against each other."""
    pairs = [(times[case].time_s, reference[case].time_s) for case in times if case in reference]
    logs = [
        (math.log(own.median / other.median), math.log(own.low / other.high), math.log(own.high / other.low))
        for own, other in pairs
        if own is not None and other is not None
    ]
    if not logs:
        return device
    value, low, high = (math.exp(sum(column) / len(logs)) for column in zip(*logs))
    if times is reference:
        low = high = value
    found = Fraction(value=value, low=low, high=high)
    straggler = low > 1 + BAND
    return device.model_copy(update={"relative_time": found, "common_points": len(logs), "straggler": straggler})


def fleet_observations(devices: Sequence[DeviceRun], points: Sequence[Point]) -> list[Observation]:
    """Stragglers, devices that are not whole, and how well they ran at once."""
    found = [_straggling(device, devices, points) for device in devices if device.straggler]
    for device in devices:
        if device.state != "complete":
            text = f"Device {device.rank} is {device.state}: {device.reason}."
            found.append(Observation(id=f"{device.state} device {device.rank}", text=text))
    starts = [device.start_s for device in devices if device.start_s is not None]
    if len(starts) > 1:
        apart = max(starts) - min(starts)
        error = max(device.clock_error_s or 0.0 for device in devices)
        text = (
            f"{len(starts)} devices began within {seconds(apart)} of one another, by clocks that were compared to "
            f"{seconds(error)}."
        )
        found.append(Observation(id="start line", text=text, numbers={"apart_s": apart, "clock_error_s": error}))
    crowded = [str(device.rank) for device in devices if device.crowded]
    if crowded:
        text = f"Devices {', '.join(crowded)} share cores with one another: their times are those of a contest."
        found.append(Observation(id="crowded", text=text))
    return found


def _straggling(device: DeviceRun, devices: Sequence[DeviceRun], points: Sequence[Point]) -> Observation:
    ratio = device.relative_time
    assert ratio is not None
    others = [d.rank for d in devices if not d.straggler]
    told = telling(points, device.rank, others)
    text = (
        f"Device {device.rank} is a straggler: it takes {ratio.value:.3f} [{ratio.low:.3f} to {ratio.high:.3f}] times "
        f"as long as the median device, over {device.common_points} points. "
        + (f"It differs in {'; '.join(told)}." if told else "No reading of its telemetry explains it.")
    )
    return Observation(
        id=f"straggler device {device.rank}",
        text=text,
        numbers={"relative_time": ratio.value, "low": ratio.low, "high": ratio.high},
    )


def telling(points: Sequence[Point], rank: int, others: Sequence[int]) -> list[str]:
    """Readings of a device that differ from those of the others, in words."""
    own = [_readings(point.telemetry) for point in points if point.device == rank]
    rest = [_readings(point.telemetry) for point in points if point.device in others]
    told = []
    for name in dict.fromkeys(name for reading in own for name in reading):
        mine, theirs = ([r[name] for r in side if r.get(name) not in (None, "")] for side in (own, rest))
        if mine and all(isinstance(value, str) for value in mine):
            usual = Counter(theirs).most_common(1)
            value = Counter(mine).most_common(1)[0][0]
            if not usual or usual[0][0] != value:
                told.append(f"{name} {value}")
        elif mine and theirs and all(isinstance(value, (int, float)) for value in (*mine, *theirs)):
            here, there = median(mine), median(theirs)  # type: ignore[type-var]
            if abs(here - there) > TELLING * abs(there):  # type: ignore[operator]
                told.append(f"{name} {_number(here)} beside {_number(there)}")  # type: ignore[arg-type]
    return told


def _readings(telemetry: Telemetry) -> dict[str, float | str]:
    """What a device was seen to do, by name: medians, and why it was held down."""
    spreads = ((name, getattr(telemetry, name)) for name in READINGS)
    found: dict[str, float | str] = {name: spread.median for name, spread in spreads if spread}
    return found | ({"throttle": ", ".join(sorted(telemetry.throttle))} if telemetry.throttle else {})


def _number(value: float) -> str:
    return si(value, "").strip()


TITLES = ("device", "state", "points", "time / median", "interval", "remark")


def cells(run: Run) -> list[tuple[str, ...]]:
    """The devices as rows of a table, the fastest first and those without a comparison last."""
    models = {device.machine.name for device in run.devices if device.machine}
    counts = Counter(point.device for point in run.points if point.status == "ok")
    rows = []
    for device in sorted(run.devices, key=lambda d: (d.relative_time.value if d.relative_time else math.inf, d.rank)):
        ratio = device.relative_time
        remarks = ["straggler"] if device.straggler else []
        remarks += [device.machine.name] if device.machine and len(models) > 1 else []
        remarks += [device.reason] if device.reason else []
        interval = f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio and ratio.low < ratio.high else "-"
        numbers = (f"{ratio.value:.3f}" if ratio else "-", interval)
        rows.append((str(device.rank), device.state, str(counts[device.rank]), *numbers, "; ".join(remarks)))
    return rows


def note(run: Run) -> str:
    """What the table of devices compares."""
    return (
        "Devices by measured time: the geometric mean over common points of their time over that of the median device "
        f"of their model. A straggler's interval lies above 1 by more than {percent(BAND)}."
    )
