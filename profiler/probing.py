"""The parent's side of the probes: which a run makes, what they found, and what a resumed run need not repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..roofline import claims
from ..roofline.record import Evidence
from .request import Request
from .supervisor import Supervisor, WorkerDied

# A probe tells that it lives for every seed; the slowest takes about a second for one.
SILENCE_S = 60.0
KIND = "probe"  # of its lines in the journal


def wanted(request: Request) -> list[str]:
    """The probes of a request: those of the claims, where their whole suite is measured."""
    whole = request.suite == claims.SUITE and not (request.kernels or request.axes or request.cases)
    return claims.probes() if whole else []


class Probing:
    """Asks the worker for each probe once."""

    def __init__(self, supervisor: Supervisor, names: list[str], rounds: int | None = None) -> None:
        """rounds : as a user asked, for what is timed."""
        self._supervisor = supervisor
        self._names = names
        self._rounds = rounds
        self._found: dict[str, list[Evidence]] = {}

    def recall(self, data: dict[str, Any]) -> None:
        """Take up a line of a journal."""
        self._found[data["name"]] = [Evidence.model_validate(row) for row in data["rows"]]

    def run(self, write: Callable[[str, Any], None], stage: Callable[[str, str], None]) -> None:
        """Make the probes that are not known yet. One that brings the worker down says so beside what it had found."""
        for name in self._names:
            if name in self._found:
                continue
            stage("probing", name)
            rows: list[dict[str, Any]] = []
            try:
                for event in self._supervisor.ask("probe", SILENCE_S, name=name, rounds=self._rounds):
                    rows += [event["row"]] if event["event"] == "probed" else []
            except WorkerDied as death:
                self._supervisor.restart()
                how = f"not measured: the worker was lost ({death})"
                rows.append(Evidence(id=name.replace("_", "-"), values={}, how=how).model_dump(mode="json"))
            line = {"name": name, "rows": rows}
            write(KIND, line)
            self.recall(line)

    def evidence(self) -> tuple[Evidence, ...]:
        """What all probes found so far."""
        return tuple(row for rows in self._found.values() for row in rows)
