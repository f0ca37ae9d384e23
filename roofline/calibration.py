"""The calibration copy of a run: known bytes, timed by the clock of the kernels, held against the measured roof.

When model, clock and roof agree on a copy whose traffic nobody can dispute, they can be believed on a kernel. Pure
functions; the profiler takes the looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from ._model import Frozen
from .machine import Ceiling, Machine
from .record import Clock, Evidence, Observation, Timing
from .units import binary_bytes, percent, seconds, si

ID = "calibration-copy"
# Model, counters and clock should agree within so much on a copy, besides what the intervals allow.
TOLERANCE = 0.02
# In the order in which a run takes them.
TIMES = ("start", "end")


class Probe(Frozen):
    """What hardware counters saw of a kernel that reads `read_bytes`. The copy is made by the driver on a GPU, where
    counters see kernels only; bytes written are left out, as a cache may still hold some when the kernel ends.
    """

    read_bytes: int = Field(gt=0)
    counted_bytes: float

    @property
    def off(self) -> float:
        """Counted bytes relative to the known ones, less 1."""
        return self.counted_bytes / self.read_bytes - 1


class Look(Frozen):
    """One timing of the copy.

    moved_bytes : bytes read plus bytes written, from the arrays that were found equal afterwards.
    cache_bytes : the last cache as reported, which the copy has to exceed. when : ISO 8601 date.
    """

    # Journals and kept roofs of earlier versions hold fields that nothing reads any more.
    model_config = ConfigDict(extra="ignore")

    moved_bytes: int = Field(gt=0)
    cache_bytes: int
    clock: Clock
    time_s: Timing
    when: str

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth by the median time."""
        return self.moved_bytes / self.time_s.median

    @property
    def interval_bytes_per_s(self) -> tuple[float, float]:
        """Bandwidth by the longest and the shortest time of the interval."""
        return self.moved_bytes / self.time_s.high, self.moved_bytes / self.time_s.low


def copy_roof(machine: Machine) -> Ceiling | None:
    """What the copy is held against: the same operation among the roofs, else the roof of its pattern, else None."""
    found = [roof for roof in machine.find("bandwidth", "dram") if roof.pattern == "copy"]
    same = [
        roof
        for roof in machine.ceilings
        if (roof.quantity, roof.level, roof.pattern, roof.scope) == ("bandwidth", "dram", "copy", "calibration")
    ]
    return max(same or found, key=lambda roof: roof.value, default=None)


def disagreement(look: Look, roof: Ceiling) -> float:
    """How far apart the intervals of copy and roof lie, relative to the roof; 0 where they meet, negative below it.

    The intervals are `TOLERANCE` wider on either side.
    """
    low, high = look.interval_bytes_per_s
    least = (roof.low if roof.low is not None else roof.value) * (1 - TOLERANCE)
    most = (roof.high if roof.high is not None else roof.value) * (1 + TOLERANCE)
    if low > most:
        return low / most - 1
    return high / least - 1 if high < least else 0.0


@dataclass(frozen=True)
class Shortfall:
    """The slowest copy of a run that stayed below its roof, beyond both intervals; rates in bytes per second."""

    when: str
    rate: float
    roof: float

    @property
    def share(self) -> float:
        """Its rate as a share of the roof."""
        return self.rate / self.roof


def values_of(rows: Sequence[Evidence]) -> list[dict[str, float | int | str | None]]:
    """What the copies of a run showed; in a record of several devices, those of each."""
    return [row.values for row in rows if row.id == ID or row.id.startswith(f"{ID} device ")]


def shortfall(rows: Sequence[Evidence]) -> Shortfall | None:
    """How far the memory fell short of its roof during a run, by the evidence on its copies; None where it held."""
    found = []
    for values in values_of(rows):
        roof = values.get("roof_bytes_per_s")
        for when in TIMES:
            rate, off = values.get(f"{when}_bytes_per_s"), values.get(f"{when}_from_roof")
            if all(isinstance(value, float) and math.isfinite(value) for value in (roof, rate, off)):
                assert isinstance(roof, float) and isinstance(rate, float) and isinstance(off, float)
                found += [Shortfall(when, rate, roof)] if off < 0 < rate < roof else []
    return min(found, key=lambda entry: entry.rate, default=None)


