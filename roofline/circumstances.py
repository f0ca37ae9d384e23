"""Doubts that come from around a kernel: throttling, clocks, other tenants, power limits, slices, counters.

Points carry what befell them in their own rounds; what holds for the whole run is said once, with the run. Pure
functions of the record.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import calibration
from .diagnoses import warn
from .record import Environment, Evidence, Point, Warning_
from .telemetry import Telemetry
from .throttling import reason_named
from .units import percent, si

# A reason that one look in ten saw has touched the median; fewer may belong to a moment between two samples.
THROTTLED_SHARE = 0.1
# Under its power cap a busy GPU is at home. It is news when the clock is this much below the highest.
POWER_CAP_SHARE = 0.05
# Clocks that differ by more change a time by more than a quiet measurement resolves.
CLOCK_SHARE = 0.05
# Other programs with a tenth of the processor widen intervals beyond what is called quiet.
TENANT_SHARE = 0.10
# Counted reads below the modelled ones by more: counters agree with known copies within 2 %, and reads of the last
# tile of every row are rounded to sectors of 32 bytes.
FEWER_BYTES = 0.10
# Counted bytes above the modelled ones by more: neighbouring tiles read their common border twice.
MORE_BYTES = 0.25
# Counters that are right agree with a kernel of known traffic within this, as the clock and the model do.
PROBE_SHARE = 0.02
# Walls whose height moves with the clock that telemetry tells: DRAM has a clock of its own.
CLOCKED_WALLS = ("compute", "cache", "serial")

DERIVED = ("throttled", "clocks-changed", "declared-bytes-differ")


def doubts(point: Point) -> list[Warning_]:
    """Doubts about one point from its telemetry and its counted bytes."""
    return _throttled(point.telemetry) + _unsteady(point.telemetry) + _declared(point)


def normalised_time_s(point: Point) -> float | None:
    """The time at the highest clock: time times clock over highest clock; None where the wall has another clock."""
    seen = point.telemetry
    if point.time_s is None or point.bound not in CLOCKED_WALLS or not seen.clock_hz or not seen.reference_clock_hz:
        return None
    return point.time_s.median * seen.clock_hz.median / seen.reference_clock_hz


def _throttled(seen: Telemetry) -> list[Warning_]:
    found = []
    for name, share in seen.throttle.items():
        reason = reason_named(name)
        if share < THROTTLED_SHARE or reason.kind in ("idle", "setting"):
            continue
        lost = _lost(seen)
        if reason.kind == "power cap" and lost is not None and lost < POWER_CAP_SHARE:
            continue
        below = "" if lost is None else f", clock {percent(lost)} below the highest"
        found.append(warn("throttled", reason=name, share=percent(share), below=below, fix=reason.fix))
    return found


def _lost(seen: Telemetry) -> float | None:
    """How far the clock was below the highest; None where either is unknown."""
    if seen.clock_hz is None or not seen.reference_clock_hz:
        return None
    return max(0.0, 1 - seen.clock_hz.median / seen.reference_clock_hz)


def _unsteady(seen: Telemetry) -> list[Warning_]:
    clock = seen.clock_hz
    if clock is None or clock.relative <= CLOCK_SHARE:
        return []
    values = f"{si(clock.low, 'Hz')} and {si(clock.high, 'Hz')}"
    return [warn("clocks-changed", what=f"between rounds the clock was between {values}")]


def _declared(point: Point) -> list[Warning_]:
    """Counted bytes that the work cannot explain.

    Fewer reads than every input once, from cold caches, mean that the work declares too much or not all is read. More
    bytes than the design declares are told of single launches only, declared and counted as one: several launches pass
    results through memory.
    """
    work, counted = point.work, point.counted
    if work is None or counted is None or counted.dram_read_bytes is None or counted.provenance != "measured":
        return []
    if point.cache == "cold" and counted.dram_read_bytes < (1 - FEWER_BYTES) * work.read_bytes:
        values = {"counted": si(counted.dram_read_bytes, "B"), "declared": si(work.read_bytes, "B")}
        return [warn("declared-bytes-differ", relation="fewer than the declared reads", **values)]
    moved = counted.dram_bytes
    declared = work.streamed_bytes if point.weights == "reread" else work.compulsory_bytes
    declared = max(declared, work.compulsory_bytes)
    single = point.launches == 1 and counted.launches in (None, 1)
    if moved is not None and single and moved > (1 + MORE_BYTES) * declared:
        values = {"counted": si(moved, "B"), "declared": si(declared, "B")}
        return [warn("declared-bytes-differ", relation="more than the declared bytes", **values)]
    return []


def between_arms(points: Sequence[Point]) -> tuple[Point, ...]:
    """Mark points whose clock was lower than that of another implementation of the same case."""
    highest: dict[tuple, float] = {}
    for point in points:
        if point.telemetry.clock_hz:
            highest[_arm(point)] = max(highest.get(_arm(point), 0.0), point.telemetry.clock_hz.median)
    return tuple(_beside(point, highest.get(_arm(point))) for point in points)


def _arm(point: Point) -> tuple:
    return (point.kernel, point.shape_text, point.dtype, point.direction, point.cache, point.clock)


def _beside(point: Point, highest: float | None) -> Point:
    clock = point.telemetry.clock_hz
    marked = any(warning.id == "clocks-changed" for warning in point.warnings)
    if point.time_s is None or clock is None or not highest or marked or clock.median >= (1 - CLOCK_SHARE) * highest:
        return point
    what = f"{si(clock.median, 'Hz')} here, {si(highest, 'Hz')} under another implementation of this case"
    return point.model_copy(update={"warnings": (*point.warnings, warn("clocks-changed", what=what))})


def doubts_about_run(
    environment: Environment, points: Sequence[Point], evidence: Sequence[Evidence]
) -> tuple[Warning_, ...]:
    """Doubts about all numbers of a run, from its environment and from what was seen before, during and after."""
    found = []
    limit, default = environment.power_limit_w, environment.power_default_w
    if limit is not None and default is not None and limit < default:
        found.append(warn("power-limit-below-default", limit=f"{limit:.0f} W", default=f"{default:.0f} W"))
    if environment.mig not in ("", "off"):
        found.append(warn("mig", slice="" if environment.mig == "on" else f" ({environment.mig})"))
    found += _settings(points) + _tenants(evidence)
    fell = calibration.shortfall(evidence)
    if fell is not None:
        rates = {"rate": si(fell.rate, "B/s"), "roof": si(fell.roof, "B/s"), "share": percent(fell.share)}
        found.append(warn("roof-not-held", when=f"at the {fell.when} of the run", **rates))
    denied = next((entry for entry in evidence if entry.id == "counters" and entry.values.get("state") != "ok"), None)
    if denied is not None:
        found.append(warn("counters-denied", cause=denied.values.get("cause"), fix=denied.values.get("fix")))
    return tuple(found) + _miscounted(evidence)


def _miscounted(evidence: Sequence[Evidence]) -> tuple[Warning_, ...]:
    """A kernel of known traffic whose reads counters saw otherwise; part of its writes may stay in a cache."""
    for entry in evidence:
        known, read = entry.values.get("probe_bytes"), entry.values.get("probe_read_bytes")
        if entry.id != "counters" or not isinstance(known, (int, float)) or not isinstance(read, (int, float)):
            continue
        if entry.values.get("provenance") == "measured" and abs(read / known - 1) > PROBE_SHARE:
            values = {"counted": si(read, "B"), "declared": si(known, "B")}
            return (
                warn(
                    "declared-bytes-differ",
                    relation="other than the bytes that a kernel of known traffic reads",
                    **values,
                ),
            )
    return ()


def _settings(points: Sequence[Point]) -> list[Warning_]:
    """Clocks that somebody's setting holds down, which is no event of a single point."""
    names = {name for point in points for name in point.telemetry.throttle if reason_named(name).kind == "setting"}
    held = [(name, max(point.telemetry.throttle.get(name, 0.0) for point in points)) for name in sorted(names)]
    return [
        warn("throttled", reason=name, share=percent(share), below="", fix=reason_named(name).fix)
        for name, share in held
        if share >= THROTTLED_SHARE
    ]


