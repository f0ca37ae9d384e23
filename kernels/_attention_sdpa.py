"""Attention by PyTorch's scaled_dot_product_attention, one row for each of its backends, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from ._attention_lengths import blanked, check, visible
from ._torch import ELEMENT_BYTES, tf32_on_cpu

if TYPE_CHECKING:
    from .attention import Shape


def _causal_options(shape: Shape, backend: SDPBackend, device: torch.device) -> dict[str, Any]:
    """Say "causal" to PyTorch for S <= K. Its own flag is aligned at the start: beyond S = K it needs a mask."""
    if shape.S == shape.K:
        return {"is_causal": True}
    if backend == SDPBackend.FLASH_ATTENTION and device.type == "cuda":
        return {"attn_mask": causal_lower_right(shape.S, shape.K)}  # the one mask that this backend takes
    return {"attn_mask": visible(shape, device, None, None)}


def run_sdpa(backend: SDPBackend) -> Callable[..., tuple[Tensor]]:
    """Give the `run` that calls scaled_dot_product_attention with one backend and no other."""

    def run(
        shape: Shape, q: Tensor, k: Tensor, v: Tensor,
        query_lengths: Tensor | None = None, key_lengths: Tensor | None = None,
    ) -> tuple[Tensor]:  # fmt: skip
        check(shape, q, k, v, query_lengths, key_lengths)
        if not shape.B:
            return (q + (k.sum() + v.sum()),)  # empty, and a function of all three
        if backend == SDPBackend.EFFICIENT_ATTENTION and shape.G < shape.N:
            # Not every supported PyTorch lets this backend share heads: it gets copies, made inside the clock.
            k, v = (tensor.repeat_interleave(shape.N // shape.G, dim=1) for tensor in (k, v))
        with sdpa_kernel(backend):
            if query_lengths is not None and key_lengths is not None:
                return (_ragged(shape, q, k, v, query_lengths, key_lengths),)
            return (_even(shape, backend, q, k, v),)

    return run


def _even(shape: Shape, backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Leave queries that see nothing out, where a backend could give NaN; they come back as zeros."""
    blind = max(0, shape.S - shape.K) if shape.causal else 0
    options = _causal_options(replace(shape, S=shape.S - blind), backend, q.device) if shape.causal else {}
    o = F.scaled_dot_product_attention(q[:, :, blind:], k, v, enable_gqa=k.shape[1] < shape.N, **options)
    return F.pad(o, (0, 0, blind, 0)) if blind else o


def _ragged(shape: Shape, q: Tensor, k: Tensor, v: Tensor, query_lengths: Tensor, key_lengths: Tensor) -> Tensor:
    """Mask row by row. Queries that see nothing get to see everything, which no backend minds, and then zeros."""
    seen = visible(shape, q.device, query_lengths, key_lengths)
    sighted = seen.any(-1, keepdim=True)
    mask = (seen | ~sighted).expand(-1, shape.N, -1, -1)
    q = blanked(q, query_lengths)
    k, v = blanked(k, key_lengths), blanked(v, key_lengths)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=k.shape[1] < shape.N)
    return torch.where(sighted, o, 0)


def why_not_flash(shape: Any, dtype: str, device: str) -> str | None:
    """Refuse what PyTorch's flash backend does not compute."""
    if device == "cpu":
        return tf32_on_cpu(dtype, device)
    if dtype not in ("fp16", "bf16"):
        return f"PyTorch's flash backend takes fp16 and bf16 on a GPU, not {dtype}"
    if shape.P > 256:
        return f"PyTorch's flash backend takes head dimensions up to 256, not P={shape.P}"
    if shape.ragged:
        return "PyTorch's flash backend takes no mask on a GPU, and rows of different lengths need one"
    return None


def why_not_efficient(shape: Any, dtype: str, device: str) -> str | None:
    """Refuse what PyTorch's memory-efficient backend does not compute."""
    if device == "cpu":
        return "PyTorch's memory-efficient backend is for GPUs"
    if dtype == "fp64":
        return "PyTorch's memory-efficient backend takes no float64"
    if shape.P * ELEMENT_BYTES[dtype] % 16:
        return f"PyTorch's memory-efficient backend needs heads of a multiple of 16 bytes, not P={shape.P} in {dtype}"
    return None


def why_not_cudnn_heads(P: int, dtype: str, device: str) -> str | None:
    """Refuse the heads that PyTorch does not hand to cuDNN."""
    if device == "cpu":
        return "cuDNN is a library for GPUs"
    if dtype not in ("fp16", "bf16"):
        return f"cuDNN's attention takes fp16 and bf16, not {dtype}"
    if P % 8 or P > 128:
        return f"cuDNN's attention is sure to take head dimensions that are multiples of 8 up to 128, not P={P}"
    return None


def why_not_cudnn(shape: Shape, dtype: str, device: str) -> str | None:
    """Refuse what PyTorch does not hand to cuDNN."""
    if refused := why_not_cudnn_heads(shape.P, dtype, device):
        return refused
    if shape.K == 1 or shape.S == 1:
        return "cuDNN's attention needs more than one query and one key"
    return None