def evidence(looks: Mapping[str, Look], machine: Machine, probe: Probe | None = None) -> tuple[Evidence, ...]:
    """What copies and counters of a run showed, as one entry of its record; none where no copy was timed."""
    taken = {when: looks[when] for when in TIMES if when in looks}
    if not taken:
        return ()
    roof = copy_roof(machine)
    values: dict[str, float | int | str | None] = {
        "roof_bytes_per_s": roof.value if roof else None,
        "roof_low_bytes_per_s": roof.low if roof else None,
        "roof_high_bytes_per_s": roof.high if roof else None,
        "probe_read_bytes": probe.read_bytes if probe else None,
        "probe_counted_bytes": probe.counted_bytes if probe else None,
    }
    for when, look in taken.items():
        low, high = look.interval_bytes_per_s
        values |= {
            f"{when}_moved_bytes": look.moved_bytes,
            f"{when}_time_s": look.time_s.median,
            f"{when}_bytes_per_s": look.bytes_per_s,
            f"{when}_low_bytes_per_s": low,
            f"{when}_high_bytes_per_s": high,
            f"{when}_from_roof": disagreement(look, roof) if roof else None,
        }
    look = next(iter(taken.values()))
    how = (
        f"a copy of arrays that were equal afterwards, {_extent(look)}, timed by the clock of the kernels "
        f"({look.clock}); bytes read and written are modelled"
    )
    counted = "; bytes of a kernel that reads as many as it must are counted" if probe else ""
    return (Evidence(id=ID, values=values, how=how + counted),)


def findings(looks: Mapping[str, Look], machine: Machine, probe: Probe | None = None) -> tuple[Observation, ...]:
    """The same in words: whether the copy, the roof and, where there are some, the counters agree."""
    taken = {when: looks[when] for when in TIMES if when in looks}
    if not taken:
        return ()
    roof = copy_roof(machine)
    first = next(iter(taken.values()))
    times = ", ".join(f"{si(look.bytes_per_s, 'B/s')} at the {when}" for when, look in taken.items())
    text = f"Calibration copy, {_extent(first)}: {times} by the {first.clock} clock (measured; bytes modelled); "
    text += _against_roof(taken, roof)
    text += _against_counters(probe) if probe else ""
    numbers: dict[str, float | str | None] = {"roof_bytes_per_s": roof.value if roof else None}
    numbers |= {f"{when}_bytes_per_s": look.bytes_per_s for when, look in taken.items()}
    return (Observation(id=ID, text=text, numbers=numbers),)


def _extent(look: Look) -> str:
    text = f"{binary_bytes(look.moved_bytes)} read and written in {seconds(look.time_s.median)}"
    times = look.moved_bytes / look.cache_bytes if look.cache_bytes else 0.0
    return text + (f", only {times:.1f} times the reported last cache" if 0 < times < 4 else "")


def _against_roof(taken: Mapping[str, Look], roof: Ceiling | None) -> str:
    if roof is None:
        return "no copy roof is known to hold it against."
    off = {when: share for when, look in taken.items() if (share := disagreement(look, roof))}
    stated = f"the same copy among the roofs, {si(roof.value, 'B/s')} ({roof.provenance})"
    if not off:
        return f"agrees with {stated}."
    sides = " and ".join(f"{percent(abs(s))} {'above' if s > 0 else 'below'} it at the {w}" for w, s in off.items())
    return (
        f"DISAGREES with {stated}: {sides}, beyond both intervals. The machine was busier or faster than when its "
        "roofs were measured; read percentages with that in mind, or measure again."
    )


def _against_counters(probe: Probe) -> str:
    known = f" Of the {binary_bytes(probe.read_bytes)} that a kernel of known traffic reads"
    if abs(probe.off) <= TOLERANCE:
        return f"{known}, counters saw as many within {percent(TOLERANCE)}."
    relation = f"{percent(abs(probe.off))} {'more' if probe.off > 0 else 'fewer'}"
    return f"{known}, counters saw {relation}: they DISAGREE, and no counted bytes should be believed."
