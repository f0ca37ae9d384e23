"""Runs one group of cases in the worker: inputs, correctness, then interleaved timing.

Every implementation is checked before any is timed. `emit(event, **data)` tells the parent what is going on, so that it
knows whom to blame when this process dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..roofline.diagnoses import warn
from ..roofline.record import Correctness, Timing
from . import check, guard
from .afterthoughts import time_parts, watch_device
from .attribution import attribute
from .calls import Group, call_of, grad_mode, subjects_of
from .clock import Subject, measure, seldom
from .copies import clone
from .energy import energies
from .host import usable_cores
from .poison import at_once, memory_for
from .recheck import Doubt, Recheck
from .second_clock import Waiting, reading_of
from .watch import Watch
from .witness import bear_witness

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
    with memory_for(name), grad_mode(group.direction):
        outputs = call_of(run, group.shape, own, group.direction)()
        group.device.finish()
        outputs = at_once(outputs)
    changed = check.changed_inputs(inputs, own)
    if changed:
        return Correctness(passed=False, detail=f"overwrites its input {', '.join(changed)}")
    return verdict_on(outputs, found) if not isinstance(found, str) else None


def run_group(
    group: Group, names: list[str], flops: float, options: dict[str, Any], emit: Emit, replaced: list[str] | None = None
) -> None:
    """Check and time a group; emits a `point` event for each implementation, cache state and clock.

    options : `time` (False to check only), `budget_s`, `rounds`, `clocks` (pairs of cache state and clock).
    replaced : parts of the measurement that the kernel file replaced when it was loaded; then nothing of it is run.
    """
    if replaced:
        for name in names:
            _distrust(emit, name, replaced)
        return
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
        replaced = guard.GUARD.replaced()
    except Exception as error:  # whatever an implementation raises is its own failure, not the run's
        guard.GUARD.replaced()
        # An illegal access leaves the device unusable: this raises again then, and the parent blames the right row.
        group.device.finish()
        _fail(emit, name, _status_of(error), _one_line(error))
        return False
    if result is not None and not result.passed:
        _fail(emit, name, "wrong", result.detail, result)
    elif replaced:
        _distrust(emit, name, replaced)
    if replaced or (result is not None and not result.passed):
        return False
    emit("checked", implementation=name, correctness=result.model_dump() if result else None)
    return True


def _fail(emit: Emit, name: str, status: str, reason: str, correctness: Correctness | None = None) -> None:
    measured = correctness.model_dump() if correctness else None
    emit("failed", implementation=name, status=status, reason=reason, correctness=measured, doubts=[])


def _distrust(emit: Emit, name: str, replaced: list[str]) -> None:
    """Refuse to time what replaces parts of the measurement."""
    doubt = replaced_doubt(replaced)
    reason = warn(doubt[0], **doubt[1]).cause
    emit("failed", implementation=name, status="invalid", reason=reason, correctness=None, doubts=[doubt])


def replaced_doubt(replaced: list[str]) -> Doubt:
    """The entry of the closed list for parts of the measurement that were replaced."""
    return "measuring-code-replaced", {"names": guard.in_words(replaced)}


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
    replaced = guard.GUARD.replaced()
    doubts = _looked_at_again(group, [(s, timings[index]) for index, s in enumerate(subjects)], sets[0], found, emit)
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
            doubts=[replaced_doubt(replaced)] if replaced else doubts[subject.name],
            telemetry=watch.telemetry(index).model_dump(),
        )
    time_parts(group, names, sets[0], options, emit)
    attribute(group, subjects, options, emit)
    watch_device(group, names, sets[0], options, emit)
    energies(group.device, subjects, options, emit)


def _looked_at_again(
    group: Group, timed: list[tuple[Subject, Timing]], inputs: dict[str, Any], found: Any, emit: Emit
) -> dict[str, list[Doubt]]:
    """Doubts about every implementation that was timed: its results on new data, and what its clock says."""
    doubts: dict[str, list[Doubt]] = {subject.name: [] for subject, _ in timed}
    recheck = None if isinstance(found, str) else Recheck(group, inputs)
    for name in doubts:
        emit("begin", implementation=name, stage="check again")
        own = [(subject, timing) for subject, timing in timed if subject.name == name]
        if recheck is not None:
            doubts[name] = _look(group, recheck, name, own, found)
        for subject, timing in own:
            if (subject.cache, subject.clock) == ("warm", "host"):
                bear_witness(subject, timing.median, emit)
    if recheck is not None:
        emit("begin", implementation="reference", stage="check again")
        for name, more in recheck.settle(lambda fresh: _verdict_for(group, fresh)).items():
            doubts[name] = doubts[name] or more
    replaced = guard.GUARD.replaced()
    return {name: [replaced_doubt(replaced)] for name in doubts} if replaced else doubts


def _look(group: Group, recheck: Recheck, name: str, timed: list[tuple[Subject, Timing]], found: Any) -> list[Doubt]:
    try:
        return recheck.look(name, timed, lambda outputs: verdict_on(outputs, found).detail)
    except Exception as error:  # whatever an implementation raises is its own failure, not the run's
        group.device.finish()
        return [("output-changed-after-timing", {"detail": f"another call raised {_one_line(error)}"})]


def _verdict_for(group: Group, inputs: dict[str, Any]) -> Callable[[Any], str]:
    """What says what is wrong with outputs of these inputs."""
    flops = group.module.work(group.shape, group.dtype, group.direction).matmul_flops
    found = problems(group, inputs, flops)
    assert not isinstance(found, str)
    return lambda outputs: verdict_on(outputs, found).detail
