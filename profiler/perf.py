"""What `perf stat` can say about the memory of a CPU, and what its refusals mean.

Memory controllers count bytes themselves, for the whole machine, and need a permissive kernel. Otherwise misses of the
last cache times the size of a line are taken: derived, and a lower bound, since prefetched lines are no misses.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..roofline.telemetry import Counted
from .sensors import PROC, SYS

# A line of the last cache of every x86 and nearly every Arm processor.
LINE_BYTES = 64
# perf scales the counts of memory controllers, and says how.
_UNITS = {"": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "Bytes": 1.0}
# Names of the read and write events by generation of memory controller.
_CONTROLLER_EVENTS = (("cas_count_read", "cas_count_write"), ("data_reads", "data_writes"))
_MISSES = ("LLC-load-misses", "LLC-store-misses")

PARANOID_FIX = "sysctl kernel.perf_event_paranoid=1 (0 for the memory controllers), or run as root"


def paranoid(proc: Path = PROC) -> int | None:
    """How strict the kernel is with counters: from 0 on the whole machine, from 2 on the kernel is hidden."""
    try:
        return int((proc / "sys/kernel/perf_event_paranoid").read_text())
    except (OSError, ValueError):
        return None


def events(sys: Path = SYS, proc: Path = PROC) -> tuple[list[str], str, str]:
    """Options that choose the events, how the bytes come about, and their provenance."""
    strict = paranoid(proc)
    allowed = os.geteuid() == 0 or (strict is not None and strict <= 0)
    controllers = sorted((sys / "bus/event_source/devices").glob("uncore_imc*"))
    for names in _CONTROLLER_EVENTS:
        if allowed and any(all((unit / "events" / name).exists() for name in names) for unit in controllers):
            chosen = [word for name in names for word in ("-e", f"uncore_imc/{name}/")]
            return ["-a", *chosen], "memory controllers, of all programs on the machine", "measured"
    chosen = [word for name in _MISSES for word in ("-e", name)]
    return chosen, f"misses of the last cache times {LINE_BYTES} bytes, a lower bound", "derived"


def counted(text: str, calls: int, how: str, provenance: str) -> Counted:
    """Counts per call from the output of `perf stat -x ,`: value, unit, event and more on every line."""
    bytes_of: dict[bool, float] = {}
    for line in text.splitlines():
        words = line.split(",")
        if len(words) < 3 or line.startswith("#"):
            continue
        event, writes = words[2], any(part in words[2] for part in ("write", "store"))
        try:
            value = float(words[0])
        except ValueError:
            continue  # "<not supported>" or "<not counted>"
        scale = _UNITS.get(words[1]) if "imc" in event else float(LINE_BYTES)
        if scale is not None:
            bytes_of[writes] = bytes_of.get(writes, 0.0) + value * scale / calls
    if False not in bytes_of:
        return Counted(reason="this processor's counters are not offered here, as in most virtual machines", how=how)
    return Counted(
        dram_read_bytes=bytes_of[False], dram_write_bytes=bytes_of.get(True), provenance=provenance, how=f"perf: {how}"
    )


def denied(text: str) -> tuple[str, str] | None:
    """Cause and fix where perf was refused its counters."""
    if "perf_event_paranoid" in text or "No permission" in text or "Permission denied" in text:
        level = paranoid()
        told = f" (kernel.perf_event_paranoid is {level})" if level is not None else ""
        return f"the kernel does not let this user count{told}", PARANOID_FIX
    if "unknown option" in text or "Failed to parse" in text or "invalid control" in text.lower():
        return "this perf is too old to be told when to count", "install perf 5.10 or newer"
    return None
