"""Times the same implementation as two subjects, in the worker: what then differs is noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .calls import Group, grad_mode, subjects_of
from .cases import INPUT_SETS
from .clock import measure


def time_twins(
    group: Group, name: str, clock: tuple[str, str], rounds: int, budget_s: float, repeats: int, emit: Callable
) -> None:
    """Emit `twins` with the times of the rounds of both, `repeats` times; clock : cache state and clock.

    Inputs, copies and warm-up are those of a profile, so the noise is that of its numbers.
    """
    group.device.allow_tf32(group.dtype == "tf32")
    sets: list[dict[str, Any]] = [group.inputs(index) for index in range(INPUT_SETS)]
    with grad_mode(group.direction):
        twins = subjects_of(group, [name, name], sets, [clock])
        for repeat in range(repeats):
            fresh = [replace(twin, rounds=[], position=0) for twin in twins]
            timings = measure(fresh, budget_s, rounds, group.seed + repeat)
            emit("twins", rounds_s=[list(timing.rounds_s) for timing in timings.values()])
    group.device.release_memory()
