"""The doubts that follow from clocks alone, and what a reader is told of them. Pure functions."""

from __future__ import annotations

from .diagnoses import warn
from .machine import Machine
from .record import Point, Timing, Warning_
from .second_clock import SecondClock
from .units import percent, seconds

# Two clocks agree within a few percent on a quiet machine; a fifth apart, one of them measures something else.
CLOCKS_SHARE = 0.2
# A host clock call costs some 50 ns and a CUDA event resolves 0.5 us: a hundred, or four, of them keep it near 1 %.
LEAST_TIME_S = {"host": 5e-6, "events": 2e-6, "graph": 0.0}
# A call of so few dispatch latencies is mostly dispatch: two operations that do nothing take two of them.
FEW_DISPATCHES = 5
# Less waiting for a processor than this explains no interval that is called wide.
LITTLE_WAITING = 0.02
# A fixed loop on a steady processor takes a few percent longer at times. From here on it explains a wide interval.
LITTLE_SWING = 1.2


def clock_doubts(point: Point, machine: Machine) -> list[Warning_]:
    """Every doubt that follows from the clocks of one point."""
    assert point.time_s is not None
    found = _lost(point) + _disagreement(point, machine)
    least = LEAST_TIME_S[point.clock] if point.cache == "cold" or point.clock != "host" else 0.0
    if point.time_s.median < least:
        found.append(warn("too-short-for-the-clock", time=seconds(point.time_s.median), least=seconds(least)))
    if not any(doubt.id == "two-clocks-disagree" for doubt in found):
        found += _launch_bound(point)
    return found


def _lost(point: Point) -> list[Warning_]:
    """Kernels without a record; fatal where the events themselves cannot resolve so short a time."""
    second, time = point.second_clock, point.time_s
    if second is None or time is None or not second.lost:
        return []
    values = {"lost": second.lost, "launches": second.launches}
    if point.clock == "events" and time.median < LEAST_TIME_S["events"]:
        return [warn("no-clock-left", time=seconds(time.median), **values)]
    return [warn("profiler-lost-events", **values)]


def _disagreement(point: Point, machine: Machine) -> list[Warning_]:
    """Two clocks further apart than 20 %, with the likely cause."""
    time, second = point.time_s, point.second_clock
    assert time is not None
    cause, other, name = "", None, ""
    if second is not None and second.whole and time.median >= LEAST_TIME_S[point.clock]:
        other = second.time_s
        if second.source == "raw":
            cause, name = _host_cause(time.median, second), "the host's raw clock"
        elif point.clock == "events":
            cause, name = _device_cause(point, second, machine), "the driver's records"
    if not cause and point.host_s is not None and point.host_s.high < (1 - CLOCKS_SHARE) * time.low:
        other, name = point.host_s.median, "the host's clock"
        cause = "the host did not wait for the device, or the device slowed down between the two"
    if not cause or other is None:
        return []
    values = {"clock": point.clock, "time": seconds(time.median), "by": name, "other": seconds(other), "likely": cause}
    return [warn("two-clocks-disagree", **values)]


def _host_cause(time_s: float, second: SecondClock) -> str:
    """Why a host clock cannot be right; nothing where it can."""
    assert second.time_s is not None
    if abs(second.time_s / time_s - 1) > CLOCKS_SHARE:
        return "the clock was set or slewed while it ran, or what was timed has tampered with it"
    if second.busy_share is not None and second.busy_share > 1 + CLOCKS_SHARE + second.busy_error:
        return f"the processors worked {percent(second.busy_share)} of the time that passed, which they cannot"
    return ""


