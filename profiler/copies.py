"""Copies of inputs that keep their layout; those that rotate let every call on a CPU meet cold data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..roofline.units import si

# Rotating copies may take this share of the free memory.
MEMORY_SHARE = 0.25
# What torch and Python keep of a tensor beside its data, the record of its storage included: 0.7 KiB were seen.
OBJECT_BYTES = 1024
# Making one takes some ten microseconds for each of its tensors: so many take a second or two for each, and with half a
# kilobyte they exceed twice a cache of 32 MiB.
MOST_COPIES = 2**17

Inputs = dict[str, Any]


def clone(inputs: Inputs) -> Inputs:
    """Copy every tensor of a dict of inputs with its layout: strides, gaps, and the storage that several views share.

    Other values are shared. Gradients do not flow through the copies.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    return inputs | {name: _cloned(tensor, storages) for name, tensor in tensors.items()}


def _cloned(tensor: torch.Tensor, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    """The same view of a copy of its storage. storages : copies by the address of what they were made of."""
    if not _is_plain(tensor):
        return tensor.detach().clone()
    storage = tensor.untyped_storage()
    address = storage.data_ptr()
    if address not in storages:
        storages[address] = storage.clone()
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(storages[address], tensor.storage_offset(), tensor.size(), tensor.stride())


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is nothing but a strided view of a storage."""
    own = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    return own and not tensor.is_conj() and not tensor.is_neg()


def converted(inputs: Inputs, kind: torch.dtype | None = None) -> Inputs:
    """Copy every tensor of a dict of inputs without its gaps; those of floating-point numbers in this dtype, if any."""
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    kinds = {name: kind if kind and tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
    return inputs | {name: tensor.to(kinds[name], copy=True) for name, tensor in tensors.items()}


def distinct(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The elements that have places of their own in a tensor of these strides: the first along every expanded axis."""
    return tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)]


def footprint_bytes(inputs: Inputs) -> int:
    """Bytes that reading all tensors of a dict of inputs goes through."""
    return touched_bytes(value for value in inputs.values() if isinstance(value, torch.Tensor))


def touched_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that reading these tensors goes through: what several of them share, or one repeats, counts once."""
    views = {(_address(t), t.storage_offset(), t.shape, t.stride(), t.dtype): t for t in tensors}
    touched: dict[int, int] = {}
    for (address, *_), tensor in views.items():
        read = touched.get(address, 0) + distinct(tensor, tensor.stride()).nbytes
        touched[address] = min(read, tensor.untyped_storage().nbytes())
    return sum(touched.values())


def held_bytes(inputs: Inputs) -> int:
    """Bytes of memory that a copy of a dict of inputs takes, the gaps between its elements included."""
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    storages = {_address(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return max(sum(storages.values()), OBJECT_BYTES * max(1, len(tensors)))


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def rotations(fewest: int, each_bytes: int, held: int, last_cache_bytes: int, free_bytes: int) -> int:
    """How many sets exceed twice the last cache, as far as memory allows; at least `fewest`, at most `MOST_COPIES`.

    each_bytes : that a call goes through. held : bytes of memory that one set takes.
    """
    affordable = int(MEMORY_SHARE * free_bytes // held)
    wanted = 2 * last_cache_bytes // max(1, each_bytes) + 1
    return max(fewest, min(wanted, affordable, MOST_COPIES))


def rotating_copies(sets: list[Inputs], last_cache_bytes: int, free_bytes: int) -> list[Inputs]:
    """Extend input sets by clones until together they exceed twice the last cache, as far as memory allows."""
    each_bytes, held = footprint_bytes(sets[0]), held_bytes(sets[0])
    more = rotations(len(sets), each_bytes, held, last_cache_bytes, free_bytes) - len(sets)
    return sets + [clone(original) for original in itertools.islice(itertools.cycle(sets), more)]


def shortfall(rotated_bytes: int | None, last_cache_bytes: int) -> list[tuple[str, dict[str, str]]]:
    """Doubt cold calls that rotate through less than twice the last cache; None where the cache is flushed instead."""
    if rotated_bytes is None or rotated_bytes >= 2 * last_cache_bytes:
        return []
    return [("not-cold-enough", {"rotated": si(rotated_bytes, "B"), "cache": si(last_cache_bytes, "B")})]
