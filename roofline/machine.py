"""A machine as a list of ceilings, each with its provenance.

The same record describes a measured machine (from a run) and a row of the catalogue (from datasheets), so floors are
computed by the same code for both. Units: bytes/s, operations/s, seconds, bytes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ._model import Frozen

Provenance = Literal["measured", "datasheet", "published", "derived", "modelled", "assumed", "replayed"]
Quantity = Literal["bandwidth", "rate", "latency", "capacity"]
Unit = Literal["B/s", "FLOP/s", "op/s", "s", "B"]

MachineClass = Literal["cpu", "datacentre", "consumer", "tpu", "compute-in-memory"]


class Ceiling(Frozen):
    """One limit of a machine.

    quantity, level : "bandwidth" of "dram", "cache" or, for information, "private"; "rate" of "tensor", "simt" or
        "special"; "latency" of "launch" (back to back), "launch_waited" (seen by a waiting host), "graph", "barrier",
        "inside" (a step with a matrix product inside one program), "pointwise" (one operation on a number in a
        register); "capacity" of "cache" (the last shared cache), "private" (caches of single cores that keep their
        content between calls) or "chip" (registers and shared memory for the length of one launch) or "shared" (the
        shared memory of it).
    dtype : "fp32", "tf32", "fp16", "bf16", or empty where it does not matter.
    pattern : the access pattern of a bandwidth ("read", "copy", "write", "triad", "gemv"), what a rate or latency was
        taken with ("programs=8" of a barrier), for capacities "knee" (measured) and "reported", and "datasheet" and
        "driver" for what a vendor states and what follows from the driver's bus width and clocks.
    scope : empty for a limit of the whole device, which floors use. Else what it is information about, and no floor
        uses it: "threads=1"; "burst" and "sustained" (the first moments of a load, and its state after seconds);
        "calibration" (the operation of the calibration copy, where another one copies faster).
    value, low, high : in `unit`; `low` and `high` bound the rounds of a measurement.
    how, when : the method or source, and its date (ISO 8601; empty for catalogue rows).
    """

    quantity: Quantity
    level: str
    dtype: str = ""
    pattern: str = ""
    scope: str = ""
    value: float = Field(gt=0)
    low: float | None = None
    high: float | None = None
    unit: Unit
    provenance: Provenance
    how: str
    when: str = ""

    @property
    def spread(self) -> float:
        """Relative width of the interval, 0 where there is none."""
        if self.low is None or self.high is None:
            return 0.0
        return (self.high - self.low) / self.value


class Machine(Frozen):
    """A device and its ceilings.

    id : the catalogue's id ("h200-sxm"), or one made from the name of a measured device.
    device : "cpu" or "cuda" for a device that kernels run on, empty for catalogue rows of other kinds.
    """

    id: str
    name: str
    vendor: str = ""
    year: int | None = None
    machine_class: MachineClass
    device: Literal["cpu", "cuda", ""] = ""
    ceilings: tuple[Ceiling, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether limits of it were measured on it, now or earlier; else all are stated, as in the catalogue."""
        return any(ceiling.provenance in ("measured", "replayed") for ceiling in self.ceilings)

    def find(self, quantity: Quantity, level: str, dtype: str | None = None) -> tuple[Ceiling, ...]:
        """All ceilings of a quantity and level, of any dtype or of the one that is named.

        Where one was measured on the machine itself, the stated ones do not count. Those of a narrower scope, such as
        one thread, never do.
        """
        found = tuple(
            ceiling
            for ceiling in self.ceilings
            if ceiling.quantity == quantity and ceiling.level == level and dtype in (None, ceiling.dtype)
            if not ceiling.scope
        )
        return tuple(ceiling for ceiling in found if ceiling.provenance in ("measured", "replayed")) or found

    def counting(self) -> Machine:
        """The machine with those ceilings only that count, so that they still do when their provenances change."""

        def counts(ceiling: Ceiling) -> bool:
            dtype = ceiling.dtype if ceiling.quantity == "rate" else None
            return ceiling in self.find(ceiling.quantity, ceiling.level, dtype)

        return self.model_copy(update={"ceilings": tuple(filter(counts, self.ceilings))})

    def best(self, quantity: Quantity, level: str, dtype: str | None = None) -> Ceiling | None:
        """The most favourable ceiling: the largest, or for latencies the smallest. None where none is known."""
        found = self.find(quantity, level, dtype)
        if not found:
            return None
        return (min if quantity == "latency" else max)(found, key=lambda ceiling: ceiling.value)

    def bandwidth(self, level: str, read_bytes: float, write_bytes: float) -> Ceiling | None:
        """The most that a level can move of a mix of reads and writes; None where none of its patterns is known."""
        moved = read_bytes + write_bytes
        share = read_bytes / moved if moved else 1.0
        return self.fastest(level, share, share)

    def fastest(self, level: str, least_share: float, most_share: float) -> Ceiling | None:
        """The fastest pattern for mixes in which reads are between two shares of all bytes; None where none is known.

        Reads as a share of all bytes: read and gemv 1, triad 2/3, copy 1/2, write 0. A mix between two patterns is
        taken to be no faster than the faster of them, so that a floor stays a lower bound.
        """
        found = self.find("bandwidth", level)
        shares = {READ_SHARE[ceiling.pattern] for ceiling in found}
        least = max((share for share in shares if share <= least_share + _SAME_SHARE), default=0.0)
        most = min((share for share in shares if share >= most_share - _SAME_SHARE), default=1.0)
        near = [ceiling for ceiling in found if least <= READ_SHARE[ceiling.pattern] <= most]
        return max(near, key=lambda ceiling: ceiling.value, default=None)


# Shares this near are one: a third of a sum is not always the same to the last bit.
_SAME_SHARE = 1e-9
READ_SHARE = {"read": 1.0, "gemv": 1.0, "triad": 2 / 3, "copy": 1 / 2, "write": 0.0}
READ_SHARE |= {"datasheet": 1.0, "driver": 1.0, "any": 1.0}
