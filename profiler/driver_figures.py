"""What follows from the widths, clocks and counts that the driver states: limits that no kernel can exceed.

They stand beside the datasheet and the measurement and score nothing. What the driver does not state is left out.
"""

from __future__ import annotations

from ..roofline.machine import Ceiling, Quantity, Unit
from .cuda_events import Facts

# Double data rate: two transfers per clock of the memory, which is how the driver states the clock of HBM and GDDR.
TRANSFERS_PER_CLOCK = 2
# Multiply-adds per clock and SM by compute capability, dense, with float32 accumulation: 16-bit tensor cores, float32
# vector units. From NVIDIA's architecture papers and the arithmetic throughput table of the CUDA programming guide.
_TENSOR_FMA = {(7, 0): 512, (8, 0): 1024, (9, 0): 2048, (10, 0): 4096}
_SIMT_FMA = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128, (12, 0): 128}
# Special functions per clock and SM: 16 on all of them.
_SPECIAL = 16
# Operations of a dtype relative to 16 bits.
_RELATIVE = {"tf32": 0.5, "fp16": 1.0, "bf16": 1.0, "fp8": 2.0}


def driver_ceilings(facts: Facts) -> list[Ceiling]:
    """Bandwidth and rates by arithmetic on what the driver states."""
    found = []
    # The bus of a slice is a share of the GPU's, which the driver does not state.
    if facts.bus_bits and facts.memory_hz and not facts.mig:
        value = facts.bus_bits / 8 * facts.memory_hz * TRANSFERS_PER_CLOCK
        how = (
            f"{facts.bus_bits} bit x {facts.memory_hz / 1e6:.0f} MHz x {TRANSFERS_PER_CLOCK}, as the driver states them"
        )
        found.append(_derived("bandwidth", "dram", value, "B/s", how))
    if not facts.sm_hz:
        return found
    clocked = f"{facts.sms} SMs x {{}} per clock x {facts.sm_hz / 1e6:.0f} MHz, largest clock as the driver states it"
    cycles = facts.sms * facts.sm_hz
    tensor, simt = _TENSOR_FMA.get(facts.capability), _SIMT_FMA.get(facts.capability)
    for dtype in facts.tensor_dtypes if tensor else ():
        each = int(2 * (tensor or 0) * _RELATIVE[dtype])
        found.append(_derived("rate", "tensor", cycles * each, "FLOP/s", clocked.format(f"{each} FLOP"), dtype))
    if simt:
        found.append(_derived("rate", "simt", cycles * 2 * simt, "FLOP/s", clocked.format(f"{2 * simt} FLOP"), "fp32"))
        found.append(_derived("rate", "special", cycles * _SPECIAL, "op/s", clocked.format(f"{_SPECIAL} functions")))
    return found


def _derived(quantity: Quantity, level: str, value: float, unit: Unit, how: str, dtype: str = "") -> Ceiling:
    return Ceiling(
        quantity=quantity,
        level=level,
        dtype=dtype,
        pattern="driver",
        value=value,
        unit=unit,
        provenance="derived",
        how=how,
    )
