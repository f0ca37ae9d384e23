"""Energy of a call: a meter is read around a window of repeated calls, after the timing and in time of its own.

Meters are the energy counter of an NVIDIA GPU, its power readings where it has no counter, and RAPL on a CPU. A counter
moves in steps, so a window lasts at least ten of them: reading it at the ends is then wrong by a tenth at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..roofline.record import CacheState
from ..roofline.telemetry import Energy
from .nvml import Gpu
from .sensors import SYS

# A window holds so many steps of its meter.
LEAST_STEPS = 10
# A meter of fine steps still shows the ticks of the scheduler; ten of these are in a tenth of a second.
LEAST_WINDOW_S = 0.1
# Counters that do not move within half a second are as good as none; the slowest known step is about a tenth of that.
LONGEST_STEP_S = 0.5
# A step of power readings: a quarter of the second that the slowest drivers average over, so that a window fits below.
ASSUMED_STEP_S = 0.25
# Longer windows tell no more than the meter's own accuracy of a few percent.
LONGEST_WINDOW_S = 3.0
# Power without load, measured once before anything has run; with ten steps of a tenth of a second each.
IDLE_WINDOW_S = 1.0
# All windows of a group together may take this share of what its timing was given; roofs, checks and parts need the
# rest. Every row has a like share of it, and what one leaves the others have.
BUDGET_SHARE = 1 / 2
# Calls between two looks at the clock last about so long, so that queues stay short and the window keeps its length.
CHUNK_S = 0.02


class Meter(Protocol):
    """A source of energy readings. `read_j` never runs backwards."""

    how: str
    reason: str
    step_s: float | None

    def read_j(self) -> float | None:
        """Energy since some fixed moment; None, with `reason` set, where it cannot be read."""
        ...


class GpuMeter:
    """The energy counter of an NVIDIA GPU, or its power readings summed up where it has no counter."""

    def __init__(self, gpu: Gpu, clock: Callable[[], float] = time.monotonic) -> None:
        self._gpu, self._clock = gpu, clock
        self._sum_j, self._at, self._power_w = 0.0, 0.0, None
        self.reason = ""
        self.counts = gpu.energy_j() is not None
        self.how = "NVML's energy counter" if self.counts else "NVML's power readings, integrated"
        # Power is a mean over up to a second on recent devices, and tells not when it was renewed: a step is assumed.
        self.step_s: float | None = None if self.counts else ASSUMED_STEP_S
        if gpu.sliced:
            self.reason = "NVML tells the energy of the whole GPU, and this is a slice of it"
        elif not self.counts and gpu.power_w() is None:
            self.reason = gpu.reasons.get("energy_j", "") or gpu.reasons.get("power_w", "")

    def read_j(self) -> float | None:
        """Read the counter, or add the power since the reading before."""
        if self.reason:
            return None
        if self.counts:
            return self._gpu.energy_j()
        now, power_w = self._clock(), self._gpu.power_w()
        if power_w is None:
            return None
        if self._power_w is not None:
            self._sum_j += (now - self._at) * (power_w + self._power_w) / 2
        self._at, self._power_w = now, power_w
        return self._sum_j


class RaplMeter:
    """The packages of a CPU and the memory beside them, through Linux's powercap; counters that overflow are unrolled.

    A package counts its cores already, and "psys" counts the packages, so both kinds of parts are left out.
    """

    def __init__(self, sys: Path = SYS) -> None:
        self.how = "RAPL, packages and memory"
        self.reason = ""
        self.step_s: float | None = None
        self._last: dict[Path, int] = {}
        self._sum_uj = 0
        self._zones = {}
        for zone in sorted((sys / "class/powercap").glob("*rapl:*")):
            try:
                name = (zone / "name").read_text().strip()
                if name.startswith(("package", "dram")):
                    self._zones[zone] = int((zone / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                continue
        if not self._zones:
            self.reason = "this processor's energy counters (RAPL) are not offered here"
        elif self.read_j() is None:
            self.reason = "RAPL is readable by root only here: /sys/class/powercap/*/energy_uj"

    def read_j(self) -> float | None:
        """Sum up all zones; between two readings a counter may overflow once."""
        for zone, most_uj in self._zones.items():
            try:
                now = int((zone / "energy_uj").read_text())
            except (OSError, ValueError):
                return None
            last = self._last.get(zone, now)
            self._sum_uj += now - last if now >= last else now - last + most_uj + 1
            self._last[zone] = now
        return self._sum_uj * 1e-6 if self._zones else None


class Accountant:
    """Turns a meter into watts at rest and joules per call. Clock and sleep are arguments for tests."""

    def __init__(
        self,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.meter = meter
        self._clock, self._sleep = clock, sleep

    def step_s(self) -> float | None:
        """Time between two movements of the meter; None, with the meter's `reason` set, where it stands still."""
        if self.meter.step_s is None and not self.meter.reason:
            self._until_it_moves()
            began = self._clock()
            moved = self._until_it_moves()
            if moved:
                self.meter.step_s = self._clock() - began
            else:
                self.meter.reason = f"the meter does not move within {LONGEST_STEP_S:g} s"
        return self.meter.step_s

    def _until_it_moves(self) -> bool:
        """Wait for the next movement of the meter, so that a window begins with one."""
        first, deadline = self.meter.read_j(), self._clock() + LONGEST_STEP_S
        while self._clock() < deadline:
            self._sleep(5e-4)  # twenty times finer than the fastest meter, RAPL's millisecond aside
            if self.meter.read_j() != first:
                return True
        return False

    def idle_w(self) -> float | None:
        """Mean power while nothing runs; takes a second, or no time at all without a meter."""
        if self.step_s() is None:
            return None
        self._until_it_moves()
        began, first = self._clock(), self.meter.read_j()
        while self._clock() - began < IDLE_WINDOW_S:
            self._sleep(CHUNK_S)
            self.meter.read_j()
        last = self.meter.read_j()
        if first is None or last is None:
            return None
        return (last - first) / (self._clock() - began)

    def least_window_s(self) -> float | None:
        """The shortest window whose ends do not spoil the result; None without a meter."""
        step_s = self.step_s()
        return None if step_s is None else max(LEAST_WINDOW_S, LEAST_STEPS * step_s)

    def measure(
        self,
        calls: list[Callable[[], object]],
        estimate_s: float,
        idle_w: float | None,
        affordable_s: float,
        finish: Callable[[], object],
        manner: str = "calls back to back",
    ) -> Energy:
        """Energy per call of `calls` in turn, `estimate_s` each, in a window that `affordable_s` can pay for.

        manner : how the calls follow one another and what they find in the caches, in words.
        """
        least = self.least_window_s()
        if least is None:
            return Energy(reason=self.meter.reason)
        needed_s = max(least, 3 * estimate_s)  # two calls to warm up, and one to measure
        if affordable_s < needed_s or least > LONGEST_WINDOW_S:
            share_s = max(0.0, affordable_s)
            return Energy(reason=f"a window of {needed_s:.2g} s is needed, and this row's share is {share_s:.2g} s")
        chunk = max(1, min(1000, round(CHUNK_S / max(estimate_s, 1e-9))))
        window_s = max(least, estimate_s)
        for call in calls[:2]:  # neither the first call nor a device at rest belongs to it
            call()
        finish()
        self._until_it_moves()
        done, began, first = 0, self._clock(), self.meter.read_j()
        while self._clock() - began < window_s:
            for _ in range(chunk):
                calls[done % len(calls)]()
                done += 1
            finish()
            self.meter.read_j()
        last, took_s = self.meter.read_j(), self._clock() - began
        if first is None or last is None:
            return Energy(reason="the meter could no longer be read")
        return self._settled(last - first, took_s, done, idle_w, manner)

    def _settled(self, energy_j: float, took_s: float, calls: int, idle_w: float | None, manner: str) -> Energy:
        """What a window says. Energy above idle that is within its doubt is not told: it could be nothing."""
        step_s = self.meter.step_s or 0.0
        # One step at the end of the window and one of the idle window: the beginnings are aligned with a movement.
        doubt_j = step_s * energy_j / took_s + (idle_w or 0.0) * took_s * step_s / IDLE_WINDOW_S
        net_j, reason = None, "no idle power is known, so there is only the gross figure"
        if idle_w is not None:
            net_j, reason = energy_j - idle_w * took_s, ""
            if net_j <= doubt_j:
                reason = f"{net_j:.2g} J above idle in a window are within the meter's doubt of {doubt_j:.2g} J"
                net_j = None
        return Energy(
            per_call_j=None if net_j is None else net_j / calls,
            gross_per_call_j=energy_j / calls,
            power_w=energy_j / took_s,
            idle_w=idle_w,
            window_s=took_s,
            calls=calls,
            error=doubt_j / net_j if net_j else None,
            how=f"{self.meter.how}; {manner}" + ("" if idle_w is None else ", idle power subtracted"),
            reason=reason,
        )


