"""The roofs of a run as the parent keeps them: measured once, looked at again between groups, the best value counts."""

from __future__ import annotations

from typing import Any, Protocol

from ..roofline.catalogue import measured_machine
from ..roofline.machine import Ceiling, Machine
from ..roofline.record import Point
from ..roofline.verdict import judge
from .ceilings import merge
from .supervisor import Supervisor, WorkerDied

# Longest silence of a worker that measures roofs: a round of all gauges takes seconds.
SILENCE_S = 120.0
# Other guests of a virtual machine take bandwidth in spells of seconds: so many more looks at a roof that a point beat.
MOST_DOUBTS = 3


class Stages(Protocol):
    """Is told what is being measured."""

    def stage(self, text: str, detail: str = "") -> None:
        """A stage has begun, or goes on with another detail."""
        ...


class Roofs:
    """The ceilings of a run.

    known : roofs measured earlier on this machine. They are used as they are, marked as replayed, and never re-timed.
    """

    def __init__(self, supervisor: Supervisor, watcher: Stages, known: Machine | None = None) -> None:
        self.supervisor = supervisor
        self.watcher = watcher
        self.replayed = known is not None
        measured = known.ceilings if known else ()
        self.ceilings = [_replayed(c) for c in measured if c.when or c.provenance == "measured"]

    def measure(self, effort: str) -> None:
        """Measure all ceilings. A death at a late part costs that part; raises `WorkerDied` where nothing is known."""
        self.watcher.stage("measuring the roofs of this machine")
        try:
            for event in self.supervisor.ask("ceilings", SILENCE_S, effort=effort):
                if event["event"] == "progress":
                    self.watcher.stage("measuring the roofs of this machine", event["text"])
                if event["event"] == "ceilings":
                    self.ceilings += [Ceiling.model_validate(entry) for entry in event["ceilings"]]
        except WorkerDied as death:
            self.supervisor.start()
            if not self.ceilings:
                raise
            self.watcher.stage(f"some roofs are missing, because the worker died while measuring them, {death}")

    def recall(self, data: list[Any]) -> None:
        """Take up the ceilings of a journal, unless known ones were given."""
        if not self.replayed:
            self.ceilings = [Ceiling.model_validate(entry) for entry in data]

    def look_again(self, points: list[Point], due: bool) -> bool:
        """Re-time the roofs when that is due, and while one of these points lies above them; says whether it did.

        A point above a roof may mean that the machine has become faster since the roof was measured.
        """
        if self.replayed:
            return False
        if due:
            self._remeasure()
        looks = 0
        while looks < MOST_DOUBTS and self._beaten_by(points):
            self._remeasure()
            looks += 1
        return due or looks > 0

    def _beaten_by(self, points: list[Point]) -> bool:
        machine = self.machine()
        return any(point.status == "ok" and judge(point, machine).status == "invalid" for point in points)

    def _remeasure(self) -> None:
        try:
            answer = self.supervisor.one("remeasure", SILENCE_S, "ceilings", known=self.plain())
        except WorkerDied:
            self.supervisor.start()
            return
        self.ceilings = merge(self.ceilings, [Ceiling.model_validate(entry) for entry in answer["ceilings"]])

    def machine(self) -> Machine:
        """The machine under these roofs, with the stated values of its catalogue row beside them."""
        opened = self.supervisor.opened
        return measured_machine(opened["id"], opened["name"], opened["kind"], self.ceilings)

    def plain(self) -> list[dict[str, Any]]:
        """The ceilings as data for the journal."""
        return [ceiling.model_dump(mode="json") for ceiling in self.ceilings]


def _replayed(ceiling: Ceiling) -> Ceiling:
    return ceiling.model_copy(update={"provenance": "replayed"}) if ceiling.provenance == "measured" else ceiling
