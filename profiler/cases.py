"""Runs one group of cases in the worker: inputs, correctness, then interleaved timing.

Every implementation is checked before any is timed. `emit(event, **data)` tells the parent what is going on, so that it
knows whom to blame when this process dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..roofline.record import Correctness
from . import check
from .afterthoughts import time_parts, watch_device
from .calls import Group, call_of, grad_mode, subjects_of
from .clock import Subject, measure, seldom
from .copies import clone
from .energy import energies
from .host import usable_cores
from .second_clock import Waiting, reading_of
from .watch import Watch

# What PyTorch says when a backend does not take a case: a refusal, no failure.
REFUSALS = ("No available kernel", "No viable backend")

Emit = Callable[..., None]
Select = Callable[[Any], Any]


def _silent(event: str, **data: Any) -> None:
    """Tell nobody."""


# Distinct random input sets per case; cold copies beyond them are clones of these.
INPUT_SETS = 3
# Above this many operations the float64 reference of a whole shape takes seconds, and attention's scores gigabytes: a
# part of it is checked instead, where the kernel file says how.
SPOT_CHECK_FLOPS = {"cpu": 2e10, "cuda": 5e11}


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill fresh tensors with NaN, so that an output that is never written shows."""
    switches: Any = torch.utils.deterministic
    before = switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    switches.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        switches.fill_uninitialized_memory = before


@dataclass
class Problem:
    """A problem small enough for the float64 reference, and which part of the outputs it predicts.

    again : looks again at what failed; None where there is no second look.
    """

    select: Select
    truth: check.Truth
    again: Callable[[tuple[Any, ...]], Correctness] | None = None


def problems(group: Group, inputs: dict[str, Any], flops: float, emit: Emit = _silent) -> list[Problem] | str:
    """The reference results to hold outputs against, or the reason why there are none.

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
    chained = group.module.work(group.shape, group.dtype, group.direction).depth > 1
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for shape, part, of_whole, of_part in parts:
        compute = _reference_call(reference, shape, group.direction, of_part)
        truth = check.truth_of(compute, part, group.dtype, group.direction, chained, interpreted)
        found.append(Problem(of_whole, truth, _second_look(group, truth, compute, part, emit)))
    return found


def _second_look(
    group: Group, truth: check.Truth, compute: Any, inputs: dict[str, Any], emit: Emit
) -> Callable[[tuple[Any, ...]], Correctness] | None:
    """Only for kernels whose file says that they are sensitive."""
    if not getattr(group.module, "SENSITIVE", False):
        return None
    on_neighbour = partial(emit, "begin", implementation="reference", stage="check again")
    look = check.SecondLook(truth, compute, inputs, group.dtype, group.direction, on_neighbour)

    def again(outputs: tuple[Any, ...]) -> Correctness:
        with grad_mode(group.direction):
            return look.compare(outputs)

    return again


def _reference_call(reference: Any, shape: Any, direction: str, select: Select) -> Callable[[dict[str, Any]], Any]:
    return lambda inputs: select(call_of(reference, shape, inputs, direction)())


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
    # torch.compile would compile once with and once without the poison, and allocates past it anyway.
    memory = contextlib.nullcontext() if name == "compile" else poisoned_memory()
    with memory, grad_mode(group.direction):
        outputs = call_of(run, group.shape, own, group.direction)()
        group.device.finish()
    changed = check.changed_inputs(inputs, own)
    if changed:
        return Correctness(passed=False, detail=f"overwrites its input {', '.join(changed)}")
    return verdict_on(outputs, found) if not isinstance(found, str) else None


def run_group(group: Group, names: list[str], flops: float, options: dict[str, Any], emit: Emit) -> None:
    """Check and time a group; emits a `point` event for each implementation, cache state and clock.

    options : `time` (False to check only), `budget_s`, `rounds`, `clocks` (pairs of cache state and clock).
    """
    group.device.allow_tf32(group.dtype == "tf32")
    emit("begin", implementation="reference", stage="check")
    step = "inputs()"
    try:
        sets = [group.inputs(index) for index in range(INPUT_SETS if options["time"] else 1)]
        step = "the float64 reference"
        with grad_mode(group.direction):
            found = problems(group, sets[0], flops, emit)
    except Exception as error:  # without inputs or truth nobody can be checked, and it is nobody's fault but theirs
        group.device.finish()
        for name in names:
            _fail(emit, name, _status_of(error), f"{step} raised {_one_line(error)}")
        return
    passed = [name for name in names if _check_one(group, name, sets[0], found, emit)]
    if options["time"] and passed:
        with grad_mode(group.direction):
            _time_all(group, passed, sets, found, options, emit)
    group.device.release_memory()


def _check_one(group: Group, name: str, inputs: dict[str, Any], found: list[Problem] | str, emit: Emit) -> bool:
    emit("begin", implementation=name, stage="check")
    try:
        result = checked(group, name, inputs, found)
    except Exception as error:  # whatever an implementation raises is its own failure, not the run's
        # An illegal access leaves the device unusable: this raises again then, and the parent blames the right row.
        group.device.finish()
        _fail(emit, name, _status_of(error), _one_line(error))
        return False
    if result is not None and not result.passed:
        _fail(emit, name, "wrong", result.detail, result)
        return False
    emit("checked", implementation=name, correctness=result.model_dump() if result else None)
    return True


def _fail(emit: Emit, name: str, status: str, reason: str, correctness: Correctness | None = None) -> None:
    measured = correctness.model_dump() if correctness else None
    emit("failed", implementation=name, status=status, reason=reason, correctness=measured)


def _status_of(error: Exception) -> str:
    """What an exception makes of its case: out of memory, refused, or crashed."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        return "oom"
    return "skipped" if any(words in str(error) for words in REFUSALS) else "crashed"


