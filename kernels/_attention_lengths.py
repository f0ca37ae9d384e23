"""Attention over rows of different lengths: how many queries and keys a row of the batch has, and who sees whom.

Letters as in `attention`. Row b has query_lengths[b] queries and key_lengths[b] keys, the first ones of its S and K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._torch import check_agreement, check_place, spread_lengths

if TYPE_CHECKING:
    from .attention import Shape

Lengths = tuple[int, ...]


def lengths_of(shape: Shape) -> tuple[Lengths, Lengths]:
    """Queries and keys of every row: S and K, or, when ragged, evenly from S down to S/B and from K down to K/B.

    The orders are fixed and not sorted. Where S = K a row has as many keys as queries; elsewhere the orders differ, so
    that some rows have few keys for many queries.
    """
    if not shape.ragged:
        return (shape.S,) * shape.B, (shape.K,) * shape.B
    return spread_lengths(shape.S, shape.B), spread_lengths(shape.K, shape.B, 1 if shape.S == shape.K else 2)


def padding_waste(shape: Shape) -> float:
    """Share of the B (S + K) positions of queries and keys that lie after the end of their row, 0 without padding."""
    positions = shape.B * (shape.S + shape.K)
    return 1 - sum(map(sum, lengths_of(shape))) / positions if positions else 0.0


def check(shape: Shape, q: Tensor, k: Tensor, v: Tensor, query_lengths: Tensor | None, key_lengths: Tensor | None):
    """Refuse tensors that do not fit the shape; raises ValueError.

    Lengths are looked at on the CPU only, for elsewhere that would stop the queue, and not while torch.compile traces.
    """
    keys = (shape.B, shape.G, shape.K, shape.P)
    sizes = (("q", q, (shape.B, shape.N, shape.S, shape.P)), ("k", k, keys), ("v", v, keys))
    for name, tensor, size in sizes:
        if tuple(tensor.shape) != size:
            raise ValueError(f"{name} has the size {tuple(tensor.shape)}; {size} was expected for {shape}.")
    check_agreement({"q": q, "k": k, "v": v}, "q")
    for name, lengths, longest, letter in (
        ("query_lengths", query_lengths, shape.S, "S"),
        ("key_lengths", key_lengths, shape.K, "K"),
    ):
        if (lengths is not None) != bool(shape.ragged):
            raise ValueError(f"{name} is {'missing' if lengths is None else 'given'}, but ragged is {shape.ragged}.")
        if lengths is not None:
            check_place(name, lengths, "q", q)
            _check_lengths(name, lengths, shape.B, longest, letter)


def _check_lengths(name: str, lengths: Tensor, rows: int, longest: int, letter: str) -> None:
    if tuple(lengths.shape) != (rows,) or lengths.dtype != torch.int64:
        raise ValueError(f"{name} is {lengths.dtype} {tuple(lengths.shape)}; torch.int64 ({rows},) was expected.")
    if torch.compiler.is_compiling() or lengths.device.type != "cpu" or not rows:
        return
    if not bool(((lengths >= 1) & (lengths <= longest)).all()):
        raise ValueError(f"{name} must lie between 1 and {letter}={longest}; found {lengths.min()} to {lengths.max()}.")


def visible(shape: Shape, device: torch.device, query_lengths: Tensor | None, key_lengths: Tensor | None) -> Tensor:
    """Mark the keys that each query sees: bool (S, K), or (B, 1, S, K) with lengths."""
    query = torch.arange(shape.S, device=device)[:, None]
    key = torch.arange(shape.K, device=device)
    if query_lengths is None or key_lengths is None:
        return key <= query + (shape.K - shape.S if shape.causal else shape.K)
    queries, keys = (lengths[:, None, None, None] for lengths in (query_lengths, key_lengths))
    seen = (query < queries) & (key < keys)
    return seen & (key <= query + keys - queries) if shape.causal else seen


def blanked(tensor: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros after the end of every row (B, heads, rows, P): it must not reach a gradient as 0 times infinity."""
    if lengths is None:
        return tensor
    inside = torch.arange(tensor.shape[2], device=tensor.device) < lengths[:, None]
    return torch.where(inside[:, None, :, None], tensor, 0)
