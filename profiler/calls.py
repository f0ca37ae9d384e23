"""The calls of a group of cases: forward passes, gradients, and what of them is timed under which clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .clock import Subject
from .copies import rotating_copies

# Starting a kernel takes a few microseconds, under 1 % of one that runs so long.
LONG_LAUNCH_S = 1e-3


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


def derivative(run: Callable[..., Any], shape: Any, inputs: dict[str, Any], direction: str) -> Callable[[], Any]:
    """A call that computes gradients: of a graph built beforehand (`backward`), or with its forward pass (`both`)."""
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    arguments = {**inputs, **leaves}
    outputs = run(shape, **arguments)
    source = torch.Generator(device=outputs[0].device).manual_seed(0)
    # Drawn in float32, so that every dtype sees the same gradients up to rounding.
    gradients = [
        torch.randn(o.shape, generator=source, device=o.device, dtype=torch.float32).to(
            next(iter(inputs.values())).dtype
        )
        for o in outputs
    ]
    targets = list(leaves.values())

    def backward() -> tuple[torch.Tensor, ...]:
        grads = [g.to(o.dtype) for g, o in zip(gradients, outputs)]
        return torch.autograd.grad(
            outputs, targets, grads, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    def both() -> tuple[torch.Tensor, ...]:
        fresh = run(shape, **arguments)
        return torch.autograd.grad(fresh, targets, gradients, allow_unused=True, materialize_grads=True)

    return backward if direction == "backward" else both


def call_of(run: Callable[..., Any], shape: Any, inputs: dict[str, Any], direction: str) -> Callable[[], Any]:
    """The call that is checked and timed."""
    if direction == "forward":
        return lambda: run(shape, **inputs)
    return derivative(run, shape, inputs, direction)


def grad_mode(direction: str) -> Any:
    """The autograd state under which a direction is checked and timed."""
    # no_grad and not inference_mode: tensors made here are used under autograd by other rows.
    return torch.no_grad() if direction == "forward" else torch.enable_grad()


def subjects_of(group: Group, names: list[str], sets: list[dict[str, Any]], clocks: list[tuple]) -> list[Subject]:
    """All things to time: every implementation under every cache state and clock."""
    copies = sets
    if group.device.kind == "cpu" and any(cache == "cold" for cache, _ in clocks):  # a GPU's cache is flushed instead
        copies = rotating_copies(sets, group.device.last_cache_bytes(), group.device.free_memory_bytes())
    subjects = []
    for name in names:
        implementation = group.kernel.implementations[name]
        for cache, clock in clocks:
            if clock == "graph" and not _worth_a_graph(group, implementation, sets[0]):
                continue
            chosen = copies if cache == "cold" and group.direction == "forward" else sets
            calls = [call_of(implementation.run, group.shape, inputs, group.direction) for inputs in chosen]
            stopwatch = group.device.stopwatch(cache, clock)
            if clock != "graph" or _can_be_captured(group, calls, stopwatch):
                subjects.append(Subject(name, cache, clock, calls, stopwatch))
    return subjects


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
