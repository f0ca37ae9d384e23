"""Counters for the points of a run, where they were asked for: probed once, then counted group by group."""

from __future__ import annotations

from typing import Any

from ..roofline.calibration import Probe
from ..roofline.counted import with_counts
from ..roofline.record import Evidence, Point
from ..roofline.telemetry import Counted
from .counters import DEADLINE_S, PROBE_BYTES, CountersDenied, Tool, probe, tool_for
from .points import headline
from .supervisor import Supervisor

INTERRUPTED = "the run was interrupted before it was counted"


class Counting:
    """Adds counted bytes to headline points. Without permission the run goes on, and says why bytes are modelled."""

    def __init__(self, supervisor: Supervisor, wanted: bool) -> None:
        self._supervisor = supervisor
        self._wanted = wanted
        self._tool: Tool | None = None
        self._known: Counted | None = None
        self._denied: CountersDenied | None = None

    def add(self, group: dict[str, Any], points: list[Point], seed: int) -> list[Point]:
        """The points of a group with what was counted of them, in a process beside the worker."""
        names = list(dict.fromkeys(point.implementation for point in points if point.time_s and point.headline))
        if not self._wanted or not names or self._denied is not None:
            return points
        request = {name: group[name] for name in ("source", "shape", "dtype", "direction")}
        request |= {"code": self._supervisor.code}
        request |= {"device": self._device(), "implementations": names, "seed": seed, "cache": headline(group)[0]}
        try:
            if self._tool is None:
                tool = tool_for(group["kind"])
                self._known = probe(tool, self._device())
                self._tool = tool
        except CountersDenied as denied:
            self._denied = denied
            return points
        try:
            found = self._tool.count(request, DEADLINE_S)
        except CountersDenied as lost:  # this group only: the probe has shown that counters are permitted
            found = {name: Counted(reason=str(lost)) for name in names}
        return [
            with_counts(point, found[point.implementation])
            if point.headline and point.time_s and point.implementation in found
            else point
            for point in points
        ]

    def cut_off(self, points: list[Point]) -> list[Point]:
        """The points of a group whose counting a signal has ended: they keep their times, and say what they lack."""
        return [
            with_counts(point, Counted(reason=INTERRUPTED)) if point.headline and point.time_s else point
            for point in points
        ]

    def missing(self, points: list[Point]) -> set[str]:
        """The implementations whose counting a signal has ended, where counts are wanted: they are measured again."""
        cut = {point.implementation for point in points if point.counted and point.counted.reason == INTERRUPTED}
        return cut if self._wanted else set()

    def _device(self) -> str:
        return self._supervisor.opened["torch_device"]

    def probed(self) -> Probe | None:
        """What the counters of the memory itself saw of the kernel of known traffic; None where they did not."""
        known = self._known
        if known is None or known.dram_read_bytes is None or known.provenance != "measured":
            return None
        return Probe(read_bytes=PROBE_BYTES, counted_bytes=known.dram_read_bytes)

    def evidence(self) -> tuple[Evidence, ...]:
        """Whether counters could be read, and what they saw of a kernel of known traffic; nothing unless asked for."""
        if self._denied is not None:
            values: dict[str, float | int | str | None] = {
                "state": "denied",
                "cause": str(self._denied),
                "fix": self._denied.fix,
            }
            return (Evidence(id="counters", values=values, how="tried with a kernel of known traffic"),)
        if self._tool is None or self._known is None:
            return ()
        values = {
            "state": "ok",
            "tool": self._tool.name,
            "provenance": self._known.provenance,
            "probe_bytes": PROBE_BYTES,
            "probe_read_bytes": self._known.dram_read_bytes,
            "probe_write_bytes": self._known.dram_write_bytes,
        }
        return (Evidence(id="counters", values=values, how=self._known.how),)
