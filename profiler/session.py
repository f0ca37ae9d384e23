"""A profiling run from the parent's side: plan, ceilings, groups of cases, journal, record.

`Session` asks a supervised worker, writes every answer to the journal as it comes, and judges the points at the end,
when the roofs are final. It prints nothing: `Watcher` is told what happens.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any

from pydantic import ValidationError

from ..roofline import calibration
from ..roofline.circumstances import between_arms, doubts_about_run
from ..roofline.instrument import instrument
from ..roofline.observe import observations
from ..roofline.record import Environment, Observation, Point, Run
from ..roofline.rivals import contests, with_vendor
from ..roofline.verdict import judge, with_launch_tax
from .calibration import Calibration
from .counting import Counting
from .group_runs import GroupRuns
from .interruption import shielded, stop_if_asked
from .journal import Journal, JournalError, Unreadable, first_fault
from .mapping import KIND as MAP
from .mapping import Mapping
from .points import recalled
from .probing import KIND, ROW, Probing, wanted
from .request import Request, key_of
from .roofs import Roofs
from .supervisor import Supervisor
from .surroundings import Surroundings
from .watcher import Watcher

# Longest silence of a worker while it plans: kernel files are loaded then, which takes seconds on a slow disk.
PLAN_SILENCE_S = 90.0
# Roofs are re-timed after so many groups: often enough to see a drift, rarely enough to cost little.
REMEASURE_EVERY = 8


class Session:
    """One run. `points` and `ceilings` hold what is known so far, also after an interruption."""

    def __init__(self, request: Request, supervisor: Supervisor, watcher: Watcher, roofs: Roofs | None = None) -> None:
        """`roofs` says where roofs may come from; without it they are measured."""
        self.request = request
        self.supervisor = supervisor
        self.watcher = watcher
        self.journal: Journal | None = None
        self.groups: list[dict[str, Any]] = []
        self.code: dict[str, str] = {}  # hashes of the files that the kernels were loaded from
        self.points: list[Point] = []
        self.roofs = roofs or Roofs(supervisor, watcher)
        self.calibration = Calibration(supervisor)
        self.surroundings = Surroundings(supervisor)
        self.counting = Counting(supervisor, request.counters)
        self.probing = Probing(supervisor, wanted(request), request.rounds, request.deadline_s)
        self.mapping = Mapping(supervisor)
        self.runs = GroupRuns(request, supervisor, watcher)
        self.done: set[str] = set()
        self.settled: dict[str, set[str]] = {}  # of groups that are not done: implementations whose points are known
        self.started = time.monotonic()
        self.earlier_s = 0.0
        self.broken = ""  # what ended it early, where it was no signal

    def plan(self) -> list[dict[str, Any]]:
        """Ask the worker for all groups; raises `Refused` with a sentence on a wrong request."""
        answer = self.supervisor.one(
            "plan",
            PLAN_SILENCE_S,
            "planned",
            kernels=self.request.kernels,
            suite=self.request.suite,
            axes=self.request.axes,
            cases=self.request.cases,
            dtypes=self.request.dtypes,
            directions=self.request.directions,
            implementations=self.request.implementations,
            compile=self.request.compile,
        )
        self.groups, self.code = answer["groups"], answer.get("code", {})
        self.supervisor.code = self.code
        self.watcher.planned(self.groups)
        return self.groups

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the first: request, device, versions and kernel files."""
        opened = self.supervisor.opened
        environment = opened["environment"]
        machine = {"id": opened["id"], "device_hash": environment["device_hash"], "torch": environment["torch"]}
        machine |= {"threads": environment["threads"], "computer_hash": environment.get("computer_hash", "")}
        return {"request": self.request.identity(), "machine": machine, "code": self.code}

    def open_journal(self, journal: Journal, resume: list[tuple[str, Any]], **facts: str) -> None:
        """Start the journal with these facts beside the identity, or take up what an earlier session left there."""
        self.recall(resume)
        self.journal = journal
        if not resume:
            journal.clear()
            journal.write("header", self.identity() | facts)
        journal.write("opened", self.supervisor.opened)
        if self.roofs.replayed:
            journal.write("ceilings", self.roofs.plain())

    def recall(self, events: list[tuple[str, Any]]) -> None:
        """Take up ceilings and points of a journal; raises `Unreadable` where this version cannot."""
        classes = {key_of(group): group["classes"] for group in self.groups}
        for number, (kind, data) in enumerate(events, start=1):
            try:
                self._recall(kind, data, classes)
            except (ValidationError, KeyError, TypeError, AttributeError) as error:
                raise Unreadable(
                    f"Line {number} of the journal, {kind!r}, is not as this seqroof writes it "
                    f"({first_fault(error)}); use the version that wrote it, or start a new run without --resume."
                ) from error

    def _recall(self, kind: str, data: Any, classes: dict[str, dict[str, Any]]) -> None:
        if kind == "ceilings":
            self.roofs.recall(data)
        elif kind == "origin of roofs":
            self.roofs.origin = data
        elif kind == "calibration":
            self.calibration.recall(data)
        elif kind in (KIND, ROW):
            self.probing.recall(kind, data)
        elif kind == MAP:
            self.mapping.recall(data)
        elif kind == "surroundings":
            self.surroundings.recall(data)
        elif kind in ("group", "cases"):
            points = [recalled(entry, classes.get(data["key"], {})) for entry in data["points"]]
            again = self.counting.missing(points)
            if again:  # the group is asked for once more, which tells anew who is refused
                kind, again = "cases", again | {point.implementation for point in points if point.status == "skipped"}
            self._settle(kind, data["key"], [point for point in points if point.implementation not in again])
        self.earlier_s += data["session_s"] if kind == "end" else 0.0

    def run(self) -> None:
        """Measure ceilings and all groups that are not done yet, and look around before and after."""
        self.surroundings.look("before", self._write)
        self.runs.idle_w = self.surroundings.idle_w
        self.calibration.look("start", self._write)
        if not self.roofs.ceilings:
            self.roofs.obtain(self.request.effort, self.calibration.looks.get("start"))
            self._write("origin of roofs", self.roofs.origin)
            self._write("ceilings", self.roofs.plain())
        self.runs.cache_bytes = self.roofs.cache_bytes()
        waiting = [(index, group) for index, group in enumerate(self.groups) if key_of(group) not in self.done]
        if len(waiting) < len(self.groups):
            self.watcher.stage(f"{len(self.groups) - len(waiting)} of {len(self.groups)} groups were measured before")
            self.watcher.planned([group for _, group in waiting])
        for position, (index, group) in enumerate(waiting):
            stop_if_asked()
            before = len(self.points)
            known = self.settled.get(key_of(group), set())
            budget_s = self._group_budget_s(len(waiting) - position)
            self._keep("group", group, self.runs.run(index, group, budget_s, known, partial(self._keep, "cases")))
            points = self.points[before:]
            self.watcher.finished(index, points)
            due = (position + 1) % REMEASURE_EVERY == 0 or position + 1 == len(waiting)
            if self.roofs.look_again(points, due):
                self._write("ceilings", self.roofs.plain())
        self.probing.run(self._write, self.watcher.stage)
        self.mapping.run((group["kernel"] for group in self.groups), self.roofs.machine(), self._write)
        self.calibration.look("end", self._write)
        self.surroundings.look("after", self._write)

    def close(self, state: str) -> None:
        """Write how the session ended, and let go of the journal."""
        if self.journal is not None:
            end = {"state": state, "reason": self.broken, "session_s": time.monotonic() - self.started}
            with contextlib.suppress(JournalError):  # the journal ends without a word then, which says as much
                self._write("end", end)
            self.journal.close()

    def _keep(self, kind: str, group: dict[str, Any], points: list[Point]) -> None:
        """Write points down: those of a whole group, or of the cases of it that are settled so far."""
        try:
            points = self.counting.add(group, points, self.request.seed)
        except KeyboardInterrupt:
            self._write_down(kind, group, self.counting.cut_off(points))
            raise
        self._write_down(kind, group, points)

    def _write_down(self, kind: str, group: dict[str, Any], points: list[Point]) -> None:
        with shielded():  # a signal finds them in the journal and in the record, or in neither
            data = {"key": key_of(group), "points": [point.model_dump(mode="json") for point in points]}
            self._write(kind, data)
            self._settle(kind, data["key"], points)

    def _settle(self, kind: str, key: str, points: list[Point]) -> None:
        self.points += points
        self.settled.setdefault(key, set()).update(point.implementation for point in points)
        if kind == "group":
            self.done.add(key)

    def _write(self, kind: str, data: Any) -> None:
        if self.journal is not None:
            self.journal.write(kind, data)

    def _group_budget_s(self, left: int) -> float:
        """Time for one group: an equal share of what is left of the budget, and never nothing."""
        if self.request.budget_s is None:
            return self.request.group_s
        remaining = self.request.budget_s - (time.monotonic() - self.started)
        return min(self.request.group_s, max(0.2, 0.5 * remaining / left))  # the rest is checking, warm-up and overtime

    def _unused_gpu(self) -> tuple[Observation, ...]:
        text = self.supervisor.opened.get("unused_gpu", "")
        return (Observation(id="unused-gpu", text=text),) if text else ()

    def record(self, state: str, command: str, commit: str, created: str, tool: str, advice: str) -> Run:
        """The run so far, judged against the final roofs."""
        opened = self.supervisor.opened
        machine = self.roofs.machine()
        points = with_vendor(with_launch_tax(judge(point, machine, advice) for point in self.points))
        points = between_arms(points)
        environment = Environment.model_validate(opened["environment"])
        looks, probe = self.calibration.looks, self.counting.probed()
        surroundings = (*self.surroundings.evidence(points), *self.counting.evidence())
        seen = (*calibration.evidence(looks, machine, probe), *surroundings)
        return Run(
            tool=tool,
            created=created,
            command=command,
            commit=commit,
            state="complete" if state == "complete" else "interrupted",
            seed=self.request.seed,
            suite="" if self.request.axes else self.request.suite,
            duration_s=self.earlier_s + time.monotonic() - self.started,
            machine=machine,
            environment=environment,
            points=points,
            grids=self.mapping.grids,
            evidence=(*seen, *self.probing.evidence()),
            observations=(
                *observations(points, machine),
                *contests(points),
                *instrument(points),
                *self._unused_gpu(),
                *self.roofs.findings(),
                *calibration.findings(looks, machine, probe),
            ),
            warnings=doubts_about_run(environment, points, seen),
        )
