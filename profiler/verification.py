"""Correctness only: every implementation against the float64 reference, nothing timed."""

from __future__ import annotations

from typing import Any

from ..roofline.record import Correctness, Point
from .points import UNCHECKED, failed_point, refused_points
from .session import Session
from .supervisor import WorkerDied


def verify_all(session: Session, groups: list[dict[str, Any]], only: str = "", mark: str = "") -> list[Point]:
    """Check all groups; returns a point without a time for every implementation.

    only : check implementations whose name begins so, and report no others. mark : the reason written beside `ok`.
    """
    points: list[Point] = []
    for index, group in enumerate(groups):
        group = dict(group)
        group["implementations"] = [name for name in group["implementations"] if name.startswith(only)]
        group["refused"] = {name: why for name, why in group["refused"].items() if name.startswith(only)}
        found = refused_points(group) + _verify_group(session, index, group, mark)
        points += found
        session.watcher.finished(index, found)
    return points


def _verify_group(session: Session, index: int, group: dict[str, Any], mark: str) -> list[Point]:
    points: list[Point] = []
    names = list(group["implementations"])
    while names:
        current = "reference"
        try:
            for event in session.ask_group(index, group, names, {"time": False}):
                name = event.get("implementation", "")
                if event["event"] == "begin":
                    current = name
                elif event["event"] == "failed":
                    points.append(failed_point(group, name, event["status"], event["reason"], event["correctness"]))
                elif event["event"] == "checked":
                    points.append(_passed(group, name, event["correctness"], mark))
            return points
        except WorkerDied as death:
            session.supervisor.start()
            culprit = current if current in names else names[0]
            settled = {point.implementation for point in points} | {culprit}
            points.append(failed_point(group, culprit, death.status, str(death)))
            names = [name for name in names if name not in settled]
    return points


def _passed(group: dict[str, Any], name: str, correctness: dict[str, Any] | None, mark: str) -> Point:
    reason = mark if correctness else UNCHECKED
    point = failed_point(group, name, "ok", reason)
    return point.model_copy(update={"correctness": Correctness.model_validate(correctness) if correctness else None})
