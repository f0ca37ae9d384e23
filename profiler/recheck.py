"""Looks at an implementation again after its timing, on data that nothing in this process has seen before.

The tensors that were timed get other values in place, and what was timed is called as it was timed: whoever keeps
results by address, by shape or from an earlier call, skips calls, or stops working once it is checked, now returns
something else than the reference. The reference of the new data is computed after all have answered, so it cannot be
found anywhere. Whoever recognises data it has met before is right, and much slower on what it has not.

A graph that was built before the timing holds its inputs; there the gradients that come in at its outputs change. What
its first call leaves in the graph for later ones shows in the time of first calls of other graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch

from ..roofline.record import Timing
from ..roofline.units import seconds
from . import streams
from .calls import Group, call_of, operands_of
from .clock import HostStopwatch, Subject
from .copies import Inputs
from .poison import at_once, memory_for

Doubt = tuple[str, dict[str, str]]
Verdict = Callable[[Any], str]

# Input sets are drawn from consecutive seeds; so many after the first, none of them is near.
FRESH = 101
# Sets on which a suspiciously slow call is timed again: one of them finds even a busy machine quiet.
TRIES = 12
# How much longer a call on new data may take than what was timed. Cold calls met data as far away; warm ones may have
# had theirs in a cache several times as fast.
SLOWER = {"cold": 3.0, "warm": 8.0}
# One call by the host's clock carries what starting and waiting cost: tens of microseconds on a GPU.
LEAST_SLOWER_S = 100e-6


class Values(NamedTuple):
    """What a call meets: its inputs, and the seed of the gradients that come in at its outputs."""

    inputs: Inputs
    seed: int = 0


class Recheck:
    """One look at all implementations of a group.

    inputs : the tensors of the first set that was timed. tell : told before every call, as calls may be slow.
    """

    def __init__(self, group: Group, inputs: Inputs, tell: Callable[[], object] = lambda: None) -> None:
        self._group = group
        self._inputs = inputs
        self._tell = tell
        self._seen = Values(group.inputs(0))
        self._fresh = self._new(FRESH)
        self._answers: dict[str, Any] = {}

    def _new(self, number: int) -> Values:
        """Values that nobody has met; a graph that was built before keeps its inputs."""
        return Values(self._seen.inputs if self._built_before else self._group.inputs(number), number)

    @property
    def _built_before(self) -> bool:
        return self._group.direction == "backward"

    def look(self, name: str, timings: list[tuple[Subject, Timing]], verdict: Verdict) -> list[Doubt]:
        """Call an implementation on new data and old in turn; its answer on new data waits for `settle`.

        timings : its subjects with their times. verdict : says what is wrong with outputs of the first set, or nothing.
        """
        subject = timings[0][0]
        self._answers[name], _, changed = self._called(name, subject, self._fresh, memory_for(name))
        second, _, changed_then = self._called(name, subject, self._seen)
        slower = self._slower(name, timings)
        fourth, _, changed_last = self._called(name, subject, self._seen)
        details = [changed, changed_then, changed_last, verdict(second), verdict(fourth)]
        found: list[Doubt] = [("output-changed-after-timing", {"detail": detail}) for detail in details if detail]
        return (found + slower + self._elsewhere(name))[:1]

    def _called(
        self, name: str, subject: Subject, values: Values, memory: Any = None, settled: bool = False
    ) -> tuple[Any, float, str]:
        """Outputs, seconds and overwritten inputs of one call on other values, made as the calls of `subject` are.

        settled : the other sets are called in between, so that what was written has left the caches, as before a cold
        call that was timed; else such a call also waits until the caches have written it back.
        """
        operands = operands_of(subject.calls[0], self._inputs)
        operands.fill(*values)
        for other in subject.calls[1:] if settled and subject.cache == "cold" else ():
            other()
        self._group.device.finish()
        outputs, time_s = self._timed(subject, subject.calls[0], memory)
        changed = operands.changed(*values)
        operands.fill(*self._seen)
        self._group.device.finish()
        return outputs, time_s, f"overwrites its input {', '.join(changed)}" if changed else ""

    def _timed(self, subject: Subject, call: Callable[[], Any], memory: Any = None) -> tuple[Any, float]:
        """Outputs and seconds of a call by the host's clock, from within the stack of a timed one."""
        kept: list[Any] = []

        def keeping() -> None:
            kept[:] = [call()]

        self._tell()
        stopwatch = HostStopwatch(block=False, finish=self._group.device.finish)
        again = Subject(subject.name, subject.cache, subject.clock, [keeping], stopwatch)
        with memory or nullcontext():
            again.measure_round(0.0)
            return at_once(kept[0]), again.rounds[0][0]

    def _slower(self, name: str, timings: list[tuple[Subject, Timing]]) -> list[Doubt]:
        """Doubt times that hold for data met before only; every try is on a set of its own.

        Where the machine has become slower since the timing, calls on data met before are slower now too.
        """
        fastest_s = known_s = float("inf")
        found: list[Doubt] = []
        for attempt in range(1, TRIES + 1):
            fastest_s = min(fastest_s, self._on_new_data(name, timings[0][0], FRESH + attempt, settled=bool(found)))
            found = slower_on_new_data(fastest_s, timings)
            if not found:
                break
            known_s = min(known_s, self._untouched(timings[0][0]))
        return found if fastest_s > SLOWER["cold"] * known_s else []

    def _on_new_data(self, name: str, subject: Subject, number: int, settled: bool) -> float:
        """Seconds of a call on inputs that nobody has met, in a graph of its own where graphs are built before."""
        if not self._built_before:
            return self._called(name, subject, self._new(number), settled=settled)[1]
        group, run = self._group, self._group.kernel.implementations[name].run
        call = call_of(run, group.shape, group.inputs(number), group.direction, number)
        group.device.finish()
        return self._timed(subject, call)[1]

    def _untouched(self, subject: Subject) -> float:
        """Seconds of a call on the data that lie there, whose first call since they were written went before."""
        return min(self._timed(subject, subject.calls[0])[1] for _ in range(2))

    def _elsewhere(self, name: str) -> list[Doubt]:
        """Doubt a call that leaves work on another stream of a GPU behind."""
        if self._group.device.kind != "cuda" or self._group.direction != "forward":
            return []
        run = self._group.kernel.implementations[name].run
        return streams.doubt(torch.cuda, partial(run, self._group.shape, **self._inputs))

    def settle(self, verdict_for: Callable[[Inputs, int], Verdict]) -> dict[str, list[Doubt]]:
        """Hold the answers on new data against their reference, which is computed only now.

        verdict_for : makes, from inputs and the seed of incoming gradients, what says what is wrong with outputs.
        Returns doubts by implementation.
        """
        verdict = verdict_for(*self._fresh)
        details = {name: verdict(answer) for name, answer in self._answers.items()}
        return {
            name: [("output-changed-after-timing", {"detail": f"on inputs that it had not seen before, {detail}"})]
            for name, detail in details.items()
            if detail
        }


def slower_on_new_data(fastest_s: float, timings: list[tuple[Subject, Timing]]) -> list[Doubt]:
    """Doubt a time that holds for data met before only. fastest_s : the fastest call on new data."""
    for subject, timing in timings:
        limit = SLOWER[subject.cache] * timing.high + LEAST_SLOWER_S
        if subject.clock != "graph" and fastest_s > limit:
            values = {"cache": subject.cache, "fresh": seconds(fastest_s), "time": seconds(timing.median)}
            return [("slower-on-new-data", values)]
    return []