def energies(device: Any, subjects: Sequence[Any], options: dict[str, Any], emit: Callable[..., None]) -> None:
    """Measure the energy of every implementation under its headline clock; emits `energy` for each.

    Without a meter nothing happens; why there is none is told with the run.
    options : `headline`, a cache state and a clock; `idle_w`, power at rest; `budget_s`, what the timing may take.
    """
    if device.meter.reason or "headline" not in options:
        return
    accountant, left_s = Accountant(device.meter), BUDGET_SHARE * options["budget_s"]
    rows = [subject for subject in subjects if (subject.cache, subject.clock) == tuple(options["headline"])]
    for place, subject in enumerate(rows):
        share_s = left_s / (len(rows) - place)
        emit("begin", implementation=subject.name, stage="energy")
        began = time.monotonic()
        try:
            manner = _manner(device.kind, subject.cache)
            found = accountant.measure(
                subject.calls, subject.estimate_s, options["idle_w"], share_s, device.finish, manner
            )
        except Exception as error:  # the call was timed before, and its time stands
            device.finish()
            found = Energy(reason=f"the window failed: {type(error).__name__}")
        left_s -= time.monotonic() - began
        emit(
            "energy",
            implementation=subject.name,
            cache=subject.cache,
            clock=subject.clock,
            energy=found.model_dump(),
        )


def _manner(kind: str, cache: CacheState) -> str:
    """How the calls of a window follow one another. Flushing between them would be most of the energy."""
    if cache == "warm":
        return "warm calls back to back"
    if kind == "cpu":
        return "cold calls back to back, on copies in rotation"
    return "calls back to back, the cache not flushed between them as it is for the time"
