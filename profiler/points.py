"""Turns the worker's answers into points of the record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..roofline.configuration import held_to
from ..roofline.diagnoses import warn
from ..roofline.experiments import Attribution
from ..roofline.record import CacheState, Clock, Part, Point
from ..roofline.second_clock import SecondClock
from ..roofline.telemetry import Energy

UNCHECKED = "not checked: the file has no reference"
# A step is judged cold, as a model meets it between other layers; a sequence warm, because all of its steps but the
# first are warm whatever was flushed before.
HEADLINE_CLOCK: dict[str, Clock] = {"cpu": "host", "cuda": "events"}


def headline(group: dict[str, Any]) -> tuple[CacheState, Clock]:
    """The cache state and clock whose number is shown first, of the states that the group is timed in."""
    usual: CacheState = "warm" if group["sequence"] else "cold"
    states = group.get("caches") or (usual,)
    return usual if usual in states else states[0], HEADLINE_CLOCK[group["kind"]]


def _base(group: dict[str, Any], implementation: str) -> dict[str, Any]:
    declared = group["classes"][implementation]
    return {
        "kernel": group["kernel"],
        "implementation": implementation,
        "shape": group["shape"],
        "dtype": group["dtype"],
        "direction": group["direction"],
        "work": group["work"],
        "weights": declared["weights"],
        "chain": declared["chain"],
        "launches": declared["launches"],
        "hoists": declared["hoists"],
        "depth": declared["depth"],
        "padding_waste": group["padding_waste"],
        "receptive_field": group["receptive_field"],
        "compiler": declared["compiler"],
    }


def measured_point(group: dict[str, Any], event: dict[str, Any], correctness: dict[str, Any] | None) -> Point:
    """A timed point; invalid when the worker has a grave doubt about it."""
    warnings = [warn(name, **values) for name, values in event["doubts"]]
    invalid = next((doubt.cause for doubt in warnings if doubt.severity == "invalid"), "")
    return Point.model_validate(
        _base(group, event["implementation"])
        | {
            "cache": event["cache"],
            "clock": event["clock"],
            "status": "invalid" if invalid else "ok",
            "reason": invalid or ("" if correctness else UNCHECKED),
            "headline": (event["cache"], event["clock"]) == headline(group),
            "correctness": correctness,
            "time_s": event["time_s"],
            "host_s": event["host_s"],
            "second_clock": event["second_clock"],
            "peak_memory_bytes": event["peak_memory_bytes"],
            "telemetry": event["telemetry"],
            "warnings": warnings,
        }
    )


def device_of(opened: dict[str, Any]) -> str:
    """A device as far as two can be told apart: its name, and the hash of its identity where it has one."""
    return f"{opened['name']} {opened['environment']['device_hash']}".strip()


def held_to_device(point: Point, found: str, wanted: str) -> Point:
    """The point, or an invalid one where a new worker came up on another device than the run's."""
    if found == wanted:
        return point
    doubt = warn("another-device", found=found, wanted=wanted)
    return point.model_copy(update={"status": "invalid", "reason": doubt.cause, "warnings": (*point.warnings, doubt)})


def with_afterthoughts(points: list[Point], event: dict[str, Any]) -> list[Point]:
    """Add to the points of an implementation what was learnt of it after its timing: parts, wall, second clock, energy.

    Parts, wall and energy belong to one cache state and clock, the second clock to the events of a cache state, the
    facts to all.
    """

    def extended(point: Point) -> Point:
        if point.implementation != event["implementation"]:
            return point
        if event["event"] == "second_clock":
            reading = event["readings"].get(point.cache) if point.clock == "events" else None
            second = SecondClock.model_validate(reading) if reading else point.second_clock
            return point.model_copy(update={"compiler": point.compiler | event["facts"], "second_clock": second})
        if (point.cache, point.clock) != (event["cache"], event["clock"]):
            return point
        if event["event"] == "energy":
            return with_energy(point, Energy.model_validate(event["energy"]))
        if event["event"] == "attribution":
            return point.model_copy(update={"attribution": Attribution.model_validate(event["found"])})
        if event["reason"]:
            doubt = warn("parts-not-measured", reason=event["reason"])
            return point.model_copy(update={"warnings": (*point.warnings, doubt)})
        return point.model_copy(update={"parts": tuple(Part.model_validate(part) for part in event["parts"])})

    return [extended(point) for point in points]


def with_lost(points: list[Point], group: dict[str, Any], owed: Iterable[tuple[str, str]], reason: str) -> list[Point]:
    """The points when the worker was lost in an afterthought: what they lack, they lack for this reason.

    owed : afterthoughts that were not told, each with its implementation.
    """
    lost: dict[str, Any] = {"parts": [], "reason": reason, "facts": {}, "energy": {"reason": reason}}
    lost |= {"readings": dict.fromkeys(("cold", "warm"), no_reading(reason))}
    lost |= {"found": {"wall": "undetermined", "reason": reason}}
    for kind, name in owed:
        cache, clock = ("warm", HEADLINE_CLOCK[group["kind"]]) if kind == "parts" else headline(group)
        event = lost | {"event": kind, "implementation": name, "cache": cache, "clock": clock}
        points = with_afterthoughts(points, event)
    return points


def recalled(entry: dict[str, Any], classes: dict[str, Any]) -> Point:
    """A point of an earlier journal, held to the versions that its implementation would be measured with now."""
    point = Point.model_validate(entry)
    return held_to(classes[point.implementation]["compiler"] if point.implementation in classes else {}, point)


def no_reading(reason: str) -> dict[str, Any]:
    """The reading of a profiler that gave none, with the reason."""
    return SecondClock(source="profiler", reason=f"the profiler gave none: {reason}").model_dump()


def with_energy(point: Point, energy: Energy) -> Point:
    """A point with its energy, per token too where a call has tokens."""
    if energy.per_call_j is not None and point.work is not None and point.work.tokens:
        energy = energy.model_copy(update={"per_token_j": energy.per_call_j / point.work.tokens})
    return point.model_copy(update={"energy": energy, "energy_j": energy.per_call_j})


def settled_point(group: dict[str, Any], event: dict[str, Any]) -> Point:
    """A case that the worker gave up, from its `failed` event."""
    name, *rest = (event[key] for key in ("implementation", "status", "reason", "correctness", "doubts"))
    return failed_point(group, name, *rest)


def failed_point(
    group: dict[str, Any],
    implementation: str,
    status: str,
    reason: str,
    correctness: dict[str, Any] | None = None,
    doubts: Iterable[tuple[str, dict[str, str]]] = (),
) -> Point:
    """A case without a time: wrong, invalid, crashed, hung, out of memory or skipped."""
    cache, clock = headline(group)
    return Point.model_validate(
        _base(group, implementation)
        | {
            "cache": cache,
            "clock": clock,
            "status": status,
            "reason": reason,
            "correctness": correctness,
            "warnings": [warn(name, **values) for name, values in doubts],
        }
    )


def refused_points(group: dict[str, Any]) -> list[Point]:
    """The implementations of a group that do not run here, each with its reason."""
    return [failed_point(group, name, "skipped", reason) for name, reason in group["refused"].items()]
