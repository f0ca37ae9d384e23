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
# Lines of the journal: one for every row as it comes, and one at the end of a probe with all of its rows.
ROW = "probed"
KIND = "probe"


def wanted(request: Request) -> list[str]:
    """The probes of a request: those of the claims, where their whole suite is measured."""
    whole = request.suite == claims.SUITE and not (request.kernels or request.axes or request.cases)
    return claims.probes() if whole else []


class Probing:
    """Asks the worker for each probe once."""

    def __init__(
        self, supervisor: Supervisor, names: list[str], rounds: int | None = None, deadline_s: float | None = None
    ) -> None:
        """rounds : as a user asked, for what is timed. deadline_s : the longest silence, as a user asked."""
        self._supervisor = supervisor
        self._names = names
        self._rounds = rounds
        self._silence_s = deadline_s or SILENCE_S
        self._found: dict[str, list[Evidence]] = {}
        self._ended: set[str] = set()

    def recall(self, kind: str, data: dict[str, Any]) -> None:
        """Take up a line of a journal."""
        if kind == ROW:
            self._found.setdefault(data["name"], []).append(Evidence.model_validate(data["row"]))
        else:
            self._found[data["name"]] = [Evidence.model_validate(row) for row in data["rows"]]
            self._ended.add(data["name"])

    def run(self, write: Callable[[str, Any], None], stage: Callable[[str, str], None]) -> None:
        """Make the probes that are not known yet. One that brings the worker down says so beside what it had found."""

        def keep(kind: str, line: dict[str, Any]) -> None:
            write(kind, line)
            self.recall(kind, line)

        for name in self._names:
            while name not in self._ended:
                stage("probing", name)
                if self._is_through(name, keep):
                    rows = [row.model_dump(mode="json") for row in self._found.get(name, [])]
                    keep(KIND, {"name": name, "rows": rows})

    def _is_through(self, name: str, keep: Callable[[str, dict[str, Any]], None]) -> bool:
        """Ask for the rows of a probe that are not known; says whether there is nothing left to ask for.

        Pairs tell which one comes: the others are asked for again, without the one that killed the worker.
        """
        known = [row.id for row in self._found.get(name, [])]
        coming = ""
        try:
            for event in self._supervisor.ask("probe", self._silence_s, name=name, rounds=self._rounds, known=known):
                if event["event"] == "progress":
                    coming = coming or event["text"]
                elif event["event"] == "probed":
                    coming = ""
                    keep(ROW, {"name": name, "row": event["row"]})
        except WorkerDied as death:
            self._supervisor.restart()
            told = name == claims.PAIRED and coming not in ("", *known)
            how = f"not measured: the worker was lost ({death})"
            lost = Evidence(id=coming if told else name.replace("_", "-"), values={}, how=how)
            keep(ROW, {"name": name, "row": lost.model_dump(mode="json")})
            return not told
        return True

    def evidence(self) -> tuple[Evidence, ...]:
        """What all probes found so far."""
        return tuple(row for rows in self._found.values() for row in rows)
