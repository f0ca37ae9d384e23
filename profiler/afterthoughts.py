"""What is learnt of an implementation once it is timed: its parts run alone, a second clock, and what was chosen.

Nothing here can cost a case its time: whatever fails is told, and the time stands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from .calls import Group, call_of
from .clock import Subject, measure
from .configuration import Facts, facts_of, launched
from .points import HEADLINE_CLOCK, no_reading
from .truths import announcing

# Parts are a look inside a time that is known already: a sixth of what the whole was given.
BUDGET_SHARE = 1 / 6
# The kernels that take longest tell the algorithm; the others reset memory and copy.
MOST_KERNELS = 5
# Names of kernels are templates written out; what tells them apart stands at the front.
NAME_LENGTH = 80

# Words in the names of matrix products.
PRODUCTS = ("gemm", "cutlass", "nvjet")

Emit = Callable[..., None]


def time_parts(group: Group, names: Sequence[str], inputs: dict[str, Any], options: dict[str, Any], emit: Emit) -> None:
    """Time the parts of every implementation that has some; emits `parts` for each.

    Parts run warm, under the clock of the headline, and forward only. options : with `parts` false, none is timed.
    """
    clock = HEADLINE_CLOCK[group.device.kind]
    in_clocks = ("warm", clock) in [tuple(pair) for pair in options["clocks"]]
    if group.direction != "forward" or not in_clocks or not options.get("parts", True):
        return
    for name in names:
        emit("begin", implementation=name, stage="parts")
        found, reason = [], ""
        try:
            found = _timed(group, name, inputs, clock, BUDGET_SHARE * options["budget_s"] / len(names), emit)
        except Exception as error:  # whatever a part raises, the whole was timed before
            group.device.finish()
            reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:300]}"
        if found or reason:
            emit("parts", implementation=name, cache="warm", clock=clock, parts=found, reason=reason)


def _timed(group: Group, name: str, inputs: dict[str, Any], clock: Any, budget_s: float, emit: Emit) -> list[dict]:
    parts = group.kernel.implementations[name].parts(group.shape, inputs)
    subjects = [Subject(part.name, "warm", clock, [part.run], group.device.stopwatch("warm", clock)) for part in parts]
    telling = announcing(emit, "parts")
    timings = measure(
        subjects,
        budget_s,
        None,
        group.seed,
        on_prepare=lambda part: telling(name),
        on_slice=lambda index: telling(name),
    )
    return [
        {"name": part.name, "work": part.work.model_dump(), "time_s": timings[index].model_dump()}
        for index, part in enumerate(parts)
    ]


def watch_device(
    group: Group, names: Sequence[str], inputs: dict[str, Any], options: dict[str, Any], emit: Emit
) -> None:
    """Watch a few calls of every implementation on a device by the driver's records; emits `second_clock` for each.

    It carries a reading per cache state, and facts: the algorithm that a library chose, and what Triton launched.
    """
    states = [cache for cache, clock in options["clocks"] if clock == "events"]
    if not states or not options.get("watch", True):
        return
    for name in names:
        implementation = group.kernel.implementations[name]
        emit("begin", implementation=name, stage="second_clock")
        facts: Facts = {}
        try:
            call = call_of(implementation.run, group.shape, inputs, group.direction)
            with launched() as kernels:
                watched = group.device.watch(call, states)
            readings = {state: found.second_clock().model_dump() for state, found in watched.items()}
            facts |= facts_of(kernels)
            algorithm = implementation.algorithm(group.shape, group.dtype, group.device.kind, group.direction)
            if algorithm is not None or name == "compile":
                facts |= observed(watched[states[-1]].names(), recurrent=algorithm is not None)
        except Exception as error:  # a profiler that is not there or not allowed; what Triton told stands
            readings = dict.fromkeys(states, no_reading(type(error).__name__))
            with contextlib.suppress(Exception):
                group.device.finish()
        emit("second_clock", implementation=name, readings=readings, facts=facts)


def classify(kernels: Sequence[str]) -> str:
    """The algorithm that kernel names give away: `persistent` keeps its weights for all steps, else `standard`.

    A matrix product may call its grid persistent too; that says nothing about a recurrence.
    """
    recurrent = [name.lower() for name in kernels if not any(word in name.lower() for word in PRODUCTS)]
    return "persistent" if any("persist" in name for name in recurrent) else "standard"


def observed(kernels: Sequence[str], recurrent: bool = True) -> dict[str, str]:
    """What the record says of the kernels of a call, the longest first; nothing where none was seen."""
    if not kernels:
        return {}
    names = {"kernels_observed": "; ".join(name[:NAME_LENGTH] for name in kernels[:MOST_KERNELS])}
    return ({"algorithm_observed": classify(kernels)} if recurrent else {}) | names
