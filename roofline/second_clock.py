"""A second clock beside the one that a time comes from, as the record stores it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ._model import Frozen
from .units import percent, seconds

Source = Literal["profiler", "raw"]


class SecondClock(Frozen):
    """What another clock says of the calls that were timed; measured.

    source : "profiler", the driver's own records of what ran on the device, read by torch.profiler in a few calls after
        the timing; "raw", the host's clock that nobody adjusts, read beside the other one in every sample.
    time_s : seconds per call by it; null with a reason. On a device, the time during which at least one kernel ran.
    calls : how many calls were watched. launches : kernels that the host started in them; null where they cannot be
        counted, as in a replayed graph. records : records of kernels that came back. streams : the streams they ran on.
    busy_share : processor time over threads times wall time; `busy_error` is how far it may be off. waiting_share : the
        share of the processors' time that others held: this process was ready to run and had no processor, or a
        hypervisor had taken it away; over all cases that were timed in turn with this one.
    """

    source: Source
    time_s: float | None = Field(default=None, gt=0)
    reason: str = ""
    calls: int | None = None
    launches: int | None = None
    records: int | None = None
    streams: int | None = None
    busy_share: float | None = None
    busy_error: float = 0.0
    waiting_share: float | None = None

    def text(self) -> str:
        """It for a reader: what it measured, or why it did not."""
        name = "device records (torch.profiler)" if self.source == "profiler" else "raw host clock"
        if self.time_s is None:
            return f"{name}: none, {self.reason}"
        counts = f", {self.records} of {self.launches} kernels recorded" if self.launches is not None else ""
        held = f", others held the processors {percent(self.waiting_share)} of the time" if self.waiting_share else ""
        return f"{name} {seconds(self.time_s)}{counts}{held}"

    @property
    def lost(self) -> int:
        """Kernels that were started and left no record."""
        return max(0, (self.launches or 0) - (self.records or 0)) if self.launches is not None else 0

    @property
    def kernels(self) -> float:
        """Kernels per call, at least 1."""
        return max(1.0, (self.records or 0) / (self.calls or 1))

    @property
    def whole(self) -> bool:
        """Whether it gave a time that no lost record makes too short."""
        return self.time_s is not None and not self.lost
