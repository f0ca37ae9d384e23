"""The parent's side of the regime maps: which recurrences a run maps, and what the worker answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..roofline.machine import Machine
from ..roofline.record import Grid
from ..roofline.regime import MAPPED, main_dtype
from .supervisor import Refused, Supervisor, WorkerDied

# A map of one kernel takes a quarter of a second; a machine that is busy with others may take many times that.
SILENCE_S = 30.0
KIND = "map"  # of its line in the journal


class Mapping:
    """Asks the worker for the maps once, at the end of a run, when the roofs are final."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.grids: tuple[Grid, ...] = ()

    def recall(self, data: dict[str, Any]) -> None:
        """Take up a line of a journal, in place of an earlier one."""
        self.grids = tuple(Grid.model_validate(entry) for entry in data["grids"])

    def run(self, kernels: Iterable[str], machine: Machine, write: Callable[[str, Any], None]) -> None:
        """Map the recurrences among these kernels, or else the LSTM; a worker that fails at it costs only the maps."""
        profiled = set(kernels)
        names = [name for name in MAPPED if name in profiled] or ["lstm"]
        try:
            asked = {"kernels": names, "dtype": main_dtype(machine), "machine": machine.model_dump(mode="json")}
            answer = self._supervisor.one("map", SILENCE_S, "mapped", **asked)
        except Refused:
            return
        except WorkerDied:
            self._supervisor.restart()
            return
        if "grids" in answer:
            data = {"grids": answer["grids"]}
            write(KIND, data)
            self.recall(data)
