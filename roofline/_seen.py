"""What was seen beside the clock, in words: telemetry, energy, counted bytes, and the doubts about a whole run."""

from __future__ import annotations

from collections.abc import Sequence

from ._view import Advice, Row, case_text, clean, run_letter
from .instrument import waiting_shares
from .record import Point, Run
from .telemetry import Spread
from .units import percent, seconds, si

# Throttle reasons that say nothing about a measurement.
_SILENT = ("throttle: idle",)

# A time at the highest clock that differs by less from the measured one is the same to a quiet measurement.
_NEWS = 0.01

TITLES = ("point", "clock", "at the highest clock", "power", "temperature", "throttled", "others")
TITLES += ("energy per call", "per token", "DRAM bytes counted", "× compulsory", "tensor pipe")


def run_text(run: Run) -> str:
    """One sentence on the state of the device during a run; nothing for runs that recorded none."""
    seen = next((entry for entry in run.evidence if entry.id.split(" device ")[0] == "surroundings-during"), None)
    if seen is None or not seen.values:
        return ""
    during, whose = seen.values, f" on the first of {len(run.devices)} devices" if run.devices else ""
    texts = [
        f"{words} {si(value, 'Hz')}"
        for name, words in (("clock_hz", "clock"), ("memory_clock_hz", "memory clock"))
        if isinstance(value := during.get(name), (int, float))
    ]
    for name, unit in (("power_w", "W"), ("temperature_c", "°C")):
        if isinstance(value := during.get(name), (int, float)):
            of = f" of {clean(str(during['power_of']))}" if name == "power_w" and during.get("power_of") else ""
            texts.append(f"{value:.0f} {unit}{of}")
    for name, words in (("other_share", "other programs"), ("steal_share", "other guests")):
        told = name == "other_share" and run.machine.device == "cpu" and waiting_shares(run.points)
        if isinstance(value := during.get(name), (int, float)) and not told:  # points know it better than looks do
            texts.append(f"{words} {percent(value)} of the device's time")
    held = [name.removeprefix("throttle: ") for name in during if name.startswith("throttle: ") and name not in _SILENT]
    texts += [f"clocks held down by {', '.join(clean(name) for name in held)}"] if held else []
    count = sum(point.counted is not None and point.counted.dram_read_bytes is not None for point in run.points)
    texts.append(f"bytes of {count} points counted" if count else "bytes modelled, none counted")
    return f"Seen beside the clock{whose} (measured, medians): {'; '.join(texts)}."


def details(point: Point) -> list[str]:
    """What a row says below itself: its energy, and its counted bytes beside the modelled ones."""
    texts = []
    energy, counted, highest_s = point.energy, point.counted, point.normalised_time_s
    if highest_s and point.time_s and abs(highest_s / point.time_s.median - 1) > _NEWS:
        texts.append(f"{seconds(highest_s)} at the highest clock (derived)")
    if energy is not None and energy.per_call_j is not None:
        token = f", {si(energy.per_token_j, 'J')} per token" if energy.per_token_j else ""
        error = f" ±{percent(energy.error)}" if energy.error is not None else ""
        texts.append(f"energy {si(energy.per_call_j, 'J')}{error} per call{token} (measured, idle subtracted)")
    if counted is not None and counted.dram_bytes is not None and counted.amplification is not None:
        words = f"{counted.amplification:.2f} x the compulsory bytes ({counted.provenance})"
        texts.append(f"DRAM moved {si(counted.dram_bytes, 'B')}, {words}")
    elif counted is not None and counted.reason:
        texts.append(f"not counted: {clean(counted.reason)}")
    return texts


def of_run(runs: Sequence[Run]) -> list[Advice]:
    """The doubts about whole runs, in the form of those about points."""
    names = [f"the whole run {run_letter(index)}" for index in range(len(runs))] if len(runs) > 1 else ["the whole run"]
    return [
        Advice("run", clean(doubt.id), doubt.severity, clean(doubt.advice), ((clean(doubt.cause), (name,)),))
        for name, run in zip(names, runs)
        for doubt in run.warnings
    ]


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line under `TITLES` for every point of which more is known than its time."""
    found = []
    for row in rows:
        point, seen, energy, counted = row.point, row.point.telemetry, row.point.energy, row.point.counted
        if not (seen.clock_hz or seen.power_w or seen.throttle or energy or counted):
            continue
        held = ", ".join(f"{clean(name)} {percent(share)}" for name, share in seen.throttle.items() if name != "idle")
        found.append(
            (
                row.number or clean(f"{point.implementation} {case_text(point)} {point.cache}"),
                _spread(seen.clock_hz, "Hz"),
                seconds(point.normalised_time_s) if point.normalised_time_s else "-",
                _spread(seen.power_w, "W") + (f", of {clean(seen.power_of)}" if seen.power_of else ""),
                _spread(seen.temperature_c, "°C"),
                held or "-",
                percent(seen.other_share.median) if seen.other_share else "-",
                _joules(energy.per_call_j if energy else None, energy.reason if energy else ""),
                _joules(energy.per_token_j if energy else None),
                (si(counted.dram_bytes, "B") if counted.dram_bytes is not None else clean(counted.reason))
                if counted
                else "-",
                f"{counted.amplification:.2f}" if counted and counted.amplification is not None else "-",
                percent(counted.tensor_share) if counted and counted.tensor_share is not None else "-",
            )
        )
    return found


def _spread(value: Spread | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "Hz":
        return f"{si(value.median, unit)} ({si(value.low, unit)} to {si(value.high, unit)})"
    return f"{value.median:.0f} {unit} ({value.low:.0f} to {value.high:.0f})"


def _joules(value: float | None, reason: str = "") -> str:
    return si(value, "J") if value is not None else clean(reason) or "-"
