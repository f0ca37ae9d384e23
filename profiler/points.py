"""Turns the worker's answers into points of the record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..roofline.diagnoses import warn
from ..roofline.experiments import Attribution
from ..roofline.record import CacheState, Clock, Part, Point

UNCHECKED = "not checked: the file has no reference"
# A step is judged cold, as a model meets it between other layers; a sequence warm, because all of its steps but the
# first are warm whatever was flushed before.
HEADLINE_CLOCK: dict[str, Clock] = {"cpu": "host", "cuda": "events"}


def headline(group: dict[str, Any]) -> tuple[CacheState, Clock]:
    """The cache state and clock whose number is shown first."""
    return "warm" if group["sequence"] else "cold", HEADLINE_CLOCK[group["kind"]]


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
            "peak_memory_bytes": event["peak_memory_bytes"],
            "warnings": warnings,
        }
    )


def with_afterthoughts(points: list[Point], event: dict[str, Any]) -> list[Point]:
    """Add to the points of an implementation what was learnt of it after its timing: parts, algorithm, wall.

    Parts and wall belong to one cache state and clock, the algorithm to all.
    """

    def extended(point: Point) -> Point:
        if point.implementation != event["implementation"]:
            return point
        if event["event"] == "algorithm":
            return point.model_copy(update={"compiler": point.compiler | event["facts"]})
        if (point.cache, point.clock) != (event["cache"], event["clock"]):
            return point
        if event["event"] == "attribution":
            return point.model_copy(update={"attribution": Attribution.model_validate(event["found"])})
        if event["reason"]:
            doubt = warn("parts-not-measured", reason=event["reason"])
            return point.model_copy(update={"warnings": (*point.warnings, doubt)})
        return point.model_copy(update={"parts": tuple(Part.model_validate(part) for part in event["parts"])})

    return [extended(point) for point in points]


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
