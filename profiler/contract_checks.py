"""Holds what a kernel file returns to its contract: `inputs()` to dtype, device and seed, `reference()` to tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .calls import Group
from .copies import Inputs, held_bytes
from .cuda_events import TORCH_DTYPES
from .gradients import same

# Inputs are drawn a second time where the device has room for so many sets: one, and what drawing and comparing take
# beside it, of which float32 numbers that become 16-bit ones are twice a set.
ROOM_FOR_DRAWING = 4


class ContractBroken(Exception):
    """What a function of a kernel file returned is not what its contract says. The text is for people."""


def input_sets(group: Group, count: int) -> list[Inputs]:
    """The first input sets of a group. Raises `ContractBroken` where they are not what was asked for.

    The first is drawn twice and compared, unless memory is short: every later check relies on the seed.
    """
    first = group.inputs(0)
    _hold_to_case(first, group.dtype, group.device.torch_device)
    if ROOM_FOR_DRAWING * held_bytes(first) <= group.device.free_memory_bytes():
        _hold_to_seed(first, group.inputs(0))
    return [first, *(group.inputs(index) for index in range(1, count))]


def _hold_to_case(inputs: Any, dtype: str, device: str) -> None:
    """Some floating-point tensor has the dtype and the device of the case; others may have what the kernel defines."""
    if not isinstance(inputs, dict):
        raise ContractBroken(f"inputs() returned {type(inputs).__name__}; a dict of tensors by name was expected")
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    found = {f"{tensor.dtype} on {tensor.device}" for tensor in tensors}
    wanted = f"{TORCH_DTYPES[dtype]} on {device}"
    if found and wanted not in found:
        raise ContractBroken(
            f"inputs() returned floating-point tensors of {', '.join(sorted(found))} only; {wanted} was asked for: "
            "use the dtype and the device that it is called with"
        )


def _hold_to_seed(first: Inputs, again: Inputs) -> None:
    """Two draws from one seed are equal."""
    other = [name for name, value in first.items() if name not in again or not _equal(value, again[name])]
    if other:
        raise ContractBroken(
            f"inputs() returned other values of {', '.join(other)} when it was called with the same seed again: draw "
            "them with torch.Generator(device=device).manual_seed(seed)"
        )


def _equal(value: Any, again: Any) -> bool:
    """Whether both are equal tensors; other values are not compared."""
    if not isinstance(value, torch.Tensor):
        return True
    alike = isinstance(again, torch.Tensor) and (value.shape, value.dtype) == (again.shape, again.dtype)
    return alike and same(value, again)


def held_reference(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference of a kernel file, which raises `ContractBroken` where it returns no tuple of real tensors."""

    def run(shape: Any, **inputs: Any) -> Any:
        outputs = reference(shape, **inputs)
        fault = _fault_of(outputs)
        if fault:
            raise ContractBroken(f"reference() returned {fault}; a tuple of real tensors was expected")
        return outputs

    return run


def _fault_of(outputs: Any) -> str:
    """What outputs are instead of a tuple or list of real tensors; empty where they are one."""
    if not isinstance(outputs, (tuple, list)):
        return type(outputs).__name__
    if not outputs:
        return "nothing"
    for index, output in enumerate(outputs):
        if not isinstance(output, torch.Tensor):
            return f"{type(output).__name__} as output {index}"
        if output.is_complex():
            return f"complex numbers as output {index}"
    return ""
