"""Why a time is not the best possible one: three parts of it, and the changes that would take away the most.

Pure functions. The parts are derived from a measured time and modelled floors; the changes are modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Machine
from .record import Floors, Point, Wall
from .what_if import BEST, Case, designs, time_s

# A change that saves less than this is not worth a line.
WORTH = 0.10


@dataclass(frozen=True)
class Part:
    """A share of a measured time. wall : what binds it; None for the part that no floor explains."""

    name: str
    time_s: float
    share: float
    wall: Wall | None


def parts(point: Point) -> list[Part]:
    """The measured time in three: what any design needs, what this design adds, what it takes beyond its own floor.

    Empty where a floor or the time is not known. A part is 0 where the floors coincide or the time reaches them.
    """
    best, own = _largest(point.best_floors_s), _largest(point.floors_s)
    if point.time_s is None or best is None or own is None:
        return []
    whole = point.time_s.median
    ends = [min(best[1], whole), min(max(best[1], own[1]), whole), whole]
    names = ("needed by any design", "added by this design", "beyond its floor")
    walls: tuple[Wall | None, ...] = (best[0], own[0], None)
    lengths = [end - start for start, end in zip([0.0, *ends], ends)]
    return [Part(name, length, length / whole, wall) for name, length, wall in zip(names, lengths, walls)]


def _largest(floors: Floors | None) -> tuple[Wall, float] | None:
    return floors.largest() if floors else None


@dataclass(frozen=True)
class Remedy:
    """A change of the design and the share of the estimated time that it would save."""

    change: str
    saves: float


def remedies(case: Case, machine: Machine) -> list[Remedy]:
    """Changes of the design that save a tenth of the estimated time or more, the best first."""
    now = time_s(case, machine)
    if not now:
        return []
    found = [
        Remedy(name, 1 - then / now)
        for name, other in designs(case, machine).items()
        if (then := time_s(other, machine))
    ]
    found = sorted((remedy for remedy in found if remedy.saves >= WORTH), key=lambda remedy: -remedy.saves)
    # The best possible design is named where it saves more than the single changes do.
    singles = max((remedy.saves for remedy in found if remedy.change != BEST), default=0.0)
    return [remedy for remedy in found if remedy.change != BEST or remedy.saves > 1.01 * singles]
