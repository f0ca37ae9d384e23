"""One group of cases from the parent's side: asked of the worker, and again without whoever brought the worker down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..roofline.record import Point
from .points import (
    device_of,
    failed_point,
    headline,
    held_to_device,
    measured_point,
    refused_points,
    settled_point,
    with_afterthoughts,
    with_lost,
)
from .request import Request
from .stages import AFTERTHOUGHTS, REFERENCE, stage_of
from .supervisor import Refused, Supervisor, WorkerDied
from .watcher import Watcher
from .witness import Witness

# Longest silence of a worker: a check, or a round of timing. torch.compile may think for minutes.
SILENCE_S = 90.0
COMPILE_SILENCE_S = 300.0
# Triton's interpreter works a sequence off in Python, a program and a step at a time: minutes for one case.
INTERPRETED_SILENCE_S = 300.0
# What a large call may take besides. A core does more than this in plain PyTorch and float64, and so do the GPUs whose
# units for float64 are slow.
SLOWEST_FLOPS_PER_S = {"cpu": 5e9, "cuda": 1e11}
# A dependent step of the reference is a dozen operations of some ten microseconds each, and more with gradients.
SLOWEST_STEP_S = 1e-3
# Steps of one implementation in a group: its check, two clocks warmed up, its second check, and its afterthoughts.
STEPS_PER_CASE = 4 + len(AFTERTHOUGHTS)
# Where calls are slow, timing takes its budget, its patience (`clock.PATIENCE`) and its overtime, and parts a share.
BUDGETS_PER_GROUP = 8

Keep = Callable[[dict[str, Any], list[Point]], None]


def clocks_of(group: dict[str, Any], clocks: list[list[str]]) -> list[list[str]]:
    """The pairs of cache state and clock of a group: all that the device has, but for states that it leaves out."""
    states = group.get("caches")
    return [pair for pair in clocks if not states or pair[0] in states]


class GroupRuns:
    """Runs groups with one supervised worker.

    idle_w : the power at rest. cache_bytes : the measured size of the last cache. Both are None where not known.
    """

    def __init__(self, request: Request, supervisor: Supervisor, watcher: Watcher) -> None:
        self.request = request
        self.supervisor = supervisor
        self.watcher = watcher
        self.idle_w: float | None = None
        self.cache_bytes: float | None = None
        self._watch, self._device = True, ""

    def run(self, index: int, group: dict[str, Any], budget_s: float, known: set[str], keep: Keep) -> list[Point]:
        """Run one group until all of its implementations are accounted for.

        known : implementations whose points there are already. keep : writes down points before the group is tried
        again, or lost with its worker. Returns the points that were not written down yet.
        """
        points = refused_points(group)
        names = [name for name in group["implementations"] if name not in known]
        reason = self._too_large(group)
        if reason:
            return points + [failed_point(group, name, "oom", reason) for name in names]
        alone = False
        while names:
            found, culprit = self._try_group(index, group, names[:1] if alone else names, budget_s, keep)
            settled = {point.implementation for point in found}
            names = [name for name in names if name not in settled]
            if not names:
                return points + found
            if found:
                keep(group, found)
            if culprit == "?":
                alone = True  # it died while several were timed in turn: one by one, the guilty one shows
            elif not found:
                silent = "the worker ended the group without a word about it"
                return points + [failed_point(group, name, "crashed", silent) for name in names]
        return points

    def _too_large(self, group: dict[str, Any]) -> str:
        """Why a group does not fit into the memory of the device; empty where it does."""
        needed, memory = group["memory_bytes"], self.supervisor.opened["memory_bytes"]
        if needed <= memory:
            return ""
        return (
            f"needs about {needed / 2**30:.1f} GiB with its reference and rotating inputs, and "
            f"{memory / 2**30:.1f} GiB are free: make the sizes smaller"
        )

    def _try_group(
        self, index: int, group: dict[str, Any], names: list[str], budget_s: float, keep: Keep
    ) -> tuple[list[Point], str | None]:
        """One attempt: the points it settled, and who brought the worker down ("?" while several were timed)."""
        attempt = _Attempt(group, names, self._options(group, budget_s))
        try:
            for event in self.ask(index, group, names, attempt.options):
                if event["event"] == "point":
                    here = device_of(self.supervisor.opened)
                    self._device = self._device or here
                    attempt.points.append(held_to_device(attempt.measured(event), here, self._device))
                else:
                    attempt.take(event)
        except WorkerDied as death:
            blamed = attempt.blame(death)
            # What hung or died once under the driver's profiler does so for every case.
            self._watch = self._watch and stage_of(attempt.stage) != "second_clock"
            self._replace_worker(group, blamed[0], keep)
            return blamed
        return attempt.points, None

    def _options(self, group: dict[str, Any], budget_s: float) -> dict[str, Any]:
        return {
            "time": True,
            "budget_s": budget_s,
            "rounds": self.request.rounds,
            "clocks": clocks_of(group, self.supervisor.opened["clocks"]),
            "watch": self._watch,
            "headline": headline(group),
            "idle_w": self.idle_w,
            "attribution": self.request.attribution,
            "parts": self.request.parts,
            "cache_bytes": self.cache_bytes,
        }

    def _replace_worker(self, group: dict[str, Any], points: list[Point], keep: Keep) -> None:
        """Start a new worker; where that fails, what is known of this group is kept before the run ends."""
        try:
            self.supervisor.restart()
        except (WorkerDied, Refused):
            keep(group, points)
            raise

    def ask(
        self, index: int, group: dict[str, Any], names: list[str], options: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Send one group to the worker and yield its events, showing what it is at; raises `WorkerDied`."""
        for event in self.supervisor.ask(
            "group",
            self.silence_s(group, names),
            self.most_s(group, names, options),
            **{name: group[name] for name in ("source", "shape", "dtype", "direction")},
            implementations=names,
            flops=group["work"]["matmul_flops"],
            seed=self.request.seed,
            options=options,
        ):
            if event["event"] == "begin":
                self.watcher.group(index, group, f"{event['stage']} {event['implementation']}".strip())
            yield event

    def silence_s(self, group: dict[str, Any], names: list[str]) -> float:
        """How long the worker may say nothing new about these implementations: longer where a call does more."""
        if self.request.deadline_s is not None:
            return self.request.deadline_s
        work = group["work"]
        slow_s = work["flops"] / SLOWEST_FLOPS_PER_S[group["kind"]] + work["depth"] * SLOWEST_STEP_S
        if self.supervisor.interpret:
            return INTERPRETED_SILENCE_S + slow_s
        return (COMPILE_SILENCE_S if "compile" in names else SILENCE_S) + slow_s

    def most_s(self, group: dict[str, Any], names: list[str], options: dict[str, Any]) -> float:
        """How long a group may take in all, whatever its worker says: as if every step of it took its longest."""
        steps = 2 + STEPS_PER_CASE * len(names) + (options.get("rounds") or 0)
        return steps * self.silence_s(group, names) + BUDGETS_PER_GROUP * options.get("budget_s", 0.0)


