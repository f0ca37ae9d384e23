"""What was chosen beyond the source, in two runs: versions, and how kernels were compiled. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .diagnoses import warn
from .record import Point, Run, Warning_

# Versions and switches of a run that choose what is executed.
CHOOSING = ("python", "torch", "triton", "cuda", "driver", "fp_fusion", "compiler", "power_limit_w")
# Points that are named beside a change; how many more there are is said.
NAMED = 3


def changes(base: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Facts that both sides know and that differ: "triton: 3.6.0, now 3.9.0"."""
    shared = [name for name in base if base[name] not in (None, "") and new.get(name) not in (None, "")]
    return [f"{name}: {base[name]}, now {new[name]}" for name in shared if base[name] != new[name]]


def configuration_doubts(base: Run, new: Run) -> list[Warning_]:
    """One warning for what differs between the runs as wholes, and one for every set of points that differ alike."""
    old, fresh = ({name: getattr(run.environment, name) for name in CHOOSING} for run in (base, new))
    everywhere = changes(old, fresh)
    found = [warn("configuration-differs", changes="; ".join(everywhere))] if everywhere else []
    before = {point.key: point for point in base.points if point.time_s}
    alike: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    for point in new.points:
        if point.time_s and point.key in before:
            own = [text for text in changes(before[point.key].compiler, point.compiler) if text not in everywhere]
            if own:
                alike[tuple(own)].append(point)
    return found + [_of_points(own, points) for own, points in alike.items()]


def _of_points(own: tuple[str, ...], points: list[Point]) -> Warning_:
    names = [point.key for point in points[:NAMED]]
    more = f" and {len(points) - NAMED} more" if len(points) > NAMED else ""
    return warn("configuration-differs", changes=f"{'; '.join(own)} ({'; '.join(names)}{more})")


def held_to(present: Mapping[str, object], recorded: Point) -> Point:
    """A point of an interrupted run, with a warning where what chooses has changed since it was recorded."""
    found = changes(recorded.compiler, present)
    if not found or recorded.time_s is None:
        return recorded
    doubt = warn("configuration-differs", changes="; ".join(found))
    kept = tuple(entry for entry in recorded.warnings if entry.id != doubt.id)
    return recorded.model_copy(update={"warnings": (*kept, doubt)})
