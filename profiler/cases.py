"""Runs one group of cases in the worker: inputs, correctness, then interleaved timing.

Every implementation is checked before any is timed. `emit(event, **data)` tells the parent what is going on, so that it
knows whom to blame when this process dies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..roofline.diagnoses import warn
from ..roofline.record import Correctness, Timing
from . import guard
from .afterthoughts import time_parts, watch_device
from .attribution import attribute
from .calls import Group, grad_mode, subjects_of
from .clock import Subject, measure
from .contract_checks import ContractBroken, input_sets
from .copies import shortfall
from .energy import energies
from .host import usable_cores
from .recheck import Doubt, Recheck
from .second_clock import Waiting, reading_of
from .settings import SETTINGS
from .stages import REFERENCE
from .truths import announcing, checked, problems, verdict_on
from .watch import Watch
from .witness import bear_witness

# What PyTorch says when a backend does not take a case: a refusal, no failure.
REFUSALS = ("No available kernel", "No viable backend")

Emit = Callable[..., None]

# Distinct random input sets per case; cold copies beyond them are clones of these.
INPUT_SETS = 3


def run_group(
    group: Group,
    names: list[str],
    flops: float,
    options: dict[str, Any],
    emit: Emit,
    replaced: list[str] | None = None,
    chosen: list[str] | None = None,
) -> None:
    """Check and time a group; emits a `point` event for each implementation, cache state and clock.

    options : `time` (False to check only), `budget_s`, `rounds`, `clocks` (pairs of cache state and clock).
    replaced : parts of the measurement that the kernel file replaced when it was loaded; then nothing of it is run.
    chosen : settings of the process that it changed then; they were put back, and every time says so.
    """
    if replaced:
        for name in names:
            _distrust(emit, name, replaced)
        return
    begin_settings(group)
    emit("begin", implementation="", stage=REFERENCE)
    step = "inputs()"
    try:
        sets = input_sets(group, INPUT_SETS if options["time"] else 1)
        step = "the float64 reference"
        with grad_mode(group.direction):
            found = problems(group, sets[0], flops, emit)
    except Exception as error:  # without inputs or truth nobody can be checked, and it is nobody's fault but theirs
        group.device.finish()
        _fail_all(emit, names, error, step)
        return
    passed = [name for name in names if _check_one(group, name, sets[0], found, emit)]
    if options["time"] and passed:
        with grad_mode(group.direction):
            _time_all(group, passed, sets, found, options | {"doubts": settings_doubt(chosen or [])}, emit)
    group.device.release_memory()


def begin_settings(group: Group) -> None:
    """Put back what code of an earlier group may have left behind, and choose the precision of this one."""
    SETTINGS.changed()
    group.device.allow_tf32(group.dtype == "tf32")
    SETTINGS.remember()


def replaced_now() -> list[str]:
    """What of the measurement, and of the settings of the process, has been changed; all of it is put back."""
    return guard.GUARD.replaced() + SETTINGS.changed()


def _check_one(group: Group, name: str, inputs: dict[str, Any], found: Any, emit: Emit) -> bool:
    emit("begin", implementation=name, stage="check")
    try:
        result = checked(group, name, inputs, found)
        replaced = replaced_now()
    except Exception as error:  # whatever an implementation raises is its own failure, not the run's
        replaced_now()
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


def _fail_all(emit: Emit, names: list[str], error: Exception, step: str) -> None:
    """What none of them can be checked without has raised, or has not returned what was asked of it."""
    reason = str(error) if isinstance(error, ContractBroken) else f"{step} raised {_one_line(error)}"
    for name in names:
        _fail(emit, name, _status_of(error), reason)


def _distrust(emit: Emit, name: str, replaced: list[str]) -> None:
    """Refuse to time what replaces parts of the measurement."""
    doubt = replaced_doubt(replaced)
    reason = warn(doubt[0], **doubt[1]).cause
    emit("failed", implementation=name, status="invalid", reason=reason, correctness=None, doubts=[doubt])


def replaced_doubt(replaced: list[str]) -> Doubt:
    """The entry of the closed list for parts of the measurement that were replaced."""
    return "measuring-code-replaced", {"names": guard.in_words(replaced)}


def settings_doubt(chosen: list[str]) -> list[Doubt]:
    """The entry of the closed list for settings that a kernel file changed when it was loaded."""
    return [("settings-changed", {"names": guard.in_words(chosen)})] if chosen else []


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
    """Time what passed, look at it again, and tell the times; none where nothing could be held against them."""
    emit("begin", implementation="", stage="time")
    # Graphs are built and captured here, which calls the kernels: whoever brings the worker down must be known.
    subjects = subjects_of(
        group, names, sets, options["clocks"], lambda name: emit("begin", implementation=name, stage="prepare")
    )
    waiting = Waiting(usable_cores())
    watch = Watch(group.device.sensors)
    timings = _in_turn(group, subjects, options, watch, emit)
    waiting_share = waiting.share()
    host = {
        subject.name: timings[index]
        for index, subject in enumerate(subjects)
        if (subject.cache, subject.clock) == ("warm", "host") and group.device.kind == "cuda"
    }
    replaced = replaced_now()
    doubts = _looked_at_again(group, [(s, timings[index]) for index, s in enumerate(subjects)], sets[0], found, emit)
    if doubts is None:
        return
    for index, subject in enumerate(subjects):
        timing = timings[index]
        emit("begin", implementation=subject.name, stage=f"memory {subject.cache} {subject.clock}")
        own = [replaced_doubt(replaced)] if replaced else doubts[subject.name]
        emit(
            "point",
            implementation=subject.name,
            cache=subject.cache,
            clock=subject.clock,
            time_s=timing.model_dump(),
            host_s=host[subject.name].model_dump() if subject.name in host and subject.clock == "events" else None,
            second_clock=reading_of(subject.account, timing.median, waiting_share),
            peak_memory_bytes=group.device.peak_memory(subject.calls[0]),
            doubts=own + shortfall(subject.rotated_bytes, group.device.last_cache_bytes()) + options["doubts"],
            telemetry=watch.telemetry(index).model_dump(),
        )
    time_parts(group, names, sets[0], options, emit)
    attribute(group, subjects, options, emit)
    watch_device(group, names, sets[0], options, emit)
    energies(group.device, subjects, options, emit)


def _in_turn(
    group: Group, subjects: list[Subject], options: dict[str, Any], watch: Watch, emit: Emit
) -> dict[int, Timing]:
    """Times of all subjects; tells whose turn it is where calls are slow, so that nobody takes them for hung."""
    telling = {id(s): announcing(emit, f"prepare {s.cache} {s.clock}") for s in subjects}
    turning = announcing(emit, "time")

    def after_slice(index: int) -> None:
        watch.look(index)
        turning("")

    return measure(
        subjects,
        options["budget_s"],
        options["rounds"],
        group.seed,
        on_prepare=lambda subject: telling[id(subject)](subject.name),
        on_slice=after_slice,
    )


def _looked_at_again(
    group: Group, timed: list[tuple[Subject, Timing]], inputs: dict[str, Any], found: Any, emit: Emit
) -> dict[str, list[Doubt]] | None:
    """Doubts about every implementation that was timed: its results on new data, and what its clock says.

    None where the reference of the new data failed; then all of them were told to have failed.
    """
    doubts: dict[str, list[Doubt]] = {subject.name: [] for subject, _ in timed}
    again = announcing(emit, "check again")
    current = [""]
    recheck = None if isinstance(found, str) else Recheck(group, inputs, lambda: again(current[0]))
    for name in doubts:
        current[0] = name
        emit("begin", implementation=name, stage="check again")
        own = [(subject, timing) for subject, timing in timed if subject.name == name]
        if recheck is not None:
            doubts[name] = _look(group, recheck, name, own, found)
        for subject, timing in own:
            if (subject.cache, subject.clock) == ("warm", "host"):
                bear_witness(subject, timing.median, emit)
    if recheck is not None:
        emit("begin", implementation="", stage=f"{REFERENCE}, again")
        try:
            settled = recheck.settle(partial(_verdict_for, group))
        except Exception as error:  # it was right the first time, so this is most likely a lack of memory
            group.device.finish()
            _fail_all(emit, list(doubts), error, "the float64 reference of new data, after the timing,")
            return None
        for name, more in settled.items():
            doubts[name] = doubts[name] or more
    replaced = replaced_now()
    return {name: [replaced_doubt(replaced)] for name in doubts} if replaced else doubts


def _look(group: Group, recheck: Recheck, name: str, timed: list[tuple[Subject, Timing]], found: Any) -> list[Doubt]:
    try:
        return recheck.look(name, timed, lambda outputs: verdict_on(outputs, found).detail)
    except Exception as error:  # whatever an implementation raises is its own failure, not the run's
        group.device.finish()
        return [("output-changed-after-timing", {"detail": f"another call raised {_one_line(error)}"})]


def _verdict_for(group: Group, inputs: dict[str, Any], seed: int) -> Callable[[Any], str]:
    """What says what is wrong with outputs of these inputs; seed : of incoming gradients."""
    flops = group.module.work(group.shape, group.dtype, group.direction).matmul_flops
    found = problems(group, inputs, flops, seed=seed)
    assert not isinstance(found, str)
    return lambda outputs: verdict_on(outputs, found).detail
