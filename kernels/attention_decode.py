"""o_n = sum_j softmax_j(q_n . k_j / sqrt(P)) v_j, one query per sequence against a cache of K keys

Attention while a sequence is continued step by step: the keys and values of all earlier steps lie in a cache, and one
new query looks at all of them. Every key is used for the few queries that share it, so the cache is read at the speed
of the memory.

B sequences, N query heads, G key/value heads (N is a multiple of G; query head n reads key/value head n // (N/G)),
K keys, P head dimension.
q (B, N, P), k (B, G, K, P), v (B, G, K, P) -> o (B, N, P).
ragged=1: lengths (B,) int64, from 1 to K, says how many keys of each sequence are valid; the others are never read.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017; shared heads: Ainslie et al., GQA, EMNLP 2023. The
Triton kernels split the keys and merge: Dao et al., Flash-Decoding for long-context inference, 2023.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work
from . import _attention_decode_triton as launching
from ._attention_cost import backward_operations, forward_operations, recomputed
from ._attention_sdpa import why_not_cudnn_heads, why_not_efficient, why_not_flash
from ._cost import operations, traffic
from ._torch import (
    ELEMENT_BYTES,
    check_tensors,
    generator,
    normal,
    run_compiled,
    spread_lengths,
    tf32_on_cpu,
    why_no_compiler,
    why_slow,
)
from ._triton import why_no_triton


@dataclass(frozen=True)
class Shape:
    """Sizes of one call. G=0 stands for G=N; ragged=1: sequences have the lengths of `lengths_of`."""

    B: int
    N: int
    K: int
    P: int
    G: int = 0
    ragged: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "G", self.G or self.N)
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("N", "K", "P", "G"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.ragged not in (0, 1):
            raise ValueError(f"ragged must be 0 or 1, not {self.ragged}")
        if self.N % self.G:
            raise ValueError(f"N must be a multiple of G, so that heads can share keys; {self.N} is none of {self.G}")


SHAPES = {
    "quick": [
        Shape(2, 8, 2048, 64),
        Shape(3, 6, 1031, 80, G=2, ragged=1),
    ],
    "standard": [
        *(Shape(1, 8, K, 128) for K in (1024, 4096, 8192)),
        Shape(1, 8, 8192, 64),
        *(Shape(B, 16, 4096, 128, G=2) for B in (1, 4, 8)),
        Shape(8, 8, 4096, 128, G=1, ragged=1),
    ],
    # 8k to 128k keys; then groups of 1 to 16 queries, batches, and every head dimension.
    "full": [
        *(Shape(B, 8, K, P) for B in (1, 8) for P in (64, 128) for K in (8192, 16384, 32768, 65536, 131072)),
        *(Shape(B, 64, K, 128, G=8) for B in (1, 8) for K in (8192, 32768, 131072)),
        *(Shape(4, 16, 32768, 128, G=16 // shared) for shared in (1, 2, 4, 8, 16)),
        *(Shape(B, 32, 8192, 128, G=8, ragged=r) for B in (1, 2, 4, 16, 32, 64, 128) for r in (0, 1)),
        *(Shape(8, 16, 16384, P, G=4) for P in (32, 64, 80, 96, 128, 256)),
    ],
}
# Each extreme once: one key, more keys than tiles, every head dimension, groups, and sequences of different lengths.
ODD = [
    Shape(1, 1, 1, 32),
    Shape(2, 6, 1031, 64, G=2),
    Shape(3, 4, 77, 80, G=1, ragged=1),
    Shape(1, 5, 130, 128),
    Shape(2, 3, 65, 256, G=3, ragged=1),
    Shape(1, 16, 40, 33, G=1),
]
ODD_LONG = [
    Shape(B, N, K, P, G=G, ragged=ragged)
    for B, N, G in ((1, 1, 1), (3, 6, 2), (2, 16, 1))
    for K in (1, 2, 63, 64, 65, 257, 1031)
    for P in (17, 32, 64, 80, 128, 256)
    for ragged in (0, 1)
]


def lengths_of(shape: Shape) -> tuple[int, ...]:
    """Keys of every sequence: K for all, or, if ragged, evenly from K down to K/B in an order that is not sorted."""
    return spread_lengths(shape.K, shape.B) if shape.ragged else (shape.K,) * shape.B


def padding_waste(shape: Shape) -> float:
    """Share of the B K keys that lie after the end of their sequence, 0 without padding."""
    keys = shape.B * shape.K
    return 1 - sum(lengths_of(shape)) / keys if keys else 0.0


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Size of every input tensor by name, in the order of the docstring."""
    cache = (shape.B, shape.G, shape.K, shape.P)
    sizes = {"q": (shape.B, shape.N, shape.P), "k": cache, "v": cache}
    return sizes | ({"lengths": (shape.B,)} if shape.ragged else {})


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw query, keys and values from the normal distribution: the scores then have variance 1."""
    source = generator(device, seed)
    drawn = {name: normal(size, dtype, device, source) for name, size in sizes_of(shape).items() if name != "lengths"}
    if shape.ragged:
        drawn["lengths"] = torch.tensor(lengths_of(shape), dtype=torch.int64, device=device)
    return drawn


def check(shape: Shape, tensors: dict[str, Any]) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError.

    Lengths are looked at on the CPU only, for elsewhere that would stop the queue, and not while torch.compile traces.
    """
    check_tensors(shape, tensors, sizes_of(shape))
    if not shape.ragged:
        return
    lengths = tensors["lengths"]
    if lengths.dtype != torch.int64:
        raise ValueError(f"lengths has the dtype {lengths.dtype}; torch.int64 was expected.")
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return
    if not bool(((lengths >= 1) & (lengths <= shape.K)).all()):
        raise ValueError(
            f"lengths must lie between 1 and K={shape.K}, the size of the cache; "
            f"found {lengths.min()} to {lengths.max()}."
        )