class _Attempt:
    """What is known of one attempt at a group so far, from the events of the worker."""

    def __init__(self, group: dict[str, Any], names: list[str], options: dict[str, Any]) -> None:
        self.group, self.names, self.options = group, names, options
        self.points: list[Point] = []
        self.stage, self.current = REFERENCE, ""
        self._checks: dict[str, Any] = {}
        self._witness = Witness()
        self._told: set[tuple[str, str]] = set()  # afterthoughts and the implementations that had them

    def take(self, event: dict[str, Any]) -> None:
        """Take any event but a point."""
        kind, name = event["event"], event.get("implementation", "")
        if kind == "begin":
            self.stage, self.current = event["stage"], name
        elif kind == "checked":
            self._checks[name] = event["correctness"]
        elif kind == "failed":
            self.points.append(settled_point(self.group, event))
        elif kind == "witness":
            self._witness.note(event)
        elif kind in AFTERTHOUGHTS:
            self._told.add((kind, name))
            self.points = with_afterthoughts(self.points, event)

    def measured(self, event: dict[str, Any]) -> Point:
        """The point of a `point` event, with what the parent's clock says of it."""
        name = event["implementation"]
        doubted = event | {"doubts": event["doubts"] + self._witness.doubts(name)}
        return measured_point(self.group, doubted, self._checks.get(name))

    def blame(self, death: WorkerDied) -> tuple[list[Point], str | None]:
        """The points that this attempt settles when the worker has died, and who did it."""
        stage, names = stage_of(self.stage), self.names
        if stage in AFTERTHOUGHTS:  # everything was timed by then
            return with_lost(self.points, self.group, self._untold(stage), str(death)), None
        if stage == "time" and len(names) > 1:
            return [point for point in self.points if point.time_s is None], "?"
        if stage == REFERENCE:
            reason = f"the float64 reference of this shape failed: {death}"
            settled = {point.implementation for point in self.points}
            left = [name for name in names if name not in settled]
            return self.points + [failed_point(self.group, name, death.status, reason) for name in left], None
        culprit = self.current if self.current in names else names[0]
        # Whoever was told of by then keeps its times, and lacks what would have come after them.
        others = [point for point in self.points if point.implementation != culprit]
        told = with_lost(others, self.group, self._untold(AFTERTHOUGHTS[0]), str(death))
        return [*told, failed_point(self.group, culprit, death.status, str(death))], culprit

    def _untold(self, stage: str) -> list[tuple[str, str]]:
        """Afterthoughts that the worker still owed, with the implementations they are of.

        Parts are owed by the one in hand only, as most have none.
        """
        owed = [kind for kind in AFTERTHOUGHTS[AFTERTHOUGHTS.index(stage) :] if self._is_wanted(kind, stage)]
        timed = dict.fromkeys(point.implementation for point in self.points if point.time_s is not None)
        pairs = [(kind, name) for kind in owed for name in timed if kind != "parts" or name == self.current]
        return [pair for pair in pairs if pair not in self._told]

    def _is_wanted(self, kind: str, stage: str) -> bool:
        wanted = {
            "attribution": self.options["attribution"] and self.group["direction"] == "forward",
            "second_clock": self.options["watch"],
            "energy": self.options["idle_w"] is not None,  # else there is no meter
        }
        return kind == stage or wanted[kind]