def _tenants(evidence: Sequence[Evidence]) -> list[Warning_]:
    seen = []
    for entry in evidence:
        if not entry.id.startswith("surroundings-"):
            continue
        when = entry.id.removeprefix("surroundings-")
        others, values = entry.values.get("other_processes"), entry.values
        # Containers hide processes, not their load. The host's readings stand beside those of a GPU only, and a CPU is
        # busy with this program too.
        busy = values.get("busy_share") if when == "before" and "host_other_share" in values else None
        if isinstance(busy, (int, float)) and busy > TENANT_SHARE:
            seen.append(f"the device was busy for {percent(busy)} of the time before the run began")
        if isinstance(others, (int, float)) and others > 0:
            seen.append(f"{others:.0f} other process{'es' if others > 1 else ''} on the device {when} the run")
        for name, words in (
            ("other_share", "of the device's time"),
            ("host_other_share", "of the host's processor"),
            ("steal_share", "of the processor, stolen by other guests,"),
            ("host_steal_share", "of the host's processor, stolen by other guests,"),
        ):
            share = values.get(name)
            if isinstance(share, (int, float)) and share > TENANT_SHARE:
                seen.append(f"{percent(share)} {words} went to others {when} the run")
    return [warn("other-tenant", what="; ".join(seen))] if seen else []
