"""What was seen of a device beside its clock: frequencies, power, temperature, throttling, energy, counted bytes.

Everything is optional. What is not known is null, and `reasons` or `reason` says why. Units: Hz, W, degrees Celsius, J,
bytes; shares are between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ._model import Frozen
from .stats import median, percentile


class Spread(Frozen):
    """The median of some readings with their 10th and 90th percentile; one stray reading moves none of them far."""

    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Width relative to the median, 0 where the median is 0."""
        return (self.high - self.low) / self.median if self.median else 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Summarise readings; None without any."""
        if not values:
            return None
        return cls(median=median(values), low=percentile(values, 0.1), high=percentile(values, 0.9))


class Telemetry(Frozen):
    """Readings between the samples of a point.

    samples, scope : how many looks, and whether they belong to this point's own rounds or to those of its whole group.
    clock_hz : of the multiprocessors, or of the processor's fastest core; reference_clock_hz : the highest it can have.
    power_of : what the power is of, where it is not of the device alone: of a slice it is that of the whole GPU.
    throttle : reason -> share of the looks at which the driver gave it.
    busy_share : of the device. other_processes, other_share : processes of other people, and what they used.
    steal_share : processor time that a hypervisor gave to other guests.
    pace_s : of a processor: seconds of a fixed loop between the samples.
    """

    samples: int = 0
    scope: str = ""
    clock_hz: Spread | None = None
    reference_clock_hz: float | None = None
    memory_clock_hz: Spread | None = None
    power_w: Spread | None = None
    power_of: str = ""
    temperature_c: Spread | None = None
    throttle: dict[str, float] = Field(default_factory=dict)
    busy_share: Spread | None = None
    other_processes: int | None = None
    other_share: Spread | None = None
    steal_share: Spread | None = None
    pace_s: Spread | None = None
    reasons: dict[str, str] = Field(default_factory=dict)


class Energy(Frozen):
    """Energy of repeated calls in a window of its own, after the timing.

    per_call_j : idle power subtracted; gross_per_call_j : not. per_token_j : the former over the tokens of a call.
    error : relative, from the resolution of the meter at the ends of the window, and of the idle power.
    """

    per_call_j: float | None = None
    gross_per_call_j: float | None = None
    per_token_j: float | None = None
    power_w: float | None = None
    idle_w: float | None = None
    window_s: float | None = None
    calls: int | None = None
    error: float | None = None
    how: str = ""
    reason: str = ""


class Counted(Frozen):
    """Bytes of one call as hardware counters saw them, in a process of its own; never a duration.

    cache_bytes : through the last shared cache. tensor_share : cycles in which the tensor pipe was active.
    launches, kernels : kernels of one call, and their names.
    amplification : DRAM bytes over the compulsory ones; amplification_streamed : over the streamed ones.
    provenance : "measured" for counters of the memory itself, "derived" for cache misses times the size of a line.
    """

    dram_read_bytes: float | None = None
    dram_write_bytes: float | None = None
    cache_bytes: float | None = None
    tensor_share: float | None = None
    launches: int | None = None
    kernels: tuple[str, ...] = ()
    amplification: float | None = None
    amplification_streamed: float | None = None
    provenance: str = ""
    how: str = ""
    reason: str = ""

    @property
    def dram_bytes(self) -> float | None:
        """Bytes read and written; null unless both are known."""
        if self.dram_read_bytes is None or self.dram_write_bytes is None:
            return None
        return self.dram_read_bytes + self.dram_write_bytes