def _one_line(error: Exception) -> str:
    """The type and the first line of an exception."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:300]}"


def _time_all(
    group: Group, names: list[str], sets: list[dict[str, Any]], found: Any, options: dict[str, Any], emit: Emit
) -> None:
    emit("begin", implementation="", stage="time")
    subjects = subjects_of(group, names, sets, options["clocks"])
    waiting = Waiting(usable_cores())
    watch = Watch(group.device.sensors)
    timings = measure(
        subjects,
        options["budget_s"],
        options["rounds"],
        group.seed,
        on_prepare=lambda name: emit("begin", implementation=name, stage="prepare"),
        on_round=seldom(lambda done: emit("begin", implementation="", stage=f"time, round {done}")),
        on_slice=watch.look,
    )
    waiting_share = waiting.share()
    host = {
        subject.name: timings[index]
        for index, subject in enumerate(subjects)
        if (subject.cache, subject.clock) == ("warm", "host") and group.device.kind == "cuda"
    }
    again = {name: _after_timing(group, name, subjects, found) for name in names}
    for index, subject in enumerate(subjects):
        timing = timings[index]
        emit(
            "point",
            implementation=subject.name,
            cache=subject.cache,
            clock=subject.clock,
            time_s=timing.model_dump(),
            host_s=host[subject.name].model_dump() if subject.name in host and subject.clock == "events" else None,
            second_clock=reading_of(subject.account, timing.median, waiting_share),
            peak_memory_bytes=group.device.peak_memory(subject.calls[0]),
            changed=again[subject.name],
            telemetry=watch.telemetry(index).model_dump(),
        )
    time_parts(group, names, sets[0], options, emit)
    watch_device(group, names, sets[0], options, emit)
    energies(group.device, subjects, options, emit)


def _after_timing(group: Group, name: str, subjects: list[Subject], found: Any) -> str:
    """Check the very call that was timed once more; says what differs, or nothing."""
    if isinstance(found, str):
        return ""
    call = next(subject.calls[0] for subject in subjects if subject.name == name)
    outputs = call()
    group.device.finish()
    return verdict_on(outputs, found).detail
