"""Machines by id, from vendors' figures: what `predict` and `what-if` compute on without having the device.

Every value carries its mark: datasheet, derived (arithmetic on datasheet values), published (somebody's measurement)
or assumed. What is not known is absent, and the floor that needs it is then "not known". A recorded run of the same
machine is better than its row here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from .catalogue_part import Part
from .catalogue_rows import PARTS
from .machine import Ceiling, Machine, Provenance

# Latencies and cache bandwidths are other people's measurements: exact for the part they name, assumed for its kin.
_PUBLISHED_FOR = {("a100-sxm-80gb", "cache_bandwidth"), ("a100-sxm-80gb", "latencies")}


@cache
def machines() -> dict[str, Machine]:
    """All machines of the catalogue by id, in the order vendor, year."""
    return {part.id: _machine(part) for part in PARTS}


def machine(id: str) -> Machine:
    """One machine by id ("h200-sxm"); raises `KeyError` with a sentence that lists near matches."""
    known = machines()
    if id in known:
        return known[id]
    wanted = id.lower()
    near = [name for name in known if wanted and wanted in name] or difflib.get_close_matches(wanted, known, 5, 0.4)
    hint = f"near matches: {', '.join(near)}" if near else f"machines: {', '.join(known)}"
    raise KeyError(f"The catalogue has no machine {id!r}; {hint}.")


def multiprocessors(id: str) -> int | None:
    """Multiprocessors, compute units or cores of a machine by id; None where their number is not known."""
    return next((part.units for part in PARTS if part.id == id), None)


def by_driver_name(name: str) -> Machine | None:
    """The row of a device under the name that its driver reports ("NVIDIA H200"), or None."""
    return next((machines()[part.id] for part in PARTS if name in part.drivers), None)


def measured_machine(id: str, name: str, device: Literal["cpu", "cuda"], ceilings: Iterable[Ceiling]) -> Machine:
    """The machine that a run was made on: its own ceilings, with those of its catalogue row beside them.

    id, name : as derived from the driver's name; a catalogue row of that name gives its id instead. Stated ceilings
    stand in the table for comparison and never count where one was measured.
    """
    row = by_driver_name(name)
    if row is not None:
        return row.model_copy(update={"name": name, "device": device, "ceilings": (*ceilings, *row.ceilings)})
    kind = "cpu" if device == "cpu" else "datacentre"
    return Machine(id=id, name=name, machine_class=kind, device=device, ceilings=tuple(ceilings))


def _machine(part: Part) -> Machine:
    return Machine(
        id=part.id,
        name=part.name,
        vendor=part.vendor,
        year=part.year,
        machine_class=part.machine_class,
        device="cuda" if part.vendor == "NVIDIA" else "",
        ceilings=(*_bandwidths(part), *_rates(part), *_capacities(part), *_latencies(part)),
    )


def _mark(part: Part, source: str, *fields: str, otherwise: Provenance = "datasheet") -> dict[str, Any]:
    """Provenance and source of a value that rests on `fields`: assumed where one of them was not checked."""
    notes = "".join(f"; {part.notes[name]}" for name in fields if name in part.notes)
    if any(name in part.unchecked for name in fields):
        return {"provenance": "assumed", "how": f"{source}, not checked against the sheet{notes}"}
    return {"provenance": otherwise, "how": f"{source}{notes}"}


def _measured_by_others(part: Part, name: str) -> Provenance:
    return "published" if (part.id, name) in _PUBLISHED_FOR else "assumed"


def _bandwidths(part: Part) -> list[Ceiling]:
    mark = _mark(part, f"{part.vendor}'s figure", "dram")
    found = [Ceiling(quantity="bandwidth", level="dram", pattern="datasheet", value=part.dram, unit="B/s", **mark)]
    if part.cache_bandwidth:
        value, how = part.cache_bandwidth
        mark: dict[str, Any] = {"provenance": _measured_by_others(part, "cache_bandwidth"), "how": how}
        found.append(Ceiling(quantity="bandwidth", level="cache", pattern="read", value=value, unit="B/s", **mark))
    return found


def _rates(part: Part) -> list[Ceiling]:
    clock = f", stated at {part.tensor_hz / 1e6:.0f} MHz" if part.tensor_hz else ""
    mark = _mark(part, f"{part.vendor}'s dense rate{clock}", "rates")
    found = [
        Ceiling(quantity="rate", level="tensor", dtype=dtype, value=value, unit="FLOP/s", **mark)
        for dtype, value in part.rates.items()
    ]
    if part.simt:
        mark = _mark(part, f"{part.vendor}'s rate of the vector units", "simt")
        found.append(Ceiling(quantity="rate", level="simt", dtype="fp32", value=part.simt, unit="FLOP/s", **mark))
    if part.special and part.units and part.boost_hz:
        source = f"{part.units} SMs x {part.special} per clock x {part.boost_hz / 1e6:.0f} MHz"
        mark = _mark(part, source, "units", "boost_hz", otherwise="derived")
        value = part.units * part.special * part.boost_hz
        found.append(Ceiling(quantity="rate", level="special", value=value, unit="op/s", **mark))
    return found


def _capacities(part: Part) -> list[Ceiling]:
    found = []
    if part.cache_bytes:
        mark = _mark(part, f"{part.vendor}'s figure", "cache_bytes")
        value = part.cache_bytes
        found.append(Ceiling(quantity="capacity", level="cache", pattern="reported", value=value, unit="B", **mark))
    if part.units and part.shared_bytes:
        mark = _mark(
            part, f"{part.units} units x {part.shared_bytes // 1024} KB", "units", "shared_bytes", otherwise="derived"
        )
        value = part.units * part.shared_bytes
        found.append(Ceiling(quantity="capacity", level="shared", pattern="reported", value=value, unit="B", **mark))
        registers = part.register_bytes or 0
        source = f"{part.units} units x ({part.shared_bytes // 1024} KB shared + {registers // 1024} KB registers)"
        mark = _mark(part, source, "units", "shared_bytes", "register_bytes", otherwise="derived")
        value = part.units * (part.shared_bytes + registers)
        found.append(Ceiling(quantity="capacity", level="chip", pattern="reported", value=value, unit="B", **mark))
    return found


def _latencies(part: Part) -> list[Ceiling]:
    provenance = _measured_by_others(part, "latencies")
    return [
        Ceiling(quantity="latency", level=level, value=value, unit="s", provenance=provenance, how=how)
        for level, (value, how) in part.latencies.items()
    ]
