"""Why an NVIDIA driver holds clocks down: the bits of its clock-event reasons by name, each with a remedy.

Bits and meanings: NVML API reference, "Clocks Event Reasons" (nvmlClocksEventReasons).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["idle", "setting", "power cap", "slowdown"]


@dataclass(frozen=True)
class Reason:
    """One bit. `kind` says what it means for a measurement; `fix` what to do about it."""

    name: str
    kind: Kind
    fix: str


REASONS: dict[int, Reason] = {
    0x001: Reason("idle", "idle", "nothing: the device had no work"),
    0x002: Reason("application clocks", "setting", "whoever set the clocks can lift them: nvidia-smi -rac, -rgc"),
    0x004: Reason("software power cap", "power cap", "raise the power limit, or compare clock-normalised times"),
    0x008: Reason("hardware slowdown", "slowdown", "look for heat or a weak supply: nvidia-smi -q -d PERFORMANCE"),
    0x010: Reason("sync boost", "slowdown", "take the device out of its sync-boost group"),
    0x020: Reason("software thermal slowdown", "slowdown", "let the device cool down, or cool it better"),
    0x040: Reason("hardware thermal slowdown", "slowdown", "cool the device; it protects itself from damage"),
    0x080: Reason("hardware power brake", "slowdown", "the power supply asks for less: lower the load of the rack"),
    0x100: Reason("display clocks", "setting", "detach the display"),
    0x200: Reason("board limit", "slowdown", "the board has reached its own limit: expect this clock"),
    0x400: Reason("reliability voltage", "slowdown", "the voltage is at its limit: expect this clock"),
}
_BY_NAME = {reason.name: reason for reason in REASONS.values()}
_UNKNOWN_FIX = "look the bit up in the NVML documentation of this driver"


def decode(bits: int) -> tuple[str, ...]:
    """The names of all bits that are set; bits that are not known here keep their number."""
    return tuple(
        REASONS[1 << place].name if 1 << place in REASONS else f"unknown bit {1 << place:#x}"
        for place in range(bits.bit_length())
        if bits >> place & 1
    )


def reason_named(name: str) -> Reason:
    """The reason of a name; unknown bits count as slowdowns, for nobody knows better."""
    return _BY_NAME.get(name, Reason(name, "slowdown", _UNKNOWN_FIX))
