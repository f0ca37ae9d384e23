"""Looks at a device between samples and sums the looks up for every point."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..roofline.telemetry import Spread, Telemetry
from ..roofline.throttling import decode
from .sensors import Sensors

# Drivers renew their readings some twenty times a second, so more looks than that tell nothing new.
LEAST_GAP_S = 0.05
# Looks may take this share of the time; where a driver answers slowly they become rarer.
LOOKING_SHARE = 0.02
# With fewer looks of its own a subject is described by those of its group, which ran in turn with it.
LEAST_LOOKS = 3
_SPREADS = (
    "clock_hz",
    "memory_clock_hz",
    "power_w",
    "temperature_c",
    "busy_share",
    "other_share",
    "steal_share",
    "pace_s",
)

Look = dict[str, float | None]


class Watch:
    """Keeps the looks of one group. A look is taken after a subject's part of a round, never within a sample."""

    def __init__(self, sensors: Sensors, clock: Callable[[], float] = time.monotonic) -> None:
        self.sensors = sensors
        self._clock = clock
        self._due = -LEAST_GAP_S
        self._looks: dict[int, list[Look]] = {}
        sensors.read()  # shares of time count from here

    def look(self, subject: int) -> None:
        """Look, unless the last look is hardly over or was dear."""
        now = self._clock()
        if now >= self._due:
            self._looks.setdefault(subject, []).append(self.sensors.read())
            self._due = now + max(LEAST_GAP_S, (self._clock() - now) / LOOKING_SHARE)

    def telemetry(self, subject: int) -> Telemetry:
        """What was seen during a subject's rounds, or during those of the whole group where that is too little."""
        own = self._looks.get(subject, [])
        if len(own) >= LEAST_LOOKS:
            return summary(own, self.sensors, "its own rounds")
        everything = [look for looks in self._looks.values() for look in looks]
        return summary(everything, self.sensors, "the rounds of its group")


def summary(looks: Sequence[Look], sensors: Sensors, scope: str) -> Telemetry:
    """Medians and spreads of looks; unknown quantities with their reasons."""
    spreads = {name: Spread.of(_known(looks, name)) for name in _SPREADS}
    bits = [int(value) for value in _known(looks, "throttle")]
    names = [name for value in bits for name in decode(value)]
    others = [int(value) for value in _known(looks, "other_processes")]
    unknown = {name for name, spread in spreads.items() if spread is None}
    unknown |= {
        name
        for name, known in (
            ("throttle", bits),
            ("other_processes", others),
            ("reference_clock_hz", sensors.reference_clock_hz),
        )
        if not known
    }
    return Telemetry(
        samples=len(looks),
        scope=scope,
        **spreads,
        reference_clock_hz=sensors.reference_clock_hz,
        power_of=sensors.power_of if spreads["power_w"] else "",
        throttle={name: names.count(name) / len(bits) for name in sorted(set(names))},
        other_processes=max(others, default=None),
        reasons={name: reason for name, reason in sorted(sensors.reasons.items()) if name in unknown},
    )


def _known(looks: Sequence[Look], name: str) -> list[float]:
    return [value for look in looks if (value := look.get(name)) is not None]
