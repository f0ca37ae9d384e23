"""The Python door: time any callable or module and get its verdict, without a kernel file or a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from ..roofline.catalogue import measured_machine
from ..roofline.contract import Chain, Weights
from ..roofline.machine import Machine
from ..roofline.record import CacheState, Point
from ..roofline.second_clock import SecondClock
from ..roofline.verdict import judge
from ..roofline.work import Work
from . import ceilings, check
from .clock import Subject
from .clock import measure as time_subjects
from .copies import rotating_copies
from .devices import machine_id, open_device
from .host import usable_cores
from .points import HEADLINE_CLOCK
from .second_clock import Waiting, reading_of
from .watch import Watch

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


def this_machine(device: str = "auto", effort: str = "quick") -> Machine:
    """Measure the roofs of a device, once per process and number of threads; takes seconds."""
    return _with_threads(device, effort, torch.get_num_threads())


@cache
def _with_threads(device: str, effort: str, threads: int) -> Machine:
    """The roofs that so many threads reach: as many as torch has when this is called."""
    opened = open_device(device, keep_threads=True)
    found = ceilings.measure(opened.torch_device, effort)
    return measured_machine(machine_id(opened.name), opened.name, opened.kind, found)


def measure(
    fn: Callable[..., Any],
    inputs: Mapping[str, Any] | Sequence[Any],
    work: Work,
    *,
    reference: Callable[..., Any] | None = None,
    name: str = "",
    cache: CacheState = "warm",
    weights: Weights = "reread",
    chain: Chain = "launch",
    budget_s: float = 1.0,
    machine: Machine | None = None,
    seed: int = 0,
) -> Point:
    """Time `fn(*inputs)` (or `fn(**inputs)` for a dict) and judge it against this machine.

    fn : a function or `torch.nn.Module`; gradients are off.
    inputs : tensors and other arguments; the first floating-point tensor sets device and dtype.
    work : what a call must do, `Work(terms=...)` or the `work()` of a kernel file.
    reference : checked against in float64 before anything is timed; a wrong result raises `ValueError`.
    cache : "warm" repeats the same inputs; "cold" rotates copies that exceed twice the last cache.
    machine : roofs to judge by; measured when left out, once per process.
    It runs with as many threads as torch has here, and so do the roofs; `compiler` of the point holds their number.
    Returns a `Point`, which shows itself as a table in a terminal and in a notebook.
    """
    arguments = _named(inputs)
    call = fn if isinstance(inputs, Mapping) else _positional(fn)
    tensor = first_floating_point(inputs)
    device = open_device(str(tensor.device), keep_threads=True)
    dtype = DTYPE_NAMES[tensor.dtype]
    with torch.no_grad():
        correctness = None
        if reference is not None:
            plain = reference if isinstance(inputs, Mapping) else _positional(reference)
            truth = check.truth_of(lambda given: _tuple(plain(**given)), arguments, dtype)
            correctness = check.compare(_tuple(call(**arguments)), truth)
            if not correctness.passed:
                raise ValueError(f"The result is wrong, so it is not timed: {correctness.detail}.")
        clock = HEADLINE_CLOCK[device.kind]
        waiting, watch = Waiting(usable_cores()), Watch(device.sensors)
        calls = calls_of_callable([fn], inputs, cache, device)[0]
        subject = Subject("fn", cache, clock, calls, device.stopwatch(cache, clock))
        timing = time_subjects([subject], budget_s, None, seed, on_slice=watch.look)[0]
        reading = reading_of(subject.account, timing.median, waiting.share())
    point = Point(
        kernel=name or getattr(fn, "__name__", type(fn).__name__),
        implementation="python",
        shape={},
        dtype=dtype,
        direction="forward",
        cache=cache,
        clock=clock,
        status="ok",
        correctness=correctness,
        time_s=timing,
        second_clock=SecondClock.model_validate(reading) if reading else None,
        telemetry=watch.telemetry(0),
        work=work,
        weights=weights,
        chain=chain,
        compiler={"threads": torch.get_num_threads()} if device.kind == "cpu" else {},
    )
    return judge(point, machine or this_machine(str(tensor.device)), "budget_s=10")


def _tuple(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _positional(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **given: fn(*given.values())


def _named(inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    return dict(inputs) if isinstance(inputs, Mapping) else {str(i): v for i, v in enumerate(inputs)}


def first_floating_point(inputs: Mapping[str, Any] | Sequence[Any]) -> torch.Tensor:
    """The tensor that sets device and dtype; raises `ValueError` where there is none."""
    tensors = (value for value in _named(inputs).values() if isinstance(value, torch.Tensor))
    found = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    if found is None:
        raise ValueError("The inputs hold no floating-point tensor; at least one is needed, it sets device and dtype.")
    return found


def sizes_of(inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, int]:
    """The sizes of all tensors among the inputs: "x.0" is the first of x; inputs without names count from "in0"."""
    named = inputs if isinstance(inputs, Mapping) else {f"in{index}": value for index, value in enumerate(inputs)}
    return {
        f"{name}.{axis}": size
        for name, value in named.items()
        if isinstance(value, torch.Tensor)
        for axis, size in enumerate(value.shape)
    }


def calls_of_callable(
    fns: Sequence[Callable[..., Any]], inputs: Mapping[str, Any] | Sequence[Any], cache: CacheState, device: Any
) -> list[list[Callable[[], Any]]]:
    """The calls to time of each callable, all on the same copies: one set when warm, rotating ones when cold."""
    copies = [_named(inputs)]
    if cache == "cold" and device.kind == "cpu":
        copies = rotating_copies(copies, device.last_cache_bytes(), device.free_memory_bytes())
    plain = [fn if isinstance(inputs, Mapping) else _positional(fn) for fn in fns]
    return [[lambda fn=fn, given=given: fn(**given) for given in copies] for fn in plain]
