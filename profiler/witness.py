"""The parent's own clock: how long a block of calls took, beside what the worker claims for it.

The worker says when it begins a block and when it has ended, with the seconds that its stopwatch showed. A kernel can
replace the clocks of its own process; it cannot replace the parent's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..roofline.units import seconds
from .clock import Subject

# A block of calls: longer than what a message may be late, so that a clock at three eighths of its pace shows.
BLOCK_S = 6e-3
# No call takes less than this. A clock that claims less must not make a block endless: it has so many calls then.
LEAST_CLAIM_S = 1e-6
MOST_CALLS = 500
# Blocks per implementation. All must contradict: a parent that is kept waiting sees some of them late, and on a machine
# with more to do than it has processors, most.
BLOCKS, BUSY_BLOCKS = 3, 15
# What the parent may see beside the claim: the warm-up call and delays of messages on a busy machine.
RATIO, LATE_S = 2.0, 4e-3

Doubt = tuple[str, dict[str, str]]


def bear_witness(subject: Subject, claimed_s: float, emit: Callable[..., None]) -> None:
    """Run blocks of a subject's calls between two messages to the parent. claimed_s : its time per call."""
    calls = max(1, round(BLOCK_S / claimed_s)) if claimed_s >= LEAST_CLAIM_S else MOST_CALLS
    for _ in range(BUSY_BLOCKS if busy() else BLOCKS):
        emit("witness", implementation=subject.name, ended=False, claimed_s=0.0)
        values = subject.stopwatch.sample(subject.calls[:1], 0, calls)
        # Before a block the stopwatch makes one call that it does not time.
        claimed = (calls + 1) * sum(values) / len(values)
        emit("witness", implementation=subject.name, ended=True, claimed_s=claimed)


def busy() -> bool:
    """Whether more wants to run on this machine than it has processors, over the last minute."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


class Witness:
    """Takes the messages of blocks and keeps (claimed, seen) seconds per implementation."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._began = 0.0
        self._blocks: dict[str, list[tuple[float, float]]] = {}

    def note(self, event: dict[str, Any]) -> None:
        """Take a `witness` event, at the time at which it came."""
        if event["ended"]:
            pair = (event["claimed_s"], self._now() - self._began)
            self._blocks.setdefault(event["implementation"], []).append(pair)
        else:
            self._began = self._now()

    def doubts(self, implementation: str) -> list[Doubt]:
        """Doubt a clock that all blocks contradict."""
        blocks = self._blocks.get(implementation, [])
        if not blocks or not all(_contradicts(*block) for block in blocks):
            return []
        claimed, seen = min(blocks, key=lambda block: block[1])
        return [("clock-contradicted", {"claimed": seconds(claimed), "seen": seconds(seen)})]


def _contradicts(claimed_s: float, seen_s: float) -> bool:
    return seen_s > RATIO * claimed_s + LATE_S or claimed_s > RATIO * seen_s + LATE_S
