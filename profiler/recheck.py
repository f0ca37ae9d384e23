"""Looks at an implementation again after its timing, on data that nothing in this process has seen before.

The tensors that were timed get other values in place, and what was timed is called as it was timed: whoever keeps
results by address, by shape or from an earlier call, skips calls, or stops working once it is checked, now returns
something else than the reference. The reference of the new data is computed after all have answered, so it cannot be
found anywhere. Whoever recognises data it has met before is right, and much slower on what it has not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from ..roofline.record import Timing
from ..roofline.units import seconds
from . import check, streams
from .calls import Group, call_of
from .clock import HostStopwatch, Subject
from .copies import Inputs, clone
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


class Recheck:
    """One look at all implementations of a group. `inputs` are the tensors of the first set that was timed."""

    def __init__(self, group: Group, inputs: Inputs) -> None:
        self._group = group
        self._inputs = inputs
        self._seen = group.inputs(0)
        self._fresh = group.inputs(FRESH)
        self._answers: dict[str, Any] = {}

    def look(self, name: str, timings: list[tuple[Subject, Timing]], verdict: Verdict) -> list[Doubt]:
        """Call an implementation on new data and old in turn; its answer on new data waits for `settle`.

        timings : its subjects with their times. verdict : says what is wrong with outputs of the first set, or nothing.
        """
        if self._group.direction != "forward":
            return self._look_at_gradients(name, verdict)
        subject = timings[0][0]
        self._answers[name], _, changed = self._called(name, subject, self._fresh, memory_for(name))
        second, _, changed_then = self._called(name, subject, self._seen)
        slower = self._slower(name, timings)
        fourth, _, changed_last = self._called(name, subject, self._seen)
        details = [changed, changed_then, changed_last, verdict(second), verdict(fourth)]
        found: list[Doubt] = [("output-changed-after-timing", {"detail": detail}) for detail in details if detail]
        return (found + slower + self._elsewhere(name))[:1]

    def _look_at_gradients(self, name: str, verdict: Verdict) -> list[Doubt]:
        """Gradients hang on a graph of their own inputs, so new data make a new graph."""
        group, run = self._group, self._group.kernel.implementations[name].run
        with memory_for(name):
            answers = []
            for values in (self._fresh, self._seen):
                answers.append(at_once(call_of(run, group.shape, clone(values), group.direction)()))
                group.device.finish()
        self._answers[name] = answers[0]
        detail = verdict(answers[1])
        return [("output-changed-after-timing", {"detail": detail})] if detail else []

    def _called(self, name: str, subject: Subject, values: Inputs, memory: Any = None) -> tuple[Any, float, str]:
        """Outputs, seconds and overwritten inputs of one call on other values, made as the calls of `subject` are."""
        kept: list[Any] = []

        def keeping() -> None:
            kept[:] = [subject.calls[0]()]

        self._set(values)
        stopwatch = HostStopwatch(block=False, finish=self._group.device.finish)
        again = Subject(name, subject.cache, subject.clock, [keeping], stopwatch)
        with memory or nullcontext():
            again.measure_round(0.0)
            outputs = at_once(kept[0])
        changed = check.changed_inputs(values, self._inputs)
        self._set(self._seen)
        return outputs, again.rounds[0][0], f"overwrites its input {', '.join(changed)}" if changed else ""

    def _slower(self, name: str, timings: list[tuple[Subject, Timing]]) -> list[Doubt]:
        """Doubt times that hold for data met before only; every try is on a set of its own.

        Where the machine has become slower since the timing, calls on data met before are slower now too.
        """
        fastest_s = known_s = float("inf")
        found: list[Doubt] = []
        for attempt in range(1, TRIES + 1):
            fresh = self._group.inputs(FRESH + attempt)
            fastest_s = min(fastest_s, self._called(name, timings[0][0], fresh)[1])
            found = slower_on_new_data(fastest_s, timings)
            if not found:
                break
            known_s = min(known_s, self._untouched(timings[0][0]))
        return found if fastest_s > SLOWER["cold"] * known_s else []

    def _untouched(self, subject: Subject) -> float:
        """Seconds of a call on the data that lie there, whose first call since they were written went before."""
        stopwatch = HostStopwatch(block=False, finish=self._group.device.finish)
        again = Subject(subject.name, subject.cache, subject.clock, subject.calls[:1], stopwatch)
        for _ in range(2):
            again.measure_round(0.0)
        return min(samples[0] for samples in again.rounds)

    def _elsewhere(self, name: str) -> list[Doubt]:
        """Doubt a call that leaves work on another stream of a GPU behind."""
        if self._group.device.kind != "cuda":
            return []
        run = self._group.kernel.implementations[name].run
        return streams.doubt(torch.cuda, partial(run, self._group.shape, **self._inputs))

    def _set(self, values: Inputs) -> None:
        with torch.no_grad():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    self._inputs[name].copy_(value)
        self._group.device.finish()

    def settle(self, verdict_for: Callable[[Inputs], Verdict]) -> dict[str, list[Doubt]]:
        """Hold the answers on new data against their reference, which is computed only now.

        verdict_for : makes, from inputs, what says what is wrong with outputs. Returns doubts by implementation.
        """
        verdict = verdict_for(self._fresh)
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
