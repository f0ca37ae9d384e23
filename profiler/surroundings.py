"""The state of device and host before, during and after a run: other tenants, throttling, power at rest.

The worker looks (`look_around`), the parent keeps what it saw as evidence. Nothing here imports torch.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..roofline.record import Evidence, Point
from ..roofline.stats import median
from ..roofline.throttling import decode
from .energy import IDLE_WINDOW_S, LONGEST_STEP_S, Accountant
from .sensors import PROC, CpuSensors
from .supervisor import Supervisor, WorkerDied

# Processor time is counted in ticks of 10 ms: ten of them per core tell a busy neighbour from none.
HOST_WINDOW_S = 0.1
# Longest silence of a worker that looks around: the window at rest and three searches for a movement of the meter.
SILENCE_S = 30.0 + IDLE_WINDOW_S + 3 * LONGEST_STEP_S
# What points tell of the time between before and after, as medians over all points.
_SHARES = ("clock_hz", "memory_clock_hz", "power_w", "temperature_c", "busy_share", "other_share", "steal_share")


def look_around(device: Any, idle: bool) -> dict[str, Any]:
    """Readings of a device and of its host while nothing of ours runs, with reasons for what is unknown.

    idle : also measure the power at rest, where there is a meter.
    """
    host, accountant = CpuSensors(), Accountant(device.meter)
    device.finish()
    readings = dict(device.sensors.read())
    watts = accountant.idle_w() if idle else None
    if watts is None:
        time.sleep(HOST_WINDOW_S)
    seen = host.read()
    bits = readings.pop("throttle", None)
    if bits is not None:
        readings["throttle"] = ", ".join(decode(int(bits))) or "none"  # type: ignore[assignment]
    facts: dict[str, Any] = readings | {"idle_w": watts} if idle else readings
    if device.sensors.__class__ is CpuSensors:
        facts |= seen
    else:
        facts |= {f"host_{name}": seen[name] for name in ("other_share", "steal_share")}
    facts |= {"host_load": host.load(), "host_nominal_clock_hz": nominal_clock_hz()}
    reasons = {name: device.sensors.reasons.get(name, "not told") for name, value in facts.items() if value is None}
    if idle and watts is None:
        reasons["idle_w"] = device.meter.reason
    return {"facts": facts, "reasons": reasons}


def nominal_clock_hz(proc: Path = PROC) -> float | None:
    """The highest frequency in /proc/cpuinfo; on a virtual machine it stands still."""
    try:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", (proc / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return max((float(value) * 1e6 for value in found), default=None)


class Surroundings:
    """What a run saw around itself. `idle_w` is the power at rest, None where it is not known."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._seen: dict[str, dict[str, Any]] = {}
        self.idle_w: float | None = None

    def look(self, when: str, write: Callable[[str, Any], None] = lambda kind, data: None) -> None:
        """Look "before" or "after", and write it down; a worker that dies of it is replaced, nothing else is lost."""
        try:
            answer = self._supervisor.one("look", SILENCE_S, "looked", idle=when == "before")
        except WorkerDied as death:
            self._supervisor.restart()
            answer = {"facts": {}, "reasons": {"everything": f"the worker died while it looked: {death}"}}
        resumed = when == "before" and when in self._seen
        seen = {"when": "before resuming" if resumed else when, "facts": answer["facts"], "reasons": answer["reasons"]}
        write("surroundings", seen)
        self.recall(seen)
        if when == "before":
            self.idle_w = answer["facts"].get("idle_w")

    def recall(self, seen: dict[str, Any]) -> None:
        """Take up a look of an earlier session."""
        self._seen[seen["when"]] = seen

    def evidence(self, points: Sequence[Point]) -> tuple[Evidence, ...]:
        """Readings before, during and after, as far as the run came."""
        found = {**self._seen, "during": _during(points)}
        return tuple(
            Evidence(
                id=f"surroundings-{when}",
                values=found[when]["facts"],
                how=_how(when, found[when]["reasons"]),
            )
            for when in ("before", "before resuming", "during", "after")
            if when in found and (found[when]["facts"] or found[when]["reasons"])
        )


def _how(when: str, reasons: dict[str, str]) -> str:
    text = (
        "medians over all points" if when == "during" else f"one look {when} the measurements, nothing of ours running"
    )
    unknown = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return text + (f". Unknown: {unknown}" if unknown else "")


def _during(points: Sequence[Point]) -> dict[str, Any]:
    watched = [point.telemetry for point in points if point.telemetry.samples]
    facts: dict[str, Any] = {}
    for name in _SHARES:
        values = [spread.median for seen in watched if (spread := getattr(seen, name)) is not None]
        if values:
            facts[name] = median(values)
    others = [seen.other_processes for seen in watched if seen.other_processes is not None]
    if others:
        facts["other_processes"] = max(others)
    for name in sorted({name for seen in watched for name in seen.throttle}):
        facts[f"throttle: {name}"] = sum(seen.throttle.get(name, 0.0) for seen in watched) / len(watched)
    power_of = next((seen.power_of for seen in watched if seen.power_of), "")
    if power_of:
        facts["power_of"] = power_of
    if watched:
        facts["looks"] = sum(seen.samples for seen in watched)
    return {"facts": facts, "reasons": {}}