def _valid(shape: Shape, lengths: Tensor) -> Tensor:
    """Mark the keys of each sequence that are not padding: bool (B, 1, 1, K)."""
    return (torch.arange(shape.K, device=lengths.device) < lengths[:, None])[:, None, None]


def reference(shape: Shape, q, k, v, lengths=None) -> tuple[Tensor]:
    """Compute attention in plain PyTorch with all scores in memory, in the dtype of the tensors; returns o."""
    check(shape, {"q": q, "k": k, "v": v, "lengths": lengths})
    rows = q.reshape(shape.B, shape.G, shape.N // shape.G, shape.P)
    if lengths is None:
        scores = rows @ k.transpose(-1, -2) / math.sqrt(shape.P)
    else:
        valid = _valid(shape, lengths)
        # What is not valid must not reach a result or gradient, not even as 0 times infinity.
        k, v = (torch.where(valid.transpose(-1, -2), tensor, 0) for tensor in (k, v))
        scores = (rows @ k.transpose(-1, -2) / math.sqrt(shape.P)).masked_fill(~valid, -math.inf)
    return ((scores.softmax(-1) @ v).reshape(shape.B, shape.N, shape.P),)


def spot(shape: Shape, tensors: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick a random key/value head of a random sequence, and the last one of the last: each is a problem of its own.

    Returns shape and inputs of each, what to take out of the outputs of the whole problem, and out of the part's.
    """
    source = generator("cpu", seed)
    sequence, group = (int(torch.randint(size, (), generator=source)) for size in (shape.B, shape.G))
    return [_group_of(shape, tensors, *place) for place in ((sequence, group), (shape.B - 1, shape.G - 1))]


def _group_of(shape: Shape, tensors: dict[str, Tensor], sequence: int, group: int) -> Any:
    shared = shape.N // shape.G
    one, heads = slice(sequence, sequence + 1), slice(group * shared, (group + 1) * shared)
    part = {"q": tensors["q"][one, heads], **{name: tensors[name][one, group : group + 1] for name in ("k", "v")}}
    if shape.ragged:
        part["lengths"] = tensors["lengths"][one]
    smaller = replace(shape, B=1, N=shared, G=1)
    return smaller, part, lambda outputs: (outputs[0][one, heads],), lambda outputs: outputs


def _operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    pairs, queries = shape.N * sum(lengths_of(shape)), shape.B * shape.N * shape.P
    counted = forward_operations(pairs, queries, shape.P), backward_operations(pairs, queries, shape.P)
    return operations(direction, *counted)


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    queries = element_bytes * shape.B * shape.N * shape.P
    row = element_bytes * shape.G * shape.P
    read, whole = row * sum(lengths_of(shape)), row * shape.B * shape.K
    sizes = {"q": queries, "k": read, "v": read, "o": queries, "do": queries, "dq": queries, "dk": whole, "dv": whole}
    # One logarithm of a sum per query, never in less than float32; lengths are int64.
    return sizes | {"logarithms": max(element_bytes, 4) * shape.B * shape.N, "lengths": 8 * shape.B}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients (with the scores recomputed), or of both.

    Only valid keys are read and count; gradients of the others are zeros, which must be written. The merging of splits
    is a matter of the implementation and not counted. Beside its inputs and o the backward pass has the logarithm of
    every query's sum (`saved_bytes`).
    """
    sizes = _bytes_by_tensor(shape, ELEMENT_BYTES[dtype])
    given = ("q", "k", "v", *["lengths"] * shape.ragged)
    gradients = ("dq", "dk", "dv")
    moved = {
        "forward": (given, ("o",)),
        "backward": ((*given, "o", "logarithms", "do"), gradients),
        "both": ((*given, "do"), ("o", *gradients)),
    }
    return Work(
        terms=(
            *_operations(shape, direction),
            *traffic(
                moved,
                sizes,
                direction,
                "logarithms",
                "and writes the logarithms for the backward pass",
                "which reads q, k, v and o again",
            ),
        ),
        saved_bytes=sizes["logarithms"],
        **recomputed(shape.N * sum(lengths_of(shape)), shape.P, direction),
        tokens=shape.B,
    )


def _run_sdpa(backend: SDPBackend) -> Callable[..., tuple[Tensor]]:
    """Give the `run` that calls scaled_dot_product_attention with one backend and no other.

    The queries that share a key are given as further queries of one head, so that no backend copies or re-reads keys.
    """

    def run(shape: Shape, q, k, v, lengths=None) -> tuple[Tensor]:
        check(shape, {"q": q, "k": k, "v": v, "lengths": lengths})
        if not shape.B:
            return (q + (k.sum() + v.sum()),)
        rows = q.reshape(shape.B, shape.G, shape.N // shape.G, shape.P)
        if lengths is None:
            mask = None
        else:
            mask = _valid(shape, lengths).expand(-1, -1, rows.shape[2], -1)
        with sdpa_kernel(backend):
            o = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask)
        return (o.reshape(shape.B, shape.N, shape.P),)

    return run


def _why_not_plain(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_plain(shape, dtype, device)


def _why_not_cudnn(shape: Shape, dtype: str, device: str) -> str | None:
    if refused := why_not_cudnn_heads(shape.P, dtype, device):
        return refused
    if shape.K == 1 or shape.N == shape.G:
        return "cuDNN's attention needs more than one query for a key and more than one key"
    return "cuDNN's attention is called without lengths here" if shape.ragged else None


def _run_triton(shape: Shape, q, k, v, lengths=None, splits: int | None = None) -> tuple[Tensor]:
    """Launch the Triton kernels. splits : parts into which the keys are cut; chosen for the GPU unless given."""
    check(shape, {"q": q, "k": k, "v": v, "lengths": lengths})
    if not shape.B:
        return (q + (k.sum() + v.sum()),)
    return (launching.decode(shape, q, k, v, lengths, splits),)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64":
        return "the Triton kernels accumulate in float32; float64 is for the reference"
    return launching.why_not_shape(shape) or why_no_triton(device) or tf32_on_cpu(dtype, device)


def _run_flash_attn(shape: Shape, q, k, v, lengths=None) -> tuple[Tensor]:
    """Call flash_attn_with_kvcache, which has steps before heads: (B, 1, N, P) and (B, K, G, P), here as views."""
    check(shape, {"q": q, "k": k, "v": v, "lengths": lengths})
    package = importlib.import_module("flash_attn")
    lengths = None if lengths is None else lengths.to(torch.int32)
    o = package.flash_attn_with_kvcache(q[:, None], k.transpose(1, 2), v.transpose(1, 2), cache_seqlens=lengths)
    return (o[:, 0],)


def _why_not_flash_attn(shape: Shape, dtype: str, device: str) -> str | None:
    if device == "cpu":
        return "flash-attn's kernels need an NVIDIA GPU"
    if dtype not in ("fp16", "bf16"):
        return f"flash-attn takes fp16 and bf16, not {dtype}"
    if shape.P % 8 or shape.P > 256:
        return f"flash-attn takes head dimensions that are multiples of 8 up to 256, not P={shape.P}"
    return None if shape.B else "flash-attn was not written for empty batches"


# Launches as far as known; the reference: the scale and the product, the softmax, the average; with lengths also the
# mask, two fills of the cache, and one of the scores.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: 9 if shape.ragged else 4,
        supports=_why_not_plain,
        grad=True,
    ),
    "torch.math": Implementation(_run_sdpa(SDPBackend.MATH), launches=5, supports=_why_not_plain, grad=True),
    "torch.flash": Implementation(_run_sdpa(SDPBackend.FLASH_ATTENTION), supports=why_not_flash, grad=True),
    "torch.efficient": Implementation(
        _run_sdpa(SDPBackend.EFFICIENT_ATTENTION),
        launches=lambda shape, dtype, device: 3 if shape.ragged else 1,
        supports=why_not_efficient,
        grad=True,
    ),
    "torch.cudnn": Implementation(_run_sdpa(SDPBackend.CUDNN_ATTENTION), supports=_why_not_cudnn, grad=True),
    "compile": Implementation(run_compiled(reference), launches=4, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, launches=2, supports=_why_not_triton, grad=True),
}
# Not a dependency, and not run here: the call is written for flash-attn 2.8.
if importlib.util.find_spec("flash_attn"):
    IMPLEMENTATIONS["flash_attn"] = Implementation(_run_flash_attn, launches=2, supports=_why_not_flash_attn)

COMPILE = launching.COMPILE
