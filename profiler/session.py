"""A profiling run from the parent's side: plan, ceilings, groups of cases, journal, record.

`Session` asks a supervised worker, writes every answer to the journal as it comes, and judges the points at the end,
when the roofs are final. It prints nothing: `Watcher` is told what happens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..roofline.instrument import instrument
from ..roofline.machine import Machine
from ..roofline.observe import observations
from ..roofline.record import Environment, Point, Run
from ..roofline.verdict import judge, with_launch_tax
from .journal import Journal
from .points import (
    device_of,
    failed_point,
    held_to_device,
    measured_point,
    recalled,
    refused_points,
    with_afterthoughts,
    with_lost,
)
from .roofs import Roofs
from .supervisor import Supervisor, WorkerDied

# Longest silence of a worker: a check, or a round of timing. torch.compile may think for minutes.
SILENCE_S = 90.0
COMPILE_SILENCE_S = 300.0
# Triton's interpreter works a sequence off in Python, a program and a step at a time: minutes for one case.
INTERPRETED_SILENCE_S = 300.0
# Stages, and events, that follow when every time of a group is known.
AFTERTHOUGHTS = ("parts", "second_clock")
# Roofs are re-timed after so many groups: often enough to see a drift, rarely enough to cost little.
REMEASURE_EVERY = 8


@dataclass
class Request:
    """What to profile. Empty lists mean the defaults: every kernel, the device's dtypes, the suite's shapes.

    axes : swept sizes, name -> values. budget_s : seconds for the whole run, None for `group_s` per group.
    """

    kernels: list[str] = field(default_factory=list)
    suite: str = "quick"
    axes: dict[str, list[int]] = field(default_factory=dict)
    dtypes: list[str] = field(default_factory=list)
    directions: list[str] = field(default_factory=lambda: ["forward"])
    device: str = "auto"
    implementations: list[str] = field(default_factory=list)
    compile: bool = False
    budget_s: float | None = None
    group_s: float = 6.0
    rounds: int | None = None
    seed: int = 0
    effort: str = "quick"

    def identity(self) -> dict[str, Any]:
        """The part that must be equal for `--resume`: what is measured, not how long."""
        wanted = asdict(self)
        for name in ("budget_s", "group_s", "rounds", "effort"):
            del wanted[name]
        return wanted


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

    def __init__(
        self, request: Request, supervisor: Supervisor, watcher: Watcher, known: Machine | None = None
    ) -> None:
        """`known` holds roofs measured earlier on this machine; they are used as they are, marked as replayed."""
        self.request = request
        self.supervisor = supervisor
        self.watcher = watcher
        self.journal: Journal | None = None
        self.groups: list[dict[str, Any]] = []
        self.points: list[Point] = []
        self.roofs = Roofs(supervisor, watcher, known)
        self.done: set[str] = set()
        self.watch, self.device = True, ""
        self.started = time.monotonic()

    def plan(self) -> list[dict[str, Any]]:
        """Ask the worker for all groups; raises `Refused` with a sentence on a wrong request."""
        answer = self.supervisor.one(
            "plan",
            SILENCE_S,
            "planned",
            kernels=self.request.kernels,
            suite=self.request.suite,
            axes=self.request.axes,
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
        return {"request": self.request.identity(), "machine": machine}

    def open_journal(self, folder: Path, resume: list[tuple[str, Any]]) -> None:
        """Start the journal, or take up what an earlier one holds."""
        self.journal = Journal(folder, append=bool(resume))
        if not resume:
            self.journal.write("header", self.identity())
        classes = {key_of(group): group["classes"] for group in self.groups}
        for kind, data in resume:
            if kind == "ceilings":
                self.roofs.recall(data)
            elif kind == "group":
                self.done.add(data["key"])
                self.points += [recalled(entry, classes.get(data["key"], {})) for entry in data["points"]]

    def run(self) -> None:
        """Measure ceilings and all groups that are not done yet."""
        if not self.roofs.ceilings:
            self.roofs.measure(self.request.effort)
            self._write("ceilings", self.roofs.plain())
        waiting = [(index, group) for index, group in enumerate(self.groups) if key_of(group) not in self.done]
        for position, (index, group) in enumerate(waiting):
            budget_s = self._group_budget_s(len(waiting) - position)
            points = self._run_group(index, group, budget_s)
            self.points += points
            self._write("group", {"key": key_of(group), "points": [point.model_dump(mode="json") for point in points]})
            self.done.add(key_of(group))
            self.watcher.finished(index, points)
            due = (position + 1) % REMEASURE_EVERY == 0 or position + 1 == len(waiting)
            if self.roofs.look_again(points, due):
                self._write("ceilings", self.roofs.plain())

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
        """Run one group, and again without whoever brought the worker down, until all are accounted for."""
        points = refused_points(group)
        needed = group["memory_bytes"]
        memory = self.supervisor.opened["memory_bytes"]
        if needed > memory:
            reason = (
                f"needs about {needed / 2**30:.1f} GiB with its reference and rotating inputs, and "
                f"{memory / 2**30:.1f} GiB are free: make the sizes smaller"
            )
            return points + [failed_point(group, name, "oom", reason) for name in group["implementations"]]
        names = list(group["implementations"])
        alone = False
        while names:
            batch = names[:1] if alone else names
            found, culprit = self._try_group(index, group, batch, budget_s)
            points += found
            settled = {point.implementation for point in found}
            names = [name for name in names if name not in settled]
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
        stage, current = "check", "reference"
        options = {
            "time": True,
            "budget_s": budget_s,
            "rounds": self.request.rounds,
            "clocks": self.supervisor.opened["clocks"],
            "watch": self.watch,
        }
        try:
            for event in self.ask_group(index, group, names, options):
                name = event.get("implementation", "")
                if event["event"] == "begin":
                    stage, current = event["stage"], name
                elif event["event"] == "checked":
                    checks[name] = event["correctness"]
                elif event["event"] == "failed":
                    points.append(failed_point(group, name, event["status"], event["reason"], event["correctness"]))
                elif event["event"] == "point":
                    measured = measured_point(group, event, checks.get(name))
                    here = device_of(self.supervisor.opened)
                    self.device = self.device or here
                    points.append(held_to_device(measured, here, self.device))
                elif event["event"] in AFTERTHOUGHTS:
                    points = with_afterthoughts(points, event)
        except WorkerDied as death:
            self.supervisor.start()
            return self._blame(group, names, points, stage, current, death)
        return points, None

    def ask_group(
        self, index: int, group: dict[str, Any], names: list[str], options: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Send one group to the worker and yield its events, showing what it is at; raises `WorkerDied`."""
        for event in self.supervisor.ask(
            "group",
            self._silence_s(names),
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
        """How long the worker may say nothing about these implementations."""
        if self.supervisor.interpret:
            return INTERPRETED_SILENCE_S
        return COMPILE_SILENCE_S if "compile" in names else SILENCE_S

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
        points = with_launch_tax(judge(point, machine, advice) for point in self.points)
        return Run(
            tool=tool,
            created=created,
            command=command,
            commit=commit,
            state="complete" if state == "complete" else "interrupted",
            seed=self.request.seed,
            suite="" if self.request.axes else self.request.suite,
            duration_s=time.monotonic() - self.started,
            machine=machine,
            environment=Environment.model_validate(opened["environment"]),
            points=points,
            observations=(*observations(points, machine), *instrument(points)),
        )


def key_of(group: dict[str, Any]) -> str:
    """The identity of a group."""
    sizes = ",".join(f"{name}={value}" for name, value in group["shape"].items())
    return f"{group['source']} {sizes} {group['dtype']} {group['direction']}"
