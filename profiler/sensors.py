"""What can be read of a device between two samples: `read()` gives numbers by name, and `reasons` what is unknown.

Names are those of `Telemetry`; `throttle` is a bit field. The folders are arguments so that tests can lay out trees of
their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter  # held here: replacing it in `time` changes nothing
from typing import Protocol

from .nvml import Gpu

PROC, SYS = Path("/proc"), Path("/sys")
# Where the kernel gives the temperature of a processor: driver names of Intel, AMD and Arm.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
# So many additions take some 50 us, far longer than a step of the clock, and no memory. The shortest of three tries has
# no interrupt in it.
PACE_ADDITIONS, PACE_TRIES = 1000, 3


class Sensors(Protocol):
    """A device that can be looked at."""

    reasons: Mapping[str, str]
    reference_clock_hz: float | None
    power_of: str

    def read(self) -> dict[str, float | None]:
        """Everything that is known at this moment; unknown is None."""
        ...


class GpuSensors:
    """The readings of one NVIDIA GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.reasons = gpu.reasons
        self.reference_clock_hz = gpu.highest_clock_hz
        self.power_of = "the whole GPU" if gpu.sliced else ""

    def read(self) -> dict[str, float | None]:
        """Ask NVML for everything that changes."""
        return {
            "clock_hz": self.gpu.clock_hz(),
            "memory_clock_hz": self.gpu.memory_clock_hz(),
            "power_w": self.gpu.power_w(),
            "temperature_c": self.gpu.temperature_c(),
            "throttle": self.gpu.throttle_bits(),
            "busy_share": self.gpu.busy_share(),
            "other_processes": self.gpu.others(),
            "other_share": self.gpu.others_share(),
        }


class CpuSensors:
    """Frequency, temperature and load of the processor's usable cores, from Linux's /proc and /sys.

    Shares of processor time are those since the reading before; the first reading has none.
    """

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys = proc, sys
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._cores = sorted(cores)
        self.power_of = ""
        self.reasons: dict[str, str] = {
            "power_w": "a CPU tells energy only",
            "memory_clock_hz": "not told by Linux",
            "throttle": "not told by Linux",
            "other_processes": "known by their share of time only",
        }
        highest = [value for core in self._cores if (value := self._frequency(core, "cpuinfo_max_freq"))]
        self.reference_clock_hz = max(highest, default=None)
        if self.reference_clock_hz is None:
            self.reasons["reference_clock_hz"] = "this system tells no highest frequency, as most virtual machines"
        self._before = self._jiffies()

    def read(self) -> dict[str, float | None]:
        """Read everything that changes."""
        now, before = self._jiffies(), self._before
        self._before = now
        shares: dict[str, float | None] = {"busy_share": None, "other_share": None, "steal_share": None}
        if now is None or before is None:
            self.reasons |= dict.fromkeys(shares, "there is no readable /proc/stat")
        elif now[0] > before[0]:
            total, busy, stolen, own = (later - earlier for later, earlier in zip(now, before))
            shares = {
                "busy_share": busy / total,
                "other_share": max(0.0, busy - own) / total,
                "steal_share": stolen / total,
            }
        seen = {"clock_hz": self._clock_hz(), "temperature_c": self._temperature_c(), "pace_s": _pace_s()}
        return seen | shares

    def _jiffies(self) -> tuple[float, float, float, float] | None:
        """Processor time of the usable cores: all, busy, stolen; and that of this process; in clock ticks."""
        try:
            lines = (self._proc / "stat").read_text().splitlines()
        except OSError:
            return None
        rows = [[int(word) for word in line.split()[1:9]] for line in lines if re.match(r"cpu\d", line)]
        names = [int(line.split()[0][3:]) for line in lines if re.match(r"cpu\d", line)]
        usable = [row + [0] * (8 - len(row)) for name, row in zip(names, rows) if name in self._cores]
        if not usable:
            return None
        total, idle = sum(map(sum, usable)), sum(row[3] + row[4] for row in usable)
        stolen = sum(row[7] for row in usable)
        times = os.times()
        own = (times.user + times.system + times.children_user + times.children_system) * os.sysconf("SC_CLK_TCK")
        return total, total - idle - stolen, stolen, own

    def _frequency(self, core: int, name: str) -> float | None:
        try:
            return 1e3 * int((self._sys / f"devices/system/cpu/cpu{core}/cpufreq/{name}").read_text())
        except (OSError, ValueError):
            return None

    def _clock_hz(self) -> float | None:
        """The fastest usable core: the others may be asleep at this moment."""
        found = [value for core in self._cores if (value := self._frequency(core, "scaling_cur_freq"))]
        if not found:
            self.reasons["clock_hz"] = (
                "no cpufreq here; /proc/cpuinfo gives a nominal frequency that does not follow the real one"
            )
        return max(found, default=None)

    def _temperature_c(self) -> float | None:
        found = []
        for folder in sorted((self._sys / "class/hwmon").glob("hwmon*")):
            try:
                if (folder / "name").read_text().strip() in _CPU_SENSORS:
                    found += [int(file.read_text()) / 1e3 for file in folder.glob("temp*_input")]
            except (OSError, ValueError):
                continue
        if not found:
            self.reasons["temperature_c"] = "no temperature sensor of a processor is readable under /sys/class/hwmon"
        return max(found, default=None)

    def load(self) -> float | None:
        """Programs that wanted to run, averaged over a minute."""
        try:
            return float((self._proc / "loadavg").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None


def _pace_s() -> float:
    """Seconds of a fixed loop: how fast this processor works at the moment.

    It tells what no share of time does: a lower clock that is not told, or another guest on the same core's other
    thread.
    """
    tries = []
    for _ in range(PACE_TRIES):
        total, start = 0, perf_counter()
        for index in range(PACE_ADDITIONS):
            total += index
        tries.append(perf_counter() - start)
    return min(tries)
