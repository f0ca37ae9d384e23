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
from ..roofline.verdict import judge
from ..roofline.work import Work
from . import ceilings, check
from .clock import Subject
from .clock import measure as time_subjects
from .copies import rotating_copies
from .devices import machine_id, open_device
from .points import HEADLINE_CLOCK
from .watch import Watch

_DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


@cache
def this_machine(device: str = "auto", effort: str = "quick") -> Machine:
    """Measure the roofs of a device, once per process; takes seconds."""
    opened = open_device(device)
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
    Returns a `Point`, which shows itself as a table in a terminal and in a notebook.
    """
    arguments = dict(inputs) if isinstance(inputs, Mapping) else {str(i): v for i, v in enumerate(inputs)}
    call = fn if isinstance(inputs, Mapping) else _positional(fn)
    tensor = next((v for v in arguments.values() if isinstance(v, torch.Tensor) and v.is_floating_point()), None)
    if tensor is None:
        raise ValueError("measure() needs at least one floating-point tensor among its inputs.")
    device = open_device(str(tensor.device))
    dtype = _DTYPE_NAMES[tensor.dtype]
    with torch.no_grad():
        correctness = None
        if reference is not None:
            plain = reference if isinstance(inputs, Mapping) else _positional(reference)
            truth = check.truth_of(lambda given: _tuple(plain(**given)), arguments, dtype)
            correctness = check.compare(_tuple(call(**arguments)), truth)
            if not correctness.passed:
                raise ValueError(f"The result is wrong, so it is not timed: {correctness.detail}.")
        clock = HEADLINE_CLOCK[device.kind]
        subject = Subject("fn", cache, clock, _calls(call, arguments, cache, device), device.stopwatch(cache, clock))
        watch = Watch(device.sensors)
        timing = time_subjects([subject], budget_s, None, seed, on_slice=watch.look)[0]
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
        telemetry=watch.telemetry(0),
        work=work,
        weights=weights,
        chain=chain,
    )
    return judge(point, machine or this_machine(str(tensor.device)), "budget_s=10")


def _tuple(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _positional(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **given: fn(*given.values())


def _calls(
    call: Callable[..., Any], arguments: dict[str, Any], cache: CacheState, device: Any
) -> list[Callable[[], Any]]:
    copies = [arguments]
    if cache == "cold" and device.kind == "cpu":
        copies = rotating_copies([arguments], device.last_cache_bytes(), device.free_memory_bytes())
    return [lambda given=given: call(**given) for given in copies]
