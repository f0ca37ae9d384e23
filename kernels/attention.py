"""o = softmax(q k^T / sqrt(P)) v, causal or full, with N query heads sharing G key/value heads

Scaled dot-product attention: every query takes the average of the values, weighted by the softmax of its products with
the keys.

B batch, N query heads, G key/value heads (N is a multiple of G; query head n reads key/value head n // (N/G)),
S queries, K keys, P head dimension.
q (B, N, S, P), k (B, G, K, P), v (B, G, K, P) -> o (B, N, S, P).
Causal attention is aligned at the end: query i sees the keys j <= i + K - S, so that the last query sees all of them;
a query that sees no key gives zeros.
Rows of different lengths (ragged): query_lengths (B,) and key_lengths (B,) int64. Row b then is an attention of its
own over its first query_lengths[b] queries and key_lengths[b] keys, causal from its own end; what lies after is not
looked at, has outputs of zero and gets no gradient.
A score of -inf is a key unseen; one of +inf gives NaN, as it does in PyTorch.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017. The Triton kernel keeps a running softmax: Milakov and
Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867, 2018; Dao et al., FlashAttention, NeurIPS
2022. Its gradients compute the scores again: Dao, FlashAttention-2, ICLR 2024.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work
from . import _attention_launch, _attention_sdpa
from ._attention_cost import backward_operations, forward_operations, recomputed
from ._attention_lengths import blanked, check, lengths_of, padding_waste, visible
from ._attention_peers import peer_rows
from ._attention_tiles import COMPILE, WIDEST, widest_of
from ._cost import operations, traffic
from ._torch import (
    ELEMENT_BYTES,
    dtype_of,
    generator,
    normal,
    not_current,
    run_compiled,
    tf32_on_cpu,
    why_no_compiler,
    why_slow,
)
from ._triton import interpreted, why_no_triton

__all__ = ["COMPILE", "IMPLEMENTATIONS", "ODD", "SHAPES", "Shape", "attend", "inputs", "padding_waste", "reference"]


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention. K=0 stands for K=S and G=0 for G=N; the stored shape has the real numbers.

    ragged : 1 when the rows have different lengths, those of `lengths_of`.
    """

    B: int
    N: int
    S: int
    P: int
    K: int = 0
    G: int = 0
    causal: int = 1
    ragged: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", self.K or self.S)
        object.__setattr__(self, "G", self.G or self.N)
        for size in fields(self)[:6]:
            least = 0 if size.name == "B" else 1
            if getattr(self, size.name) < least:
                raise ValueError(f"{size.name} must be at least {least}, not {getattr(self, size.name)}")
        for name in ("causal", "ragged"):
            object.__setattr__(self, name, int(getattr(self, name)))  # a bool would be another argument to Triton
            if getattr(self, name) not in (0, 1):
                raise ValueError(f"{name} must be 0 or 1, not {getattr(self, name)}")
        if self.N % self.G:
            raise ValueError(f"N must be a multiple of G, so that heads can share keys; {self.N} is none of {self.G}")

    @property
    def visible_pairs(self) -> int:
        """Pairs of a query and a key that it sees, for one head of all sequences."""
        rows = zip(*lengths_of(self)) if self.ragged else [(self.S, self.K)]
        pairs = sum(_visible_pairs(queries, keys, self.causal) for queries, keys in rows)
        return pairs if self.ragged else pairs * self.B

    @property
    def tokens(self) -> tuple[int, int]:
        """Queries and keys of all sequences, without those after the end of a row."""
        if self.ragged:
            queries, keys = lengths_of(self)
            return sum(queries), sum(keys)
        return self.B * self.S, self.B * self.K


def _visible_pairs(queries: int, keys: int, causal: int) -> int:
    if not causal:
        return queries * keys
    seeing = min(queries, keys)  # the last query sees all keys, each one before it a key less
    return seeing * keys - seeing * (seeing - 1) // 2


