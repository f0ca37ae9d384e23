"""Copies of inputs that rotate through a CPU's caches, so that every call meets cold data."""

from __future__ import annotations

import itertools
from typing import Any

import torch

# Rotating copies may take this share of the free memory.
MEMORY_SHARE = 0.25

Inputs = dict[str, Any]


def clone(inputs: Inputs) -> Inputs:
    """Copy every tensor of a dict of inputs; other values are shared. Strides are kept."""
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def footprint_bytes(inputs: Inputs) -> int:
    """Bytes of all tensors of a dict of inputs."""
    return sum(v.numel() * v.element_size() for v in inputs.values() if isinstance(v, torch.Tensor))


def rotating_copies(sets: list[Inputs], last_cache_bytes: int, free_bytes: int) -> list[Inputs]:
    """Extend input sets by clones until together they exceed twice the last cache, as far as memory allows."""
    footprint = max(1, footprint_bytes(sets[0]))
    wanted = max(len(sets), 2 * last_cache_bytes // footprint + 1)
    affordable = int(MEMORY_SHARE * free_bytes // footprint)
    more = max(0, min(wanted, affordable) - len(sets))
    return sets + [clone(original) for original in itertools.islice(itertools.cycle(sets), more)]
