"""A profiling run from the parent's side: plan, ceilings, groups of cases, journal, record.

`Session` asks a supervised worker, writes every answer to the journal as it comes, and judges the points at the end,
when the roofs are final. It prints nothing: `Watcher` is told what happens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from ..roofline import calibration
from ..roofline.circumstances import between_arms, doubts_about_run
from ..roofline.instrument import instrument
from ..roofline.observe import observations
from ..roofline.record import Environment, Point, Run
from ..roofline.rivals import contests, with_vendor
from ..roofline.verdict import judge, with_launch_tax
from .calibration import Calibration
from .counting import Counting
from .interruption import shielded, stop_if_asked
from .journal import Journal
from .points import (
    device_of,
    failed_point,
    headline,
    held_to_device,
    measured_point,
    recalled,
    refused_points,
    settled_point,
    with_afterthoughts,
    with_lost,
)
from .probing import KIND, Probing, wanted
from .request import Request, key_of
from .roofs import Roofs
from .supervisor import Refused, Supervisor, WorkerDied
from .surroundings import Surroundings
from .witness import Witness

# Longest silence of a worker: a check, or a round of timing. torch.compile may think for minutes.
SILENCE_S = 90.0
COMPILE_SILENCE_S = 300.0
# Triton's interpreter works a sequence off in Python, a program and a step at a time: minutes for one case.
INTERPRETED_SILENCE_S = 300.0
# Stages, and events, that follow when every time of a group is known.
AFTERTHOUGHTS = ("parts", "attribution", "second_clock", "energy")
# Steps of one implementation in a group: its check, two clocks warmed up, its second check, and its afterthoughts.
STEPS_PER_CASE = 4 + len(AFTERTHOUGHTS)
# Where calls are slow, timing takes its budget, its patience (`clock.PATIENCE`) and its overtime, and parts a share.
BUDGETS_PER_GROUP = 8
# Roofs are re-timed after so many groups: often enough to see a drift, rarely enough to cost little.
REMEASURE_EVERY = 8


class Watcher(Protocol):
    """Is told what a session does, for progress."""

    def stage(self, text: str, detail: str = "") -> None:
        """A stage has begun, or goes on with another detail."""
        ...

    def planned(self, groups: list[dict[str, Any]]) -> None:
        """The plan is made."""
        ...

    def group(self, index: int, group: dict[str, Any], detail: str) -> None:
        """Group `index` is being worked on."""
        ...

    def finished(self, index: int, points: list[Point]) -> None:
        """Group `index` has ended with these points."""
        ...


class Session:
    """One run. `points` and `ceilings` hold what is known so far, also after an interruption."""

    def __init__(self, request: Request, supervisor: Supervisor, watcher: Watcher, roofs: Roofs | None = None) -> None:
        """`roofs` says where roofs may come from; without it they are measured."""
        self.request = request
        self.supervisor = supervisor
        self.watcher = watcher
        self.journal: Journal | None = None
        self.groups: list[dict[str, Any]] = []
        self.points: list[Point] = []
        self.roofs = roofs or Roofs(supervisor, watcher)
        self.calibration = Calibration(supervisor)
        self.surroundings = Surroundings(supervisor)
        self.counting = Counting(supervisor, request.counters)
        self.probing = Probing(supervisor, wanted(request))
        self.done: set[str] = set()
        self.watch, self.device = True, ""
        self.settled: dict[str, set[str]] = {}  # of groups that are not done: implementations whose points are known
        self.started = time.monotonic()
        self.earlier_s = 0.0
        self.broken = ""  # what ended it early, where it was no signal

    def plan(self) -> list[dict[str, Any]]:
        """Ask the worker for all groups; raises `Refused` with a sentence on a wrong request."""
        answer = self.supervisor.one(
            "plan",
            SILENCE_S,
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
        self.groups = answer["groups"]
        self.watcher.planned(self.groups)
        return self.groups

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the first: request, device and versions."""
        opened = self.supervisor.opened
        environment = opened["environment"]
        machine = {"id": opened["id"], "device_hash": environment["device_hash"], "torch": environment["torch"]}
        machine |= {"threads": environment["threads"], "computer_hash": environment.get("computer_hash", "")}
        return {"request": self.request.identity(), "machine": machine}

    def open_journal(self, journal: Journal, resume: list[tuple[str, Any]], **facts: str) -> None:
        """Start the journal with these facts beside the identity, or take up what an earlier session left there."""
        self.journal = journal
        if not resume:
            journal.clear()
            journal.write("header", self.identity() | facts)
        journal.write("opened", self.supervisor.opened)
        self.recall(resume)
        if self.roofs.replayed:
            journal.write("ceilings", self.roofs.plain())

    def recall(self, events: list[tuple[str, Any]]) -> None:
        """Take up ceilings and points of a journal."""
        classes = {key_of(group): group["classes"] for group in self.groups}
        for kind, data in events:
            if kind == "ceilings":
                self.roofs.recall(data)
            elif kind == "origin of roofs":
                self.roofs.origin = data
            elif kind == "calibration":
                self.calibration.recall(data)
            elif kind == KIND:
                self.probing.recall(data)
            elif kind in ("group", "cases"):
                points = [recalled(entry, classes.get(data["key"], {})) for entry in data["points"]]
                self._settle(kind, data["key"], points)
            self.earlier_s += data["session_s"] if kind == "end" else 0.0

    def run(self) -> None:
        """Measure ceilings and all groups that are not done yet, and look around before and after."""
        self.surroundings.look("before")
        self.calibration.look("start", self._write)
        if not self.roofs.ceilings:
            self.roofs.obtain(self.request.effort, self.calibration.looks.get("start"))
            self._write("origin of roofs", self.roofs.origin)
            self._write("ceilings", self.roofs.plain())
        waiting = [(index, group) for index, group in enumerate(self.groups) if key_of(group) not in self.done]
        for position, (index, group) in enumerate(waiting):
            stop_if_asked()
            before = len(self.points)
            found = self._run_group(index, group, self._group_budget_s(len(waiting) - position))
            self._keep("group", group, self.counting.add(group, found, self.request.seed))
            points = self.points[before:]
            self.watcher.finished(index, points)
            due = (position + 1) % REMEASURE_EVERY == 0 or position + 1 == len(waiting)
            if self.roofs.look_again(points, due):
                self._write("ceilings", self.roofs.plain())
        self.probing.run(self._write, self.watcher.stage)
        self.calibration.look("end", self._write)
        self.surroundings.look("after")

    def close(self, state: str) -> None:
        """Write how the session ended, and let go of the journal."""
        if self.journal is not None:
            end = {"state": state, "reason": self.broken, "session_s": time.monotonic() - self.started}
            self._write("end", end)
            self.journal.close()

    def _keep(self, kind: str, group: dict[str, Any], points: list[Point]) -> None:
        """Write points down: those of a whole group, or of the cases of it that are settled so far."""
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

    def _run_group(self, index: int, group: dict[str, Any], budget_s: float) -> list[Point]:
        """Run one group, and again without whoever brought the worker down, until all are accounted for.

        Returns the points that are not in the journal yet.
        """
        points = refused_points(group)
        known = self.settled.get(key_of(group), set())
        names = [name for name in group["implementations"] if name not in known]
        needed = group["memory_bytes"]
        memory = self.supervisor.opened["memory_bytes"]
        if needed > memory:
            reason = (
                f"needs about {needed / 2**30:.1f} GiB with its reference and rotating inputs, and "
                f"{memory / 2**30:.1f} GiB are free: make the sizes smaller"
            )
            return points + [failed_point(group, name, "oom", reason) for name in names]
        alone = False
        while names:
            batch = names[:1] if alone else names
            found, culprit = self._try_group(index, group, batch, budget_s)
            settled = {point.implementation for point in found}
            names = [name for name in names if name not in settled]
            if not names:
                return points + found
            if found:
                self._keep("cases", group, found)
            if culprit == "?":
                alone = True  # it died while several were timed in turn: one by one, the guilty one shows
            elif not found:
                silent = "the worker ended the group without a word about it"
                return points + [failed_point(group, name, "crashed", silent) for name in names]
        return points

    def _try_group(
        self, index: int, group: dict[str, Any], names: list[str], budget_s: float
    ) -> tuple[list[Point], str | None]:
        """One attempt: the points it settled, and who brought the worker down ("?" while several were timed)."""
        points: list[Point] = []
        checks: dict[str, Any] = {}
        witness = Witness()
        stage, current = "check", "reference"
        options = {
            "time": True,
            "budget_s": budget_s,
            "rounds": self.request.rounds,
            "clocks": self.supervisor.opened["clocks"],
            "watch": self.watch,
            "headline": headline(group),
            "idle_w": self.surroundings.idle_w,
            "attribution": self.request.attribution,
        }
        try:
            for event in self.ask_group(index, group, names, options):
                name = event.get("implementation", "")
                if event["event"] == "begin":
                    stage, current = event["stage"], name
                elif event["event"] == "checked":
                    checks[name] = event["correctness"]
                elif event["event"] == "failed":
                    points.append(settled_point(group, event))
                elif event["event"] == "witness":
                    witness.note(event)
                elif event["event"] == "point":
                    event["doubts"] += witness.doubts(name)
                    measured = measured_point(group, event, checks.get(name))
                    here = device_of(self.supervisor.opened)
                    self.device = self.device or here
                    points.append(held_to_device(measured, here, self.device))
                elif event["event"] in AFTERTHOUGHTS:
                    points = with_afterthoughts(points, event)
        except WorkerDied as death:
            blamed = self._blame(group, names, points, stage, current, death)
            self._replace_worker(group, blamed[0])
            return blamed
        return points, None

    def _replace_worker(self, group: dict[str, Any], points: list[Point]) -> None:
        """Start a new worker; where that fails, what is known of this group is kept before the run ends."""
        try:
            self.supervisor.restart()
        except (WorkerDied, Refused):
            self._keep("cases", group, points)
            raise

    def ask_group(
        self, index: int, group: dict[str, Any], names: list[str], options: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Send one group to the worker and yield its events, showing what it is at; raises `WorkerDied`."""
        for event in self.supervisor.ask(
            "group",
            self._silence_s(names),
            self._most_s(names, options),
            **{name: group[name] for name in ("source", "shape", "dtype", "direction")},
            implementations=names,
            flops=group["work"]["matmul_flops"],
            seed=self.request.seed,
            options=options,
        ):
            if event["event"] == "begin":
                self.watcher.group(index, group, f"{event['stage']} {event['implementation']}".strip())
            yield event

    def _silence_s(self, names: list[str]) -> float:
        """How long the worker may say nothing new about these implementations."""
        if self.request.deadline_s is not None:
            return self.request.deadline_s
        if self.supervisor.interpret:
            return INTERPRETED_SILENCE_S
        return COMPILE_SILENCE_S if "compile" in names else SILENCE_S

    def _most_s(self, names: list[str], options: dict[str, Any]) -> float:
        """How long a group may take in all, whatever its worker says: as if every step of it took its longest."""
        steps = 2 + STEPS_PER_CASE * len(names) + (options.get("rounds") or 0)
        return steps * self._silence_s(names) + BUDGETS_PER_GROUP * options.get("budget_s", 0.0)

    def _blame(
        self, group: dict[str, Any], names: list[str], points: list[Point], stage: str, current: str, death: WorkerDied
    ) -> tuple[list[Point], str | None]:
        if stage in AFTERTHOUGHTS:  # everything was timed by then
            self.watch = self.watch and stage != "second_clock"  # what hung or died once does so for every case
            return with_lost(points, group, stage, current, str(death)), None
        if stage.startswith("time") and len(names) > 1:
            return [point for point in points if point.time_s is None], "?"
        if current == "reference" and stage == "check" and "reference" not in names:
            reason = f"the float64 reference of this shape failed: {death}"
            return points + [failed_point(group, name, death.status, reason) for name in names], None
        culprit = current if current in names else names[0]
        return [*points, failed_point(group, culprit, death.status, str(death))], culprit

    def record(self, state: str, command: str, commit: str, created: str, tool: str, advice: str) -> Run:
        """The run so far, judged against the final roofs."""
        opened = self.supervisor.opened
        machine = self.roofs.machine()
        points = with_vendor(with_launch_tax(judge(point, machine, advice) for point in self.points))
        points = between_arms(points)
        environment = Environment.model_validate(opened["environment"])
        looks, probe = self.calibration.looks, self.counting.probed()
        surroundings = (*self.surroundings.evidence(points), *self.counting.evidence())
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
            evidence=(*calibration.evidence(looks, machine, probe), *surroundings, *self.probing.evidence()),
            observations=(
                *observations(points, machine),
                *contests(points),
                *instrument(points),
                *self.roofs.findings(),
                *calibration.findings(looks, machine, probe),
            ),
            warnings=doubts_about_run(environment, points, surroundings),
        )
