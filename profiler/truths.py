"""What results of a group are held against: the float64 reference, of the whole problem or of parts of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..roofline.record import Correctness
from . import check
from .calls import Group, call_of, grad_mode, operands_of
from .clock import seldom
from .contract_checks import held_reference
from .copies import clone
from .poison import at_once, memory_for
from .stages import REFERENCE

Emit = Callable[..., None]
Select = Callable[[Any], Any]


def _silent(event: str, **data: Any) -> None:
    """Tell nobody."""


def announcing(emit: Emit, stage: str) -> Callable[[str], None]:
    """Tells once in a while that work on an implementation goes on; what was said before would be no news."""
    count = itertools.count(1)
    return seldom(lambda name: emit("begin", implementation=name, stage=f"{stage}, {next(count)}"))


# Above this many operations the float64 reference of a whole shape takes seconds, and attention's scores gigabytes: a
# part of it is checked instead, where the kernel file says how.
SPOT_CHECK_FLOPS = {"cpu": 2e10, "cuda": 5e11}


@dataclass
class Problem:
    """A problem small enough for the float64 reference, and which part of the outputs it predicts.

    again : looks again at what failed; None where there is no second look.
    """

    select: Select
    truth: check.Truth
    again: Callable[[tuple[Any, ...]], Correctness] | None = None


def problems(
    group: Group, inputs: dict[str, Any], flops: float, emit: Emit = _silent, seed: int = 0
) -> list[Problem] | str:
    """The reference results to hold outputs against, or the reason why there are none. seed : of incoming gradients.

    A kernel file may offer `spot(shape, inputs, seed)`: smaller problems whose outputs are a part of the large one's,
    the last tile included. They are used where the reference of the whole shape would take too long. Each is
    (shape, inputs, of_whole, of_part), the last two taking the same outputs out of the whole problem and the part.
    """
    reference = group.kernel.reference
    if reference is None:
        return "unchecked: the file has no reference(shape, **inputs)"
    whole: Select = lambda outputs: outputs  # noqa: E731
    parts: list[tuple[Any, dict[str, Any], Select, Select]] = [(group.shape, inputs, whole, whole)]
    if flops > SPOT_CHECK_FLOPS[group.device.kind] and group.direction == "forward" and hasattr(group.module, "spot"):
        parts = group.module.spot(group.shape, inputs, group.seed)
    found = []
    work = group.module.work(group.shape, group.dtype, group.direction)
    summed = _summed(group, inputs, work.tokens)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for shape, part, of_whole, of_part in parts:
        compute = _reference_call(reference, shape, group.direction, of_part, seed)
        truth = check.truth_of(compute, part, group.dtype, group.direction, work.depth > 1, interpreted, summed)
        found.append(Problem(of_whole, truth, _second_look(group, truth, compute, part, emit)))
    return found


def _summed(group: Group, inputs: dict[str, Any], tokens: int) -> tuple[int, ...]:
    """For the gradient of every floating-point input, the tokens that it sums over: all for a parameter, else 0.

    A parameter is an input of the same shape at another batch B; where a file has no shape of another B, any input may
    be one. Empty where nothing is widened for it: forward passes, and dtypes other than fp32.
    """
    if group.direction == "forward" or group.dtype != "fp32":
        return ()
    floating = {name: value for name, value in inputs.items() if torch.is_tensor(value) and value.is_floating_point()}
    try:
        other = replace(group, shape=replace(group.shape, B=2 if group.shape.B == 1 else 1)).inputs(0)
        return tuple(tokens if value.shape == other[name].shape else 0 for name, value in floating.items())
    except Exception:  # a file of a user's own, whose shapes have no B, or not this one
        return (tokens,) * len(floating)


def _second_look(
    group: Group, truth: check.Truth, compute: Any, inputs: dict[str, Any], emit: Emit
) -> Callable[[tuple[Any, ...]], Correctness] | None:
    """Only for kernels whose file says that they are sensitive."""
    if not getattr(group.module, "SENSITIVE", False):
        return None
    on_neighbour = announcing(emit, f"{REFERENCE}, neighbours")
    look = check.SecondLook(truth, compute, inputs, group.dtype, group.direction, lambda: on_neighbour(""))

    def again(outputs: tuple[Any, ...]) -> Correctness:
        with grad_mode(group.direction):
            return look.compare(outputs)

    return again


def _reference_call(
    reference: Any, shape: Any, direction: str, select: Select, seed: int
) -> Callable[[dict[str, Any]], Any]:
    held = held_reference(reference)
    return lambda inputs: select(call_of(held, shape, inputs, direction, seed)())


def verdict_on(outputs: Any, found: list[Problem]) -> Correctness:
    """Hold outputs against every problem; the first failure counts, else the largest error."""
    if not isinstance(outputs, (tuple, list)):
        return check.compare(outputs, found[0].truth)
    results = [_held_against(problem, tuple(problem.select(outputs))) for problem in found]
    failed = [result for result in results if not result.passed]
    return failed[0] if failed else max(results, key=lambda result: result.max_error or 0.0)


def _held_against(problem: Problem, outputs: tuple[Any, ...]) -> Correctness:
    result = check.compare(outputs, problem.truth)
    return result if result.passed or problem.again is None else problem.again(outputs)


def checked(group: Group, name: str, inputs: dict[str, Any], found: list[Problem] | str) -> Correctness | None:
    """Run one implementation on poisoned memory and compare; None where there is no reference."""
    run = group.kernel.implementations[name].run
    own = clone(inputs)  # whoever overwrites its inputs spoils nobody else's
    with memory_for(name), grad_mode(group.direction):
        call = call_of(run, group.shape, own, group.direction)
        outputs = call()
        group.device.finish()
        outputs = at_once(outputs)
    changed = operands_of(call, own).changed(inputs, 0)
    if changed:
        return Correctness(passed=False, detail=f"overwrites its input {', '.join(changed)}")
    return verdict_on(outputs, found) if not isinstance(found, str) else None
