"""The parts of a whole that were run alone: what they take together, and what is left between them. Pure functions."""

from __future__ import annotations

from .diagnoses import warn
from .record import Point, Warning_
from .telemetry import Spread
from .units import seconds

# Parts and whole are timed in different rounds, so a tenth between them is no news.
PARTS_SHARE = 0.10
# A whole also starts its parts and moves data between them, which is shown as its rest. More than a quarter is another
# matter: some work that no part contains.
REST_SHARE = 0.25


def total(point: Point) -> Spread | None:
    """What all parts take together, with the sums of the ends of their intervals; None where they are not the whole.

    A library may let only some of its phases be run alone; those need not add up to anything.
    """
    alone = [part.time_s for part in point.parts if part.time_s]
    done = sum(part.work.flops for part in point.parts if part.work)
    if not alone or len(alone) < len(point.parts) or (point.work and done < point.work.flops):
        return None
    return Spread(**{name: sum(getattr(part, name) for part in alone) for name in ("low", "median", "high")})


def doubts(point: Point) -> list[Warning_]:
    """A warning where the parts together take another time than the whole, their intervals considered."""
    time, together = point.time_s, total(point)
    if time is None or together is None:
        return []
    if together.low <= (1 + PARTS_SHARE) * time.high and together.high >= (1 - REST_SHARE) * time.low:
        return []
    return [warn("parts-do-not-add-up", sum=seconds(together.median), time=seconds(time.median))]


def rest_s(point: Point) -> float | None:
    """Seconds of the whole that no part took, derived; None where that is no more than their rounds differ by."""
    time, together = point.time_s, total(point)
    if time is None or together is None or together.high >= (1 - PARTS_SHARE) * time.low:
        return None
    return time.median - together.median
