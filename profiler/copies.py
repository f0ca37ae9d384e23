"""Copies of inputs that rotate through a CPU's caches, so that every call meets cold data."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from ..roofline.units import si

# Rotating copies may take this share of the free memory.
MEMORY_SHARE = 0.25

Inputs = dict[str, Any]


def clone(inputs: Inputs) -> Inputs:
    """Copy every tensor of a dict of inputs; other values are shared. Strides are kept."""
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def footprint_bytes(inputs: Inputs) -> int:
    """Bytes of all tensors of a dict of inputs."""
    return sum(v.numel() * v.element_size() for v in inputs.values() if isinstance(v, torch.Tensor))


def rotations(fewest: int, each_bytes: int, last_cache_bytes: int, free_bytes: int) -> int:
    """How many sets of so many bytes exceed twice the last cache, as far as memory allows; at least `fewest`."""
    each_bytes = max(1, each_bytes)
    affordable = int(MEMORY_SHARE * free_bytes // each_bytes)
    return max(fewest, min(2 * last_cache_bytes // each_bytes + 1, affordable))


def rotating_copies(sets: list[Inputs], last_cache_bytes: int, free_bytes: int) -> list[Inputs]:
    """Extend input sets by clones until together they exceed twice the last cache, as far as memory allows."""
    more = rotations(len(sets), footprint_bytes(sets[0]), last_cache_bytes, free_bytes) - len(sets)
    return sets + [clone(original) for original in itertools.islice(itertools.cycle(sets), more)]


def shortfall(rotated_bytes: int | None, last_cache_bytes: int) -> list[tuple[str, dict[str, str]]]:
    """Doubt cold calls that rotate through less than twice the last cache; None where the cache is flushed instead."""
    if rotated_bytes is None or rotated_bytes >= 2 * last_cache_bytes:
        return []
    return [("not-cold-enough", {"rotated": si(rotated_bytes, "B"), "cache": si(last_cache_bytes, "B")})]
