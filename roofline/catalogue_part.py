"""One row of the machine catalogue: what is known of an accelerator, in SI units, and what was not checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from .machine import MachineClass

MB = 2**20
KB = 2**10


@dataclass(frozen=True)
class Part:
    """One accelerator.

    dram : bytes/s. rates : tensor-unit FLOP/s by dtype. simt : float32 FLOP/s of the vector units.
    cache_bytes : the last cache that all units share. cache_bandwidth : bytes/s and where the figure is from.
    units : SMs, compute units or TensorCores. shared_bytes, register_bytes : per unit. boost_hz : largest clock.
    tensor_hz : the clock at which the vendor states the tensor rates, where that is known not to be the largest.
    tensor_fma, simt_fma : 16-bit and float32 multiply-adds per clock and unit, for the consistency check; where fp16
    and bf16 differ, of the faster one.
    special : special functions per clock and unit. latencies : level -> (seconds, where from).
    unchecked : fields whose value was not checked against the vendor's sheet.
    notes : field -> what else a reader of that value should know.
    drivers : names under which a driver reports the device.
    """

    id: str
    name: str
    vendor: str
    year: int
    machine_class: MachineClass
    dram: float
    rates: dict[str, float] = field(default_factory=dict)
    simt: float | None = None
    cache_bytes: int | None = None
    cache_bandwidth: tuple[float, str] | None = None
    units: int | None = None
    shared_bytes: int | None = None
    register_bytes: int | None = None
    boost_hz: float | None = None
    tensor_hz: float | None = None
    tensor_fma: int | None = None
    simt_fma: int | None = None
    special: int | None = None
    latencies: dict[str, tuple[float, str]] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    drivers: tuple[str, ...] = ()


def half(rate: float, single: float | None = None) -> dict[str, float]:
    """Rates of a part whose tensor units serve fp16 and bf16 alike, and tf32 where that rate is given."""
    return {"fp16": rate, "bf16": rate, **({"tf32": single} if single else {})}
