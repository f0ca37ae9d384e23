"""The roofs of a run as the parent keeps them: measured once, looked at again between groups, the best value counts."""

from __future__ import annotations

from typing import Any, Protocol

from ..roofline.calibration import Look
from ..roofline.catalogue import measured_machine
from ..roofline.machine import Ceiling, Machine
from ..roofline.record import Observation, Point
from ..roofline.units import binary_bytes, percent, si
from ..roofline.verdict import judge
from .ceiling_store import Found, Identity, RoofStore, has_dram, own_ceilings, replayed
from .ceilings import merge
from .gauge import place
from .supervisor import Supervisor, WorkerDied

# Longest silence of a worker that measures roofs, by the kind of device. A round of all gauges takes seconds on a GPU;
# on a processor that others use it may take a minute.
SILENCE_S = {"cpu": 120.0, "cuda": 45.0}
# Kept roofs whose product is slower than this share of what it was belong to another clock or power limit.
LEAST_PRODUCT_SHARE = 0.95
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
    store : where roofs are kept from run to run; those found there are used and re-timed like fresh ones.
    origin : what is to be said of where the roofs come from and what is missing; empty where all were simply measured.
    """

    def __init__(
        self, supervisor: Supervisor, watcher: Stages, known: Machine | None = None, store: RoofStore | None = None
    ) -> None:
        self.supervisor = supervisor
        self.store = store
        self.origin = ""
        self.look: Look | None = None
        self.reused = ""  # the effort of roofs from the store, while they are in use
        self.watcher = watcher
        self.replayed = known is not None
        self.ceilings = [replayed(ceiling) for ceiling in own_ceilings(known)] if known else []

    def cache_bytes(self) -> float | None:
        """The size of the last cache as measured, at the knee of its bandwidth; None where there was none."""
        found = self.machine().best("capacity", "cache")
        return found.value if found is not None and found.pattern == "knee" else None

    def obtain(self, effort: str, look: Look | None) -> None:
        """Take the roofs from the store where the calibration copy of this run agrees with theirs, else measure them.

        look : the copy as timed just now, kept with roofs that are measured.
        """
        self.look = look
        if self.store is not None:
            found = self.store.find(self._identity(), effort, look)
            self.ceilings, self.origin = self._if_as_fast(found)
            if self.origin:
                self.watcher.stage(self.origin)
        self.reused = effort if self.ceilings else ""
        if not self.reused:
            self._measure_and_keep(effort)

    def _if_as_fast(self, found: Found) -> tuple[list[Ceiling], str]:
        """Kept roofs and their sentence, or none where the float32 product is slower now: a copy shows no clock.

        It is taken again while it is slower, as neighbours take the processors in spells.
        """
        places = {(c.quantity, c.level, c.dtype, c.scope): c for c in found.ceilings}
        product = places.get(("rate", "simt", "fp32", ""))
        if product is None:
            return found.ceilings, found.text
        best = 0.0
        for _ in range(MOST_DOUBTS):
            best = max([best, *(ceiling.value for ceiling in self._again([product]))])
            if best >= LEAST_PRODUCT_SHARE * product.value:
                return (
                    found.ceilings,
                    f"{found.text} The float32 product reaches {percent(best / product.value)} of its roof.",
                )
        speeds = f"{si(best, 'FLOP/s')} now, {si(product.value, 'FLOP/s')} then"
        return [], f"Roofs are measured anew: the float32 product is slower than with those that were kept ({speeds})."

    def _silence_s(self) -> float:
        return SILENCE_S[self.supervisor.opened["kind"]]

    def _identity(self) -> Identity:
        return self.supervisor.opened.get("roof_identity", {})

    def _measure_and_keep(self, effort: str) -> None:
        whole = self.measure(effort)
        if self.store is not None and whole:
            try:
                self.store.keep(self._identity(), effort, self.look, self.machine())
            except OSError as error:
                self.watcher.stage(f"the roofs are not kept for the next run: {error.strerror}")

    def measure(self, effort: str) -> bool:
        """Measure all ceilings; says whether all parts were.

        A death at a late part costs that part, and `origin` says so; raises `WorkerDied` where nothing is known.
        """
        self.watcher.stage("measuring the roofs of this machine")
        last = ""
        try:
            for event in self.supervisor.ask("ceilings", self._silence_s(), effort=effort):
                if event["event"] == "progress":
                    last = event["text"]
                    self.watcher.stage("measuring the roofs of this machine", last)
                if event["event"] == "ceilings":
                    self.ceilings += [Ceiling.model_validate(entry) for entry in event["ceilings"]]
        except WorkerDied as death:
            if self.ceilings:
                at = f' at "{last}"' if last else ""
                self.origin = f"{self.origin} Not all roofs were measured: the worker died{at}, {death}.".strip()
            self.supervisor.restart()
            if not self.ceilings:
                raise
            self.watcher.stage(self.origin)
            return False
        return True

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
        if looks == MOST_DOUBTS and self.reused and self._beaten_by(points):
            self._replace()
        return due or looks > 0

    def _replace(self) -> None:
        """Measure all roofs that were used again: a point is above one that re-timing does not reach.

        Where a part of them cannot be measured now, its old roofs stay: without them floors would not be known.
        """
        effort, old, origin = self.reused, self.ceilings, self.origin
        self.ceilings, self.reused = [], ""
        self.origin += " A point above them had them measured anew."
        try:
            self._measure_and_keep(effort)
        except WorkerDied:
            self.ceilings, self.origin = old, origin
        measured = {place(ceiling) for ceiling in self.ceilings}
        self.ceilings += [ceiling for ceiling in old if place(ceiling) not in measured]

    def _beaten_by(self, points: list[Point]) -> bool:
        machine = self.machine()
        return any(point.status == "ok" and judge(point, machine).status == "invalid" for point in points)

    def _remeasure(self) -> None:
        self.ceilings = merge(self.ceilings, self._again(self.ceilings))

    def _again(self, known: list[Ceiling]) -> list[Ceiling]:
        """These ceilings, timed once more as far as they can be; none where the worker died of it."""
        try:
            answer = self.supervisor.one("remeasure", self._silence_s(), "ceilings", known=_plain(known))
        except WorkerDied:
            self.supervisor.restart()
            return []
        return [Ceiling.model_validate(entry) for entry in answer["ceilings"]]

    def machine(self) -> Machine:
        """The machine under these roofs, with the stated values of its catalogue row beside them."""
        opened = self.supervisor.opened
        return measured_machine(opened["id"], opened["name"], opened["kind"], self.ceilings)

    def findings(self) -> tuple[Observation, ...]:
        """Where the roofs come from, in words, unless they were simply measured, and what could not be measured."""
        return tuple(Observation(id="roofs", text=text) for text in (self.origin, self.lack()) if text)

    def lack(self) -> str:
        """A sentence where no bandwidth of DRAM is known; empty where one is, or where nothing is known at all."""
        if not self.ceilings or has_dram(self.ceilings):
            return ""
        cache = binary_bytes(self.supervisor.opened["last_cache_bytes"])
        free = binary_bytes(self.supervisor.opened["memory_bytes"])
        return (
            f"No bandwidth of DRAM was measured, so no time is held against it: an array may take an eighth of the "
            f"memory that is free, {free} when this began, and has to exceed the last cache of {cache}, on a GPU by "
            "four times. Free some memory, or give the container more, and measure again."
        )

    def plain(self) -> list[dict[str, Any]]:
        """The ceilings as data for the journal."""
        return _plain(self.ceilings)


def _plain(ceilings: list[Ceiling]) -> list[dict[str, Any]]:
    return [ceiling.model_dump(mode="json") for ceiling in ceilings]
