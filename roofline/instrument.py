"""Findings about the measurement itself, once for a run: how its clocks agree, and how much of it is in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .clock_doubts import disturbed, pace_swing
from .record import Observation, Point
from .stats import median
from .units import percent


def instrument(points: Sequence[Point]) -> list[Observation]:
    """What the second clocks and the diagnoses of a run say of it; nothing where nothing was timed."""
    timed = [point for point in points if point.time_s is not None]
    return [*_clocks(timed), *_doubts(timed)]


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


def waiting_shares(points: Iterable[Point]) -> list[float]:
    """The shares of their time in which others held the processors, of the points that know it (measured)."""
    seconds = [point.second_clock for point in points if point.time_s and point.second_clock]
    return [second.waiting_share for second in seconds if second.waiting_share is not None]


def pace_swings(points: Iterable[Point]) -> list[float]:
    """How much longer a fixed loop took at times than at others, of the points that know it (measured)."""
    return [pace_swing(point) for point in points if point.time_s and point.telemetry and point.telemetry.pace_s]


def _doubts(timed: list[Point]) -> list[Observation]:
    """How many times carry a diagnosis, by kind, and how much of the time others held the processors."""
    kinds = Counter(warning.id for point in timed for warning in point.warnings)
    doubted = sum(bool(point.warnings) for point in timed)
    if not timed:
        return []
    text = f"Doubts: {doubted} of {len(timed)} times carry a diagnosis"
    text += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})" if kinds else ""
    numbers: dict[str, float | str | None] = {"timed": len(timed), "doubted": doubted, **kinds}
    waits = waiting_shares(timed)
    if waits:
        text += (
            f"; others held the processors {percent(median(waits))} of the time in the median case, "
            f"{percent(max(waits))} in the worst (measured)"
        )
        numbers |= {"waiting_share": median(waits)}
    if swings := pace_swings(timed):
        text += (
            f"; a fixed loop took {median(swings):.2f} x as long at times as at others in the median case, "
            f"{max(swings):.2f} x in the worst (measured)"
        )
        numbers |= {"pace_swing": median(swings)}
    if waits or swings:
        shaken = sum(map(disturbed, timed))
        text += f"; {shaken} times were taken while the machine was disturbed enough to explain noise" if shaken else ""
        numbers |= {"disturbed": shaken}
    return [Observation(id="doubts", text=f"{text}.", numbers=numbers)]
