"""A clock, a meter and calls that a test drives: nothing waits, and energy grows as the power says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace


class Bench:
    """A device that draws `idle_w` at rest and `busy_w` in its calls, behind a counter that moves every `step_s`."""

    def __init__(self, idle_w: float = 80.0, busy_w: float = 480.0, step_s: float = 0.05) -> None:
        self.now_s, self.energy_j, self.calls = 0.0, 0.0, 0
        self._idle_w, self._busy_w, self._step_s = idle_w, busy_w, step_s
        self._shown_j, self._shown_at = 0.0, 0.0
        self.meter = SimpleNamespace(read_j=self.read_j, reason="", how="driven by hand", step_s=None)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self._idle_w)

    def call(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.calls += 1
            self._pass(seconds, self._busy_w)

        return run

    def _pass(self, seconds: float, power_w: float) -> None:
        end = self.now_s + seconds
        while self._shown_at + self._step_s <= end:
            tick = self._shown_at + self._step_s
            self.energy_j += max(0.0, tick - self.now_s) * power_w
            self.now_s, self._shown_at, self._shown_j = max(self.now_s, tick), tick, self.energy_j
        self.energy_j += (end - self.now_s) * power_w
        self.now_s = end

    def read_j(self) -> float:
        return self._shown_j
