"""Identical code against itself, from the parent's side: pairs within a worker, and several workers one after another.

A worker that dies costs its own pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import log
from typing import Any

from .points import headline
from .supervisor import Supervisor, WorkerDied

# Longest silence of a worker: warming up, or one pair, which take a second or two. The test is to end in about half a
# minute, so a launch that hangs must not take much of it.
SILENCE_S = 30.0
# As many rounds as the quiet cases of a profile take.
ROUNDS = 20
# A case of about this many operations takes about a millisecond on a processor of two cores: long for its clock, short
# enough for several samples in each round.
TYPICAL_FLOPS = 1e8
# How many times its budget a self-test may take on a machine so busy that everything lasts long.
PATIENCE = 2
# A pair needs at least this long, or its rounds hold single samples.
LEAST_PAIR_S = 0.3


@dataclass
class Worker:
    """What one worker measured: by subject, pairs of twins, each with the times of its rounds in seconds.

    deaths : why the worker died, by the subject that it was timing then; hung : those of which it said nothing more.
    """

    pairs: dict[str, list[tuple[list[float], list[float]]]] = field(default_factory=dict)
    deaths: dict[str, str] = field(default_factory=dict)
    hung: set[str] = field(default_factory=set)


def choose(groups: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """A typical case of every kernel with the implementations to time: the vendor's first row and the first of ours."""
    by_kernel: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        if group["implementations"]:
            by_kernel.setdefault(group["kernel"], []).append(group)
    chosen = []
    for of_kernel in by_kernel.values():
        group = min(of_kernel, key=lambda g: abs(log(max(1, g["work"]["matmul_flops"]) / TYPICAL_FLOPS)))
        names = group["implementations"]
        picked = [next((n for n in names if n.startswith(start)), None) for start in ("torch", "triton")]
        chosen += [(group, name) for name in picked if name] or [(group, names[0])]
    return chosen


def measure_identical(
    open_worker: Callable[[], AbstractContextManager[Supervisor]],
    plan: Callable[[Supervisor], list[dict[str, Any]]],
    workers: int,
    repeats: int,
    budget_s: float,
    told: Callable[[str], None],
    patience: float = PATIENCE,
) -> tuple[list[Worker], dict[str, Any]]:
    """Time every chosen case as a pair, `repeats` times in each of `workers` processes; also what opening said.

    budget_s : for everything; starting processes and warming up comes out of it. told : what is going on, in words.
    patience : after two processes, no other and no other case is begun when this many budgets are spent. What hung once
    is not asked for again.
    """
    found, opened = [], {}
    began = time.monotonic()

    def late(index: int) -> bool:
        return index >= 2 and time.monotonic() - began > patience * budget_s

    for index in range(workers):
        if late(index):
            break
        started = time.monotonic()
        left_s = budget_s - (started - began)
        worker = Worker()
        with open_worker() as supervisor:
            opened = supervisor.opened
            hung = {subject for earlier in found for subject in earlier.hung}
            cases = [(group, name) for group, name in choose(plan(supervisor)) if _subject(group, name) not in hung]
            left_s = left_s / (workers - index) - (time.monotonic() - started)
            # A third of a pair's time goes into inputs, copies and warm-up.
            pair_s = max(LEAST_PAIR_S, left_s / max(1, len(cases) * repeats) / 1.5)
            for group, name in cases:
                if late(index):
                    break
                told(f"process {index + 1} of {workers}: {group['kernel']} {name}, twice in turn")
                _time(supervisor, group, name, repeats, pair_s, worker)
        found.append(worker)
    return found, opened


def _subject(group: dict[str, Any], name: str) -> str:
    return f"{group['kernel']} {name}"


def _time(supervisor: Supervisor, group: dict[str, Any], name: str, repeats: int, pair_s: float, into: Worker) -> None:
    request = {part: group[part] for part in ("source", "shape", "dtype", "direction")}
    request |= {"implementation": name, "clock": list(headline(group)), "rounds": ROUNDS, "repeats": repeats}
    subject = _subject(group, name)
    try:
        for event in supervisor.ask("twins", SILENCE_S, **request, budget_s=pair_s):
            if event["event"] == "twins":
                into.pairs.setdefault(subject, []).append(tuple(event["rounds_s"]))
    except WorkerDied as death:
        into.deaths[subject] = str(death)
        into.hung |= {subject} if death.status == "hung" else set()
        supervisor.restart()
