"""Findings about the measurement itself, once for a run: how its clocks agree, and how steady its machine was."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Observation, Point
from .stats import median
from .steadiness import QUIET_WIDTH
from .units import percent


def instrument(points: Sequence[Point]) -> list[Observation]:
    """What the second clocks and the intervals of a run say of it; nothing where nothing was timed."""
    timed = [point for point in points if point.time_s is not None]
    return [*_clocks(timed), *_noise(timed)]


def _clocks(timed: list[Point]) -> list[Observation]:
    """How far apart the two clocks are, by kind of second clock."""
    found = []
    for source, name in (("raw", "the host's raw clock"), ("profiler", "the driver's records (torch.profiler)")):
        read = [(p, p.second_clock) for p in timed if p.second_clock and p.second_clock.source == source]
        apart = [
            abs(second.time_s / point.time_s.median - 1)
            for point, second in read
            if second.time_s is not None and second.whole and point.time_s is not None
        ]
        lost = sum(second.lost > 0 for _, second in read)
        if apart:
            text = (
                f"Second clock (measured): {name} for {len(apart)} of {len(timed)} times, "
                f"{percent(median(apart))} apart in the median, {percent(max(apart))} at most"
            )
            text += f"; in {lost} cases it lost records and was not used." if lost else "."
            numbers: dict[str, float | str | None] = {"median": median(apart), "most": max(apart), "lost": lost}
            found.append(Observation(id=f"second-clock {source}", text=text, numbers=numbers))
    return found


def _noise(timed: list[Point]) -> list[Observation]:
    """How many times have a wide interval, and how much of the time other work held the processors."""
    waits = [p.second_clock.waiting_share for p in timed if p.second_clock and p.second_clock.waiting_share is not None]
    if not waits:
        return []
    wide = sum((p.time_s.high - p.time_s.low) / p.time_s.median > QUIET_WIDTH for p in timed if p.time_s)
    text = (
        f"Noise: {wide} of {len(timed)} times have an interval wider than {percent(QUIET_WIDTH)}; threads that could "
        f"have run waited for a processor {percent(median(waits))} of the time in the median case, "
        f"{percent(max(waits))} in the worst (measured)."
    )
    return [Observation(id="noise", text=text, numbers={"wide": wide, "timed": len(timed), "waiting": median(waits)})]
