"""Two callables timed in turn, from Python: is one faster than the other? And one alone, to be compared later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..roofline.catalogue import measured_machine
from ..roofline.compare import Comparison
from ..roofline.machine import Machine
from ..roofline.ratio import BAND, advice, paired, verdict
from ..roofline.record import CacheState, Environment, Point, Timing
from .clock import Subject
from .clock import measure as time_subjects
from .devices import machine_id, open_device
from .door import DTYPE_NAMES, calls_of_callable, first_floating_point, sizes_of
from .points import HEADLINE_CLOCK

# With several samples in each round and 1 % noise, so many rounds see a change of 2 % in more than nine cases of ten.
ROUNDS = 20

Inputs = Mapping[str, Any] | Sequence[Any]


def compare(
    fn: Callable[..., Any],
    other: Callable[..., Any],
    inputs: Inputs,
    *,
    name: str = "",
    cache: CacheState = "warm",
    rounds: int = ROUNDS,
    budget_s: float = 2.0,
    band: float = BAND,
    seed: int = 0,
) -> Comparison:
    """Time `fn` and `other` on the same inputs in turn, and say which is faster; `other` is the base of the ratio.

    They run with as many threads as torch has here.

    inputs : as for `measure`. cache : "warm" or "cold". rounds, budget_s : as many rounds within about this time.
    band : a ratio this near to 1 is SAME. Gradients are off. Results are not compared.
    """
    times = _time([fn, other], inputs, cache, rounds, budget_s, seed)
    ratio = paired(times[1].rounds_s, times[0].rounds_s)
    ruling = verdict(ratio, band)
    return Comparison(
        _point(fn, inputs, name, cache, times[0]),
        ratio,
        ruling,
        advice(ratio, band, call=True) if ruling == "AMBIGUOUS" else "",
    )


def time_alone(
    fn: Callable[..., Any],
    inputs: Inputs,
    *,
    name: str = "",
    cache: CacheState = "warm",
    rounds: int = ROUNDS,
    budget_s: float = 1.0,
    seed: int = 0,
) -> Point:
    """Time one callable without judging it; arguments as for `compare`."""
    return _point(fn, inputs, name, cache, _time([fn], inputs, cache, rounds, budget_s, seed)[0])


def here(inputs: Inputs) -> tuple[Machine, Environment]:
    """The machine that holds these inputs, without its roofs, and the set-up."""
    device = open_device(str(first_floating_point(inputs).device), keep_threads=True)
    return measured_machine(machine_id(device.name), device.name, device.kind, []), device.describe()


def _time(
    fns: list[Callable[..., Any]], inputs: Inputs, cache: CacheState, rounds: int, budget_s: float, seed: int
) -> list[Timing]:
    device = open_device(str(first_floating_point(inputs).device), keep_threads=True)
    clock = HEADLINE_CLOCK[device.kind]
    with torch.no_grad():
        calls = calls_of_callable(fns, inputs, cache, device)
        subjects = [Subject("fn", cache, clock, own, device.stopwatch(cache, clock)) for own in calls]
        return list(time_subjects(subjects, budget_s, rounds, seed).values())


def _point(fn: Callable[..., Any], inputs: Inputs, name: str, cache: CacheState, time: Timing) -> Point:
    tensor = first_floating_point(inputs)
    return Point(
        kernel=name or getattr(fn, "__name__", type(fn).__name__),
        implementation="python",
        shape=sizes_of(inputs),
        dtype=DTYPE_NAMES[tensor.dtype],
        direction="forward",
        cache=cache,
        clock=HEADLINE_CLOCK["cpu" if tensor.device.type == "cpu" else "cuda"],
        status="ok",
        time_s=time,
    )