def _device_cause(point: Point, second: SecondClock, machine: Machine) -> str:
    """Why events and the driver's records differ; nothing where they agree.

    Events also hold the gaps between kernels, so the latency of every launch but the first is allowed on top.
    """
    time, launch = point.time_s, machine.best("latency", "launch")
    assert time is not None and second.time_s is not None
    if time.high < (1 - CLOCKS_SHARE) * second.time_s:
        if (second.streams or 1) > 1:
            return f"work runs on {second.streams} streams, and the events see one"
        return "the device ran at a lower clock when it was watched, or did less when it was timed"
    gaps = (second.kernels - 1) * (launch.value if launch else 0.0)
    if time.low <= (1 + CLOCKS_SHARE) * (second.time_s + gaps):
        return ""
    if point.host_s is not None and point.host_s.median >= time.median:
        return "the device waits for the host between kernels: it is bound by launches"
    return "the device idles between kernels, or its clock was still rising when it was timed"


def _launch_bound(point: Point) -> list[Warning_]:
    """The host takes a fifth longer to start a call than the device to run it, and no wall says so already.

    A recurrence of launches whose highest floor is their latency is bound by them as a finding, not as a doubt.
    """
    time, host = point.time_s, point.host_s
    if time is None or host is None or point.clock != "events" or (point.bound == "serial" and point.chain == "launch"):
        return []
    if host.median <= (1 + CLOCKS_SHARE) * time.median:
        return []
    launched = f"the host needs {seconds(host.median)} to start and await a call"
    return [warn("launch-bound", launched=launched, alone=f"the device runs it in {seconds(time.median)}")]


def beside_graph(point: Point, graph: Timing | None) -> list[Warning_]:
    """What the replay of a graph says of the same warm calls by events: launching costs more, or they disagree."""
    time = point.time_s
    if graph is None or time is None or (point.cache, point.clock) != ("warm", "events"):
        return []
    told = {doubt.id for doubt in point.warnings}
    bound = point.bound == "serial" and point.chain == "launch"
    if time.low > (1 + CLOCKS_SHARE) * graph.high and not bound and not told & {"launch-bound", "two-clocks-disagree"}:
        launched = f"a call takes {seconds(time.median)} when its kernels are launched one by one"
        return [warn("launch-bound", launched=launched, alone=f"{seconds(graph.median)} when a graph replays them")]
    if graph.low > (1 + CLOCKS_SHARE) * time.high and "two-clocks-disagree" not in told:
        values = {"clock": "events", "time": seconds(time.median), "by": "the graph", "other": seconds(graph.median)}
        return [warn("two-clocks-disagree", **values, likely="the graph runs its kernels in another order or memory")]
    return []


def dispatch_remark(point: Point, machine: Machine) -> str:
    """A remark, for the gap in words, on a processor's call that is hardly longer than its dispatch."""
    launch, time = machine.best("latency", "launch"), point.time_s
    if machine.device != "cpu" or launch is None or time is None or time.median > FEW_DISPATCHES * launch.value:
        return ""
    return f" ({time.median / launch.value:.1f} x the latency of one dispatched operation: dispatch-bound)"


def taken_away(point: Point) -> str:
    """Say how the machine was disturbed meanwhile; nothing where it was little, or is not known."""
    share, swing = waiting_share(point), pace_swing(point)
    texts = [f"other work held the processors for {percent(share)} of the time"] if share >= LITTLE_WAITING else []
    texts += [f"a fixed loop took {swing:.2f} x as long at times as at others"] if swing >= LITTLE_SWING else []
    return f", while {' and '.join(texts)}" if texts else ""


def waiting_share(point: Point) -> float:
    """The share of its time in which others held the processors; 0 where it is not known."""
    return (point.second_clock.waiting_share if point.second_clock else None) or 0.0


def pace_swing(point: Point) -> float:
    """How much longer a fixed loop took in the slow moments of its rounds than in the fast ones; 1 where not known.

    The 90th over the 10th percentile.
    """
    pace = point.telemetry.pace_s if point.telemetry else None
    return pace.high / pace.low if pace and pace.low > 0 else 1.0


def disturbed(point: Point) -> bool:
    """Whether the machine was disturbed enough meanwhile to explain a wide interval or a drift."""
    return waiting_share(point) >= LITTLE_WAITING or pace_swing(point) >= LITTLE_SWING
