"""The calls of a group of cases: forward passes, gradients, and what of them is timed under which clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch

from .clock import Subject
from .copies import footprint_bytes, held_bytes, rotating_copies, rotations
from .gradients import Derivative, Operands

# Starting a kernel takes a few microseconds, under 1 % of one that runs so long.
LONG_LAUNCH_S = 1e-3
# Every graph to rotate through costs a forward pass; those of one implementation may take so long in all.
BUILDING_S = 2.0


@dataclass
class Group:
    """A group of cases ready to run."""

    device: Any
    kernel: Any
    shape: Any
    dtype: str
    direction: str
    seed: int

    @property
    def module(self) -> Any:
        """The kernel's module."""
        return self.kernel.module

    def inputs(self, index: int) -> dict[str, Any]:
        """The input set number `index` of this group's seed."""
        return self.module.inputs(self.shape, self.dtype, self.device.torch_device, self.seed + index)


def call_of(
    run: Callable[..., Any], shape: Any, inputs: dict[str, Any], direction: str, seed: int = 0
) -> Callable[[], Any]:
    """The call that is checked and timed. seed : of the incoming gradients, where it computes gradients."""
    if direction == "forward":
        return lambda: run(shape, **inputs)
    return Derivative(run, shape, inputs, direction, seed)


def operands_of(call: Callable[[], Any], inputs: dict[str, Any]) -> Operands:
    """What a call of `call_of` reads; inputs : those that it was made with."""
    return call.operands if isinstance(call, Derivative) else Operands(inputs)


def grad_mode(direction: str) -> Any:
    """The autograd state under which a direction is checked and timed."""
    # no_grad and not inference_mode: tensors made here are used under autograd by other rows.
    return torch.no_grad() if direction == "forward" else torch.enable_grad()


def subjects_of(
    group: Group,
    names: list[str],
    sets: list[dict[str, Any]],
    clocks: list[tuple],
    on_name: Callable[[str], object] = lambda name: None,
) -> list[Subject]:
    """All things to time: every implementation under every cache state and clock. on_name : told whose are made."""
    rotate = group.device.kind == "cpu" and any(cache == "cold" for cache, _ in clocks)  # a GPU's cache is flushed
    copies = sets
    if rotate and group.direction == "forward":
        copies = rotating_copies(sets, group.device.last_cache_bytes(), group.device.free_memory_bytes())
    subjects = []
    for name in names:
        on_name(name)
        implementation = group.kernel.implementations[name]
        calls = [call_of(implementation.run, group.shape, inputs, group.direction) for inputs in copies]
        each, first = footprint_bytes(sets[0]), calls[0]
        if rotate and isinstance(first, Derivative):
            each = first.rotated_bytes()
            calls += _more_derivatives(group, implementation.run, sets, each, len(names))
        for cache, clock in clocks:
            if clock == "graph" and not _worth_a_graph(group, implementation, sets[0]):
                continue
            chosen = calls if cache == "cold" else calls[: len(sets)]
            stopwatch = group.device.stopwatch(cache, clock)
            if clock != "graph" or _can_be_captured(group, chosen, stopwatch):
                rotated = each * len(chosen) if rotate and cache == "cold" else None
                subjects.append(Subject(name, cache, clock, chosen, stopwatch, rotated_bytes=rotated))
    return subjects


def _more_derivatives(
    group: Group, run: Callable[..., Any], sets: list[dict[str, Any]], each_bytes: int, shares: int
) -> list[Callable[[], Any]]:
    """Calls beside those of the sets, until all exceed twice the last cache, as far as memory and time allow.

    each_bytes : of one. shares : implementations that the memory is for.
    """
    free = group.device.free_memory_bytes() // shares
    held = each_bytes + held_bytes(sets[0]) - footprint_bytes(sets[0])
    wanted = rotations(len(sets), each_bytes, held, group.device.last_cache_bytes(), free) - len(sets)
    more: list[Callable[[], Any]] = []
    deadline = monotonic() + BUILDING_S
    while len(more) < wanted and monotonic() < deadline:
        more.append(call_of(run, group.shape, sets[len(more) % len(sets)], group.direction))
    return more


def _worth_a_graph(group: Group, implementation: Any, inputs: dict[str, Any]) -> bool:
    """Whether replaying a graph tells more than events.

    Not for what is a graph already; not for long launches, which leave a trifle to save and the graph's own memory to
    pay; and not for gradients of a graph built beforehand, which autograd computes on the stream of the forward pass.
    """
    case = (group.shape, group.dtype, group.device.kind)
    if group.direction == "backward" or implementation.chain_for(*case) == "graph":
        return False
    call = call_of(implementation.run, group.shape, inputs, group.direction)
    stopwatch = group.device.stopwatch("warm", "host")
    launches = max(1, implementation.launches_for(*case))
    return min(stopwatch.sample([call], 0, 1)[0] for _ in range(2)) < LONG_LAUNCH_S * launches


def _can_be_captured(group: Group, calls: list[Callable[[], Any]], stopwatch: Any) -> bool:
    """Whether a call goes into a graph; one that waits for the device in its midst does not."""
    try:
        stopwatch.sample(calls, 0, 1)
    except RuntimeError:
        group.device.finish()
        return False
    return True
