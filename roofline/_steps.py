"""The inside of a time, in words: per dependent step, by part, and what launching adds."""

from __future__ import annotations

from . import _seen, parts
from ._view import clean, own_wall
from .attribution import seen_text
from .record import Point
from .units import seconds

STEP_NOTE = "Per step: the measured time over the steps that must wait for one another in this design."


def step_text(point: Point) -> str:
    """Write the time per dependent step; nothing where there is one step only."""
    return seconds(point.step_s) if point.step_s is not None else ""


def tax_text(point: Point) -> str:
    """Write what launching adds to every dependent step; nothing where it is not known."""
    return seconds(point.launch_tax_s) if point.launch_tax_s is not None else ""


def detail_text(point: Point) -> str:
    """Write what is known of the inside of a time: its parts, what launching adds, what experiments saw."""
    alone = [f"{clean(p.name)} {seconds(p.time_s.median)} {own_wall(p)}" for p in point.parts if p.time_s]
    texts = [f"of which {', '.join(alone)}, each measured alone"] if alone else []
    if rest := parts.rest_s(point):
        texts.append(f"rest {seconds(rest)}: starting the parts and moving data between them (derived)")
    if tax := tax_text(point):
        texts.append(f"launching adds {tax} per step (host clock minus graph)")
    if seen := seen_text(point):
        texts.append(seen)
    return "; ".join([*texts, *_seen.details(point)])


def records_text(point: Point) -> str:
    """Write what a device's own records say of a time; a host's raw clock is told once for a run."""
    second = point.second_clock
    return clean(second.text()) if second and second.source == "profiler" else ""
