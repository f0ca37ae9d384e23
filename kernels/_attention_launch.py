"""Runs the Triton kernels of attention: one launch forward, two backward, as a function of PyTorch's autograd.

The forward pass leaves o and one logarithm per query; the scores are computed again backward. The gradient of the
queries comes first, for it leaves the sums of do times o that the gradients of keys and values need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import _attention_tiles as tiles
from ._attention_tiles import Kernel
from ._torch import dtype_of, once_differentiable
from ._triton import interpreted, tensor_descriptor, triton

if TYPE_CHECKING:
    from .attention import Shape


# Numbers that all kernels take after the scale, in their order.
SIZES = ("S", "K", "P", "N", "heads_per_group", "causal", "ragged")


@dataclass(frozen=True)
class _Rows:
    """How many queries and keys every row of the batch has: two tensors (B,), or two empty ones that nobody reads."""

    queries: Tensor
    keys: Tensor


def attention(shape: Shape, q: Tensor, k: Tensor, v: Tensor, query_lengths: Any, key_lengths: Any) -> tuple[Tensor]:
    """Launch the fused kernel, differentiably. All axes but the last may have any stride; otherwise a copy is made."""
    nothing = q.new_empty(0, dtype=torch.int64)
    rows = _Rows(*(nothing if lengths is None else lengths.contiguous() for lengths in (query_lengths, key_lengths)))
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
    return (_Attention.apply(shape, rows, keep, q, k, v),)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    """o (B, N, S, P) of q, k and v; `keep`: gradients are wanted."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, rows: _Rows, keep: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = map(_dense_heads, (q, k, v))
        o = torch.empty((shape.B, shape.N, shape.S, shape.P), dtype=q.dtype, device=q.device)
        logarithms = _per_query(shape if keep else None, q)
        _launch(tiles.FORWARD, shape, rows, (q, k, v), (o, logarithms), keep)
        if keep:
            ctx.save_for_backward(q, k, v, o, logarithms, rows.queries, rows.keys)
            ctx.shape = shape
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, logarithms, *lengths = ctx.saved_tensors
        rows = _Rows(*lengths)
        do = _dense_heads(grad_outputs[0])
        # Dense whatever the strides of q, k and v: that is how the kernels write.
        dq, dk, dv = (torch.empty(tensor.shape, dtype=q.dtype, device=q.device) for tensor in (q, k, v))
        sums = torch.empty_like(logarithms)
        loaded = (q, k, v, do)
        _launch(tiles.QUERIES, ctx.shape, rows, loaded, (o, dq, logarithms, sums))
        _launch(tiles.KEYS, ctx.shape, rows, loaded, (dk, dv, logarithms, sums))
        return None, None, None, dq, dk, dv


def _dense_heads(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _per_query(shape: Shape | None, like: Tensor) -> Tensor:
    """Room for one number per query, or for none, in the type of the sums."""
    size = (shape.B, shape.N, shape.S) if shape else (0,)
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(size, dtype=kind, device=like.device)


def _launch(
    kernel: Kernel, shape: Shape, rows: _Rows, loaded: tuple[Tensor, ...], others: tuple[Tensor, ...], *flags: bool
) -> None:
    """Start a kernel: loaded tensors (batch, head, row, column), the others dense, and the numbers that are its own."""
    q = loaded[0]
    dtype, width = dtype_of(q), tiles.width_of(shape.P)
    strides = [stride for tensor in loaded for stride in tensor.stride()[:3]]
    addresses = [tensor.data_ptr() for tensor in (*loaded, *others)]
    layout = tiles.layout_of(dtype, shape.P, shape.ragged, strides, addresses, tiles.capability_of(q.device))
    tile = tiles.tile_of(kernel, dtype, width, layout)
    operands: list[Any] = list(loaded)
    if layout.startswith("descriptor"):
        operands = [
            tensor_descriptor(tensor, tiles.block_of(tile, axis, width))
            for tensor, axis in zip(loaded, kernel.loaded.values(), strict=True)
        ]
    if kernel is tiles.KEYS:
        programs = triton.cdiv(shape.K, tile.keys) * shape.B * shape.G
    else:
        programs = triton.cdiv(shape.S, tile.queries) * shape.B * shape.N
    kernel.program(layout)[(programs,)](
        *operands, *others, rows.queries, rows.keys,
        math.log2(math.e) / math.sqrt(shape.P),
        shape.S, shape.K, shape.P, shape.N, shape.N // shape.G, shape.causal, shape.ragged, *map(int, flags),
        *strides,
        **tiles.constants(kernel, dtype, width, layout, interpreted()),
        **tile.options(),
    )  # fmt: skip