SHAPES = {
    "quick": [
        Shape(1, 4, 512, 64),
        Shape(2, 4, 131, 40, K=197, G=2),
        Shape(1, 2, 384, 128, causal=0),
    ],
    # 16k tokens and a model width of 2048, as attention kernels are usually compared.
    "standard": [
        *(Shape(16384 // S, 2048 // P, S, P, causal=c) for P in (64, 128) for S in (1024, 4096, 16384) for c in (1, 0)),
        Shape(4, 32, 4096, 128, G=8),
        Shape(2, 16, 2048, 64),
        Shape(3, 5, 1021, 80),
    ],
    "full": [
        *(
            Shape(16384 // S, 2048 // P, S, P, causal=c)
            for P in (32, 64, 128, 256)
            for S in (512, 1024, 2048, 4096, 8192, 16384)
            for c in (1, 0)
        ),
        *(Shape(4, 32, 4096, 128, G=G) for G in (1, 2, 4, 8, 16)),
        *(Shape(4, 16, 1024, P) for P in (40, 80, 96, 160, 192)),
        Shape(1, 16, 512, 128, K=16384),
    ],
}
# Sizes at and around the edges of the Triton tiles, for the correctness tests: every extreme of S and K 1 to 1031, N 1
# to 6 and the head dimensions once, S and K apart both ways, rows that see nothing, shared heads, different lengths.
ODD = [
    Shape(1, 1, 1, 1),
    Shape(2, 2, 37, 16),
    Shape(1, 4, 129, 80, G=2),
    Shape(1, 2, 70, 33, K=19),
    Shape(1, 3, 5, 64, K=130, G=1, causal=0),
    Shape(1, 1, 33, 130, K=65),
    Shape(1, 1, 1031, 64),
    Shape(1, 6, 1, 32, K=1031, G=2),
    Shape(1, 2, 140, 256, K=150),
    Shape(1, 1, 257, 128, causal=0),
    Shape(4, 2, 140, 64, G=1, ragged=1),
    Shape(3, 2, 67, 80, K=150, ragged=1),
    Shape(3, 1, 131, 128, K=70, causal=0, ragged=1),
]
# All of S and K around one tile, of P, of the mask, and of shared heads.
ODD_LONG = [
    Shape(B, N, S, P, K=K, G=G, causal=causal, ragged=ragged)
    for B, ragged in ((1, 0), (3, 1))
    for N, G in ((1, 1), (6, 2))
    for S, K in ((1, 129), (65, 65), (130, 31), (31, 260))
    for P in (32, 64, 80, 128, 256)
    for causal in (0, 1)
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw queries, keys and values from the normal distribution: the scores then have variance 1."""
    source = generator(device, seed)
    drawn = {
        "q": normal((shape.B, shape.N, shape.S, shape.P), dtype, device, source),
        "k": normal((shape.B, shape.G, shape.K, shape.P), dtype, device, source),
        "v": normal((shape.B, shape.G, shape.K, shape.P), dtype, device, source),
    }
    if shape.ragged:
        for name, lengths in zip(("query_lengths", "key_lengths"), lengths_of(shape)):
            drawn[name] = torch.tensor(lengths, dtype=torch.int64, device=device)
    return drawn


def reference(
    shape: Shape, q: Tensor, k: Tensor, v: Tensor,
    query_lengths: Tensor | None = None, key_lengths: Tensor | None = None,
) -> tuple[Tensor]:  # fmt: skip
    """Compute attention in plain PyTorch with all scores in memory, in the dtype of the tensors; returns o."""
    check(shape, q, k, v, query_lengths, key_lengths)
    q, k, v = blanked(q, query_lengths), blanked(k, key_lengths), blanked(v, key_lengths)
    # The query heads of a group are further rows for its keys: (B, G, N/G * S, P) times (B, G, P, K).
    rows = (shape.B, shape.G, shape.N // shape.G * shape.S)
    scores = (q.reshape(*rows, shape.P) @ k.transpose(-1, -2) / math.sqrt(shape.P)).reshape(
        shape.B, shape.N, shape.S, shape.K
    )
    hidden = scores == -math.inf
    if shape.causal or shape.ragged:
        hidden = hidden | ~visible(shape, q.device, query_lengths, key_lengths)
    # The lowest number rather than -inf keeps NaN out of rows that see nothing, and out of their gradients.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(hidden, 0)
    return ((weights.reshape(*rows, shape.K) @ v).reshape(shape.B, shape.N, shape.S, shape.P),)


# Query rows of a spot check: two of the widest tiles, so that a tile border lies inside.
SPOT_ROWS = 256


def spot(shape: Shape, inputs: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick a random run of query rows and the last ones, of one random and of the last sequence, all heads.

    Rows first..last of a sequence see the keys up to last + K - S, with its own S and K, so they are an attention of
    their own. Returns shape and inputs
    of each, what to take out of the outputs of the whole problem, and out of those of the part.
    """
    source = generator("cpu", seed)
    parts = []
    for last in (False, True):
        sequence = shape.B - 1 if last else int(torch.randint(shape.B, (), generator=source))
        queries, keys = (
            int(inputs[name][sequence]) if shape.ragged else longest
            for name, longest in (("query_lengths", shape.S), ("key_lengths", shape.K))
        )
        rows = min(queries, SPOT_ROWS)
        start = queries - rows if last else int(torch.randint(queries - rows + 1, (), generator=source))
        # A run that sees no key at all is no attention; the last rows stand in for it.
        if shape.causal and start + rows + keys - queries < 1:
            start = queries - rows
        seen = start + rows + keys - queries if shape.causal else keys
        parts.append(_rows_of(shape, inputs, sequence, start, rows, seen))
    return parts


def _rows_of(shape: Shape, inputs: dict[str, Tensor], sequence: int, start: int, rows: int, keys: int) -> Any:
    one, some = slice(sequence, sequence + 1), slice(start, start + rows)
    part = {"q": inputs["q"][one, :, some], "k": inputs["k"][one, :, :keys], "v": inputs["v"][one, :, :keys]}
    smaller = Shape(1, shape.N, rows, shape.P, K=keys, G=shape.G, causal=shape.causal)
    return smaller, part, lambda outputs: (outputs[0][one, :, some],), lambda outputs: outputs


def _operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    pairs, queries = shape.N * shape.visible_pairs, shape.N * shape.P * shape.tokens[0]
    counted = forward_operations(pairs, queries, shape.P), backward_operations(pairs, queries, shape.P)
    return operations(direction, *counted)


# Per direction, what an implementation must read and write. What the forward pass leaves for the backward pass, o and
# the logarithms, is input of `backward`; in a training step an implementation may compute it twice instead.
_TRAFFIC = {
    "forward": (("q", "k", "v", "lengths"), ("whole o",)),
    "backward": (("q", "k", "v", "lengths", "o", "logarithms", "do"), ("dq", "dk", "dv")),
    "both": (("q", "k", "v", "lengths", "do"), ("whole o", "dq", "dk", "dv")),
}


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    """What is read ends with its row; what is written has zeros after it."""
    queries, keys = shape.tokens
    head = element_bytes * shape.P
    read = {"q": shape.N * queries, "k": shape.G * keys, "v": shape.G * keys, "o": shape.N * queries}
    read["do"] = read["o"]
    all_keys = shape.B * shape.G * shape.K
    written = {"whole o": shape.B * shape.N * shape.S, "dq": shape.B * shape.N * shape.S, "dk": all_keys}
    written["dv"] = all_keys
    sizes = {name: head * rows for name, rows in (read | written).items()}
    # One logarithm of a sum per query, never in less than float32; two int64 per row that may end early.
    sizes["logarithms"] = max(element_bytes, 4) * shape.N * queries
    return sizes | {"lengths": 2 * 8 * shape.B * shape.ragged}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one attention, of its gradients (with the scores recomputed), or of both.

    Only visible pairs count. The rescaling of a running softmax is a matter of the implementation and not counted.
    Beside its inputs and o the backward pass has the logarithm of every query's sum (`saved_bytes`).
    """
    sizes = _bytes_by_tensor(shape, ELEMENT_BYTES[dtype])
    return Work(
        terms=(
            *_operations(shape, direction),
            *traffic(
                _TRAFFIC,
                sizes,
                direction,
                "logarithms",
                "and writes the logarithms for the backward pass",
                "which reads q, k, v and o again",
            ),
        ),
        saved_bytes=sizes["logarithms"],
        **recomputed(shape.N * shape.visible_pairs, shape.P, direction),
        tokens=shape.tokens[0],
    )


# Rows that keep all scores in memory are refused from here on. Four copies must fit a GPU's memory beside everything
# else; on two cores of a CPU the passes over so many scores take about a second, and beyond that minutes per case.
MOST_SCORES_BYTES = {"cpu": 2**28, "cuda": 16 * 2**30}


def _why_not_plain(shape: Shape, dtype: str, device: str) -> str | None:
    scores = shape.B * shape.N * shape.S * shape.K * max(ELEMENT_BYTES[dtype], 4)
    if scores > MOST_SCORES_BYTES[device]:
        return f"keeps all scores in memory: {scores / 2**30:.1f} GiB, several times over"
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_plain(shape, dtype, device)


def _run_triton(
    shape: Shape, q: Tensor, k: Tensor, v: Tensor,
    query_lengths: Tensor | None = None, key_lengths: Tensor | None = None,
) -> tuple[Tensor]:  # fmt: skip
    check(shape, q, k, v, query_lengths, key_lengths)
    if not shape.B:
        return reference(shape, q, k, v, query_lengths, key_lengths)
    return _attention_launch.attention(shape, q, k, v, query_lengths, key_lengths)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64" and not interpreted():
        return "the Triton kernel accumulates in float32; float64 is for the reference"
    if shape.P > WIDEST:
        return f"the Triton kernel takes head dimensions up to {WIDEST}, not P={shape.P}"
    widest = widest_of(dtype)
    if widest < shape.P and not interpreted():
        return (
            f"under a triton older than 3.9 gradients of {dtype} heads wider than {widest} spill registers, and these "
            f"have P={shape.P}; take triton 3.9, or tf32, fp16 or bf16"
        )
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


def _plain_launches(shape: Shape, dtype: str, device: str) -> int:
    """Two products, the scale, the comparison, two fills, the softmax; four for the mask; more where rows end early."""
    return 7 + 4 * max(shape.causal, shape.ragged) + 12 * shape.ragged


# What an SDPA call with lengths launches beside the backend's own: the mask, blank rows, and zeros for blind queries.
_LAUNCHES_OF_LENGTHS = 20


def _sdpa_row(backend: SDPBackend, supports: Any, launches: int = 1, copies: int = 0) -> Implementation:
    """A row of PyTorch. launches : of its backend; copies : more where heads are shared."""
    return Implementation(
        _attention_sdpa.run_sdpa(backend),
        launches=lambda shape, dtype, device: (
            launches + copies * (shape.G < shape.N) + _LAUNCHES_OF_LENGTHS * shape.ragged
        ),
        supports=supports,
        grad=True,
    )


IMPLEMENTATIONS = {
    "reference": Implementation(reference, launches=_plain_launches, supports=_why_not_plain, grad=True),
    "torch.math": Implementation(
        _attention_sdpa.run_sdpa(SDPBackend.MATH),
        launches=lambda shape, dtype, device: (9 if shape.causal else 5) + _LAUNCHES_OF_LENGTHS * shape.ragged,
        supports=_why_not_plain,
        grad=True,
    ),
    "torch.flash": _sdpa_row(SDPBackend.FLASH_ATTENTION, _attention_sdpa.why_not_flash),
    "torch.efficient": _sdpa_row(SDPBackend.EFFICIENT_ATTENTION, _attention_sdpa.why_not_efficient, copies=2),
    "torch.cudnn": _sdpa_row(SDPBackend.CUDNN_ATTENTION, _attention_sdpa.why_not_cudnn),
    "compile": Implementation(run_compiled(reference), launches=4, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, supports=_why_not_triton, grad=True),
    **peer_rows(),
}


def attend(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True,
    query_lengths: Tensor | None = None, key_lengths: Tensor | None = None, row: str = "triton",
) -> Tensor:  # fmt: skip
    """Attend without a shape at hand: q (B, N, S, P), k and v (B, G, K, P), lengths (B,) or none -> o (B, N, S, P).

    Lengths of queries and keys come together. row : the implementation. Raises ValueError with a sentence where it
    refuses, or where sizes do not fit.
    """
    if row not in IMPLEMENTATIONS:
        raise ValueError(f"attention has no row {row!r}; its rows are {', '.join(IMPLEMENTATIONS)}.")
    if q.dim() != 4 or k.dim() != 4:
        raise ValueError(f"q and k have {q.dim()} and {k.dim()} axes; 4 each were expected: batch, head, row, column.")
    B, N, S, P = q.shape
    lengths = {"query_lengths": query_lengths, "key_lengths": key_lengths}
    ragged = int(any(given is not None for given in lengths.values()))
    shape = Shape(B, N, S, P, K=k.shape[2], G=k.shape[1], causal=int(causal), ragged=ragged)
    refused = IMPLEMENTATIONS[row].supports(shape, dtype_of(q), q.device.type) or not_current(q)
    if refused:
        raise ValueError(f"{refused}.")
    return IMPLEMENTATIONS[row].run(shape, q=q, k=k, v=v, **(lengths if ragged else {}))[0]
