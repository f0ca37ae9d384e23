"""Measures what this machine can do: bandwidths, rates, latencies and capacities, each as a `Ceiling`.

`measure` runs inside the worker process, before the first kernel; `remeasure` repeats, between and after kernels, the
ceilings that most verdicts hang on; `merge` joins the two, the more favourable value being the roof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..roofline.machine import Ceiling
from .gauge import Effort, best_of, better, effort_named, place


def measure(
    device: str, effort: str | Effort = "quick", progress: Callable[[str], None] | None = None
) -> list[Ceiling]:
    """Measure all ceilings of "cpu" or "cuda:N".

    effort : "quick" (seconds) or "full". progress : told in words what is going on and what is left out and why.
    Raises `ValueError` with a sentence for an unknown device or effort.
    """
    found: list[Ceiling] = []
    for part in range(part_count(device)):
        found += measure_part(device, part, effort, progress)
    return best_of(found)


def part_count(device: str) -> int:
    """How many parts the measurement has: what could hang a device comes last, in a part of its own."""
    return len(_backend(device).PARTS)


def measure_part(
    device: str, part: int, effort: str | Effort = "quick", progress: Callable[[str], None] | None = None
) -> list[Ceiling]:
    """Measure one part of the ceilings; arguments as for `measure`."""
    wanted = effort_named(effort)
    return best_of(_backend(device).PARTS[part](device, wanted, progress or (lambda text: None)))


def remeasure(device: str, ceilings: Sequence[Ceiling]) -> list[Ceiling]:
    """Take bandwidths of DRAM, the read of the last cache, products and latencies once more; only what is known.

    ceilings : what is known. Each is timed by the operation that it was measured with.
    """
    known = {place(ceiling) for ceiling in ceilings}
    return [again for again in best_of(_backend(device).remeasure(device, list(ceilings))) if place(again) in known]


def merge(old: Sequence[Ceiling], new: Sequence[Ceiling]) -> list[Ceiling]:
    """Join two measurements of one machine: the more favourable value, with the interval of its own rounds.

    The other one was disturbed, or taken at a lower clock: what it missed by is no doubt about the limit. A ceiling
    that is only in one of the two is kept as it is. A measured value is never replaced by one of another provenance,
    nor the other way round.
    """
    merged = {(*place(ceiling), ceiling.provenance): ceiling for ceiling in old}
    for ceiling in new:
        held = merged.setdefault((*place(ceiling), ceiling.provenance), ceiling)
        if better(ceiling, held):
            merged[(*place(ceiling), ceiling.provenance)] = ceiling
    return list(merged.values())


def _backend(device: str):
    """The module that measures a kind of device; imported late, because it brings torch."""
    if device == "cpu":
        from . import ceilings_cpu

        return ceilings_cpu
    if device == "cuda" or device.startswith("cuda:"):
        from . import ceilings_cuda

        return ceilings_cuda
    raise ValueError(f"There is no device {device!r}; devices are cpu and cuda:N.")
