"""Correctness only: every implementation against the float64 reference, nothing timed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

from ..roofline.record import Correctness, Point
from .points import UNCHECKED, failed_point, refused_points, settled_point
from .session import Session
from .stages import REFERENCE, stage_of
from .supervisor import Refused, WorkerDied


class Verification:
    """One pass over the groups of a plan by several workers at once; whoever is free takes the next group.

    sessions : one per worker, with the same plan. only : check implementations whose name begins so, and report no
    others. mark : the reason written beside `ok`.
    """

    def __init__(
        self, sessions: Sequence[Session], groups: list[dict[str, Any]], only: str = "", mark: str = ""
    ) -> None:
        self._sessions = sessions
        self._mark = mark
        self._waiting = [_narrowed(group, only) for group in groups]
        self._next = 0
        self._ended = False
        self._lock = Lock()
        self._found: dict[int, list[Point]] = {}
        self._crowded: list[int] = []  # groups that lacked memory while other workers had some

    def run(self) -> list[Point]:
        """Check all groups; returns `points`.

        A group that lacks memory is checked once more when the other workers have nothing left to do.
        An interruption, or an error in one worker, ends the others before it is raised; `points` are kept.
        """
        with ThreadPoolExecutor(len(self._sessions)) as pool:
            jobs = [pool.submit(self._work, session) for session in self._sessions]
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
                pool.submit(self._work_alone, self._sessions[0]).result()
            except BaseException:
                self._ended = True
                for session in self._sessions:
                    session.supervisor.kill()
                raise
        return self.points

    @property
    def points(self) -> list[Point]:
        """A point without a time for every implementation of the groups checked so far, in the order of the plan."""
        with self._lock:
            return [point for index in sorted(self._found) for point in self._found[index]]

    def _work(self, session: Session) -> None:
        while True:
            with self._lock:
                index, self._next = self._next, self._next + 1
            if self._ended or index >= len(self._waiting):
                return
            self._check(session, index, len(self._sessions) > 1)

    def _work_alone(self, session: Session) -> None:
        for index in self._crowded:
            if self._ended:
                return
            self._check(session, index, beside_others=False)

    def _check(self, session: Session, index: int, beside_others: bool) -> None:
        """Check one group and keep its points, unless it lacked memory that other workers may have taken.

        Where its worker is lost, what was checked by then is kept.
        """
        group = self._waiting[index]
        refused, checked = refused_points(group), []
        try:
            self._verify_group(session, index, group, checked)
        except (WorkerDied, Refused):
            if checked:
                with self._lock:
                    self._found[index] = refused + checked
            raise
        found = refused + checked
        with self._lock:
            if beside_others and any(point.status == "oom" for point in found):
                self._crowded.append(index)
                return
            self._found[index] = found
            session.watcher.finished(index, found)

    def _verify_group(self, session: Session, index: int, group: dict[str, Any], points: list[Point]) -> None:
        """Add the points of a group one by one, as they become known."""
        names = list(group["implementations"])
        while names:
            stage, current = REFERENCE, ""
            try:
                for event in session.runs.ask(index, group, names, {"time": False}):
                    name = event.get("implementation", "")
                    if event["event"] == "begin":
                        stage, current = stage_of(event["stage"]), name
                    elif event["event"] == "failed":
                        points.append(settled_point(group, event))
                    elif event["event"] == "checked":
                        points.append(_passed(group, name, event["correctness"], self._mark))
                return
            except WorkerDied as death:
                if self._ended:
                    raise
                settled = {point.implementation for point in points}
                names = [name for name in names if name not in settled]
                points += (blamed := _blamed(group, names, stage, current, death))
                names = [name for name in names if name not in {point.implementation for point in blamed}]
                session.supervisor.restart()
                if self._ended:  # between the death of the last worker and the start of this one
                    session.supervisor.kill()
                    raise


def _blamed(group: dict[str, Any], names: list[str], stage: str, current: str, death: WorkerDied) -> list[Point]:
    """The points of those of `names`, which may be none, that brought the worker down: all where the reference did."""
    if stage == REFERENCE:
        reason = f"the float64 reference of this shape failed: {death}"
        return [failed_point(group, name, death.status, reason) for name in names]
    culprits = [current] if current in names else names[:1]
    return [failed_point(group, name, death.status, str(death)) for name in culprits]


def _narrowed(group: dict[str, Any], only: str) -> dict[str, Any]:
    return group | {
        "implementations": [name for name in group["implementations"] if name.startswith(only)],
        "refused": {name: why for name, why in group["refused"].items() if name.startswith(only)},
    }


def _passed(group: dict[str, Any], name: str, correctness: dict[str, Any] | None, mark: str) -> Point:
    reason = mark if correctness else UNCHECKED
    point = failed_point(group, name, "ok", reason)
    return point.model_copy(update={"correctness": Correctness.model_validate(correctness) if correctness else None})
