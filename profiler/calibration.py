"""The calibration copies of a run as the parent keeps them: asked of the worker at the start and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..roofline.calibration import Look
from .supervisor import Supervisor, WorkerDied

# Longest silence of a worker that copies a gigabyte a few dozen times.
SILENCE_S = 60.0


class Calibration:
    """The looks of a run by when they were taken, "start" and "end"."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.looks: dict[str, Look] = {}

    def look(self, when: str, write: Callable[[str, Any], None] = lambda kind, data: None) -> None:
        """Time the copy now and write it to the journal, unless an earlier part of this run did or it cannot be had."""
        if when in self.looks:
            return
        try:
            answer = self.supervisor.one("calibrate", SILENCE_S, "calibrated")
        except WorkerDied:  # the copy is a check of the instrument: its loss is not the run's
            self.supervisor.restart()
            return
        if answer.get("look"):
            self.looks[when] = Look.model_validate(answer["look"])
            write("calibration", {"when": when, "look": answer["look"]})

    def recall(self, data: dict[str, Any]) -> None:
        """Take up a look of a journal."""
        self.looks[data["when"]] = Look.model_validate(data["look"])
