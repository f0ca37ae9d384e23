"""o = softmax(q k^T / sqrt(P)) v, causal or full, with N query heads sharing G key/value heads

Scaled dot-product attention: every query takes the average of the values, weighted by the softmax of its products with
the keys.

B batch, N query heads, G key/value heads (N is a multiple of G; query head n reads key/value head n // (N/G)),
S queries, K keys, P head dimension.
q (B, N, S, P), k (B, G, K, P), v (B, G, K, P) -> o (B, N, S, P).
Causal attention is aligned at the end: query i sees the keys j <= i + K - S, so that the last query sees all of them;
a query that sees no key gives zeros.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017. The Triton kernel keeps a running softmax: Milakov and
Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867, 2018; Dao et al., FlashAttention, NeurIPS 2022.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from ..roofline.contract import CompileCase, Implementation
from ..roofline.work import Term, Work, terms
from ._cost import operations, traffic
from ._device import dot
from ._torch import ELEMENT_BYTES, generator, normal, run_compiled, tf32_allowed, tf32_on_cpu, why_no_compiler
from ._triton import checked_options, interpreted, tl, triton, why_no_triton


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention. K=0 stands for K=S and G=0 for G=N; the stored shape has the real numbers."""

    B: int
    N: int
    S: int
    P: int
    K: int = 0
    G: int = 0
    causal: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", self.K or self.S)
        object.__setattr__(self, "G", self.G or self.N)
        for size in fields(self):
            if size.name != "causal" and getattr(self, size.name) < 1:
                raise ValueError(f"{size.name} must be at least 1, not {getattr(self, size.name)}")
        if self.causal not in (0, 1):
            raise ValueError(f"causal must be 0 or 1, not {self.causal}")
        if self.N % self.G:
            raise ValueError(f"N must be a multiple of G, so that heads can share keys; {self.N} is none of {self.G}")

    @property
    def visible_pairs(self) -> int:
        """Pairs of a query and a key that it sees, for one head of one sequence."""
        if not self.causal:
            return self.S * self.K
        seeing = min(self.S, self.K)  # the last query sees all K keys, each one before it a key less
        return seeing * self.K - seeing * (seeing - 1) // 2


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
# Sizes at and around the edges of the Triton tiles, rows that see nothing and shared heads, for the correctness tests.
ODD = [
    Shape(1, 1, 1, 1),
    Shape(2, 2, 37, 16),
    Shape(1, 4, 129, 80, G=2),
    Shape(1, 2, 70, 33, K=19),
    Shape(1, 3, 5, 64, K=130, G=1, causal=0),
    Shape(1, 1, 33, 130, K=65),
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw queries, keys and values from the normal distribution: the scores then have variance 1."""
    source = generator(device, seed)
    return {
        "q": normal((shape.B, shape.N, shape.S, shape.P), dtype, device, source),
        "k": normal((shape.B, shape.G, shape.K, shape.P), dtype, device, source),
        "v": normal((shape.B, shape.G, shape.K, shape.P), dtype, device, source),
    }


def _visible(shape: Shape, device: torch.device) -> torch.Tensor:
    """Mark the keys that each query of causal attention sees: bool (S, K)."""
    return torch.ones(shape.S, shape.K, dtype=torch.bool, device=device).tril(shape.K - shape.S)


def reference(shape: Shape, q, k, v) -> tuple[torch.Tensor]:
    """Compute attention in plain PyTorch with all scores in memory, in the dtype of the tensors; returns o."""
    # The query heads of a group are further rows for its keys: (B, G, N/G * S, P) times (B, G, P, K).
    rows = q.reshape(shape.B, shape.G, -1, shape.P)
    scores = (rows @ k.transpose(-1, -2) / math.sqrt(shape.P)).reshape(shape.B, shape.N, shape.S, shape.K)
    if shape.causal:
        hidden = ~_visible(shape, q.device)
        # The lowest number rather than -inf keeps NaN out of rows that see nothing, and out of their gradients.
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(hidden, 0)
    else:
        weights = scores.softmax(-1)
    return ((weights.reshape(shape.B, shape.G, -1, shape.K) @ v).reshape(shape.B, shape.N, shape.S, shape.P),)


# Query rows of a spot check: two of the widest tiles, so that a tile border lies inside.
SPOT_ROWS = 256


def spot(shape: Shape, inputs: dict[str, torch.Tensor], seed: int) -> list[Any]:
    """Pick a random run of query rows and the last ones, of one random and of the last sequence, all heads.

    Rows first..last see the keys up to last + K - S, so they are an attention of their own. Returns shape and inputs
    of each, what to take out of the outputs of the whole problem, and out of those of the part.
    """
    source = generator("cpu", seed)
    rows = min(shape.S, SPOT_ROWS)
    starts = (int(torch.randint(shape.S - rows + 1, (), generator=source)), shape.S - rows)
    sequences = (int(torch.randint(shape.B, (), generator=source)), shape.B - 1)
    return [_rows_of(shape, inputs, sequence, start, rows) for sequence, start in zip(sequences, starts)]


def _rows_of(shape: Shape, inputs: dict[str, torch.Tensor], sequence: int, start: int, rows: int) -> Any:
    one, some = slice(sequence, sequence + 1), slice(start, start + rows)
    # A run that sees no key at all is no attention; the last rows stand in for it.
    last_key = start + rows + shape.K - shape.S
    if shape.causal and last_key < 1:
        return _rows_of(shape, inputs, sequence, shape.S - rows, rows)
    keys = last_key if shape.causal else shape.K
    part = {"q": inputs["q"][one, :, some], "k": inputs["k"][one, :, :keys], "v": inputs["v"][one, :, :keys]}
    smaller = Shape(1, shape.N, rows, shape.P, K=keys, G=shape.G, causal=shape.causal)
    return smaller, part, lambda outputs: (outputs[0][one, :, some],), lambda outputs: outputs


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    pairs = shape.B * shape.N * shape.visible_pairs
    queries = shape.B * shape.N * shape.S * shape.P
    return (
        *terms(
            "matmul_flops",
            ("scores", 2 * pairs * shape.P, "q k^T: a dot product of length P per visible pair"),
            ("average", 2 * pairs * shape.P, "weights times v: P multiply-adds per visible pair"),
        ),
        *terms(
            "pointwise_flops",
            ("scale", queries, "q / sqrt(P): cheaper on the queries than on the scores"),
            ("softmax", 3 * pairs, "maximum, difference to it and sum, one each per visible pair"),
            ("normalise", queries, "the average divided by the sum of its weights"),
        ),
        *terms("special_ops", ("exponentials", pairs, "one per visible pair")),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    pairs = shape.B * shape.N * shape.visible_pairs
    queries = shape.B * shape.N * shape.S * shape.P
    return (
        *terms(
            "matmul_flops",
            ("scores again", 2 * pairs * shape.P, "q k^T recomputed: the weights are too large to keep"),
            ("dweights", 2 * pairs * shape.P, "do v^T"),
            ("dv", 2 * pairs * shape.P, "transposed weights times do"),
            ("dq", 2 * pairs * shape.P, "dscores times k"),
            ("dk", 2 * pairs * shape.P, "transposed dscores times q"),
        ),
        *terms(
            "pointwise_flops",
            ("row sums", 2 * queries, "do times o, summed over P: the share of the softmax's normalisation"),
            ("weights again", pairs, "scores minus the saved logarithm of their sum"),
            ("dscores", 2 * pairs, "weights (dweights - row sum)"),
            ("scale", 2 * queries, "of the recomputed scores and of dq, on the queries"),
        ),
        *terms("special_ops", ("exponentials again", pairs, "one per visible pair")),
    )


# Per direction, what an implementation must read and write. What the forward pass leaves for the backward pass, o and
# the logarithms, is input of `backward`; in a training step an implementation may compute it twice instead.
_TRAFFIC = {
    "forward": (("q", "k", "v"), ("o",)),
    "backward": (("q", "k", "v", "o", "logarithms", "do"), ("dq", "dk", "dv")),
    "both": (("q", "k", "v", "do"), ("o", "dq", "dk", "dv")),
}


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    queries = element_bytes * shape.B * shape.N * shape.S * shape.P
    keys = element_bytes * shape.B * shape.G * shape.K * shape.P
    sizes = {"q": queries, "k": keys, "v": keys, "o": queries}
    # One logarithm of a sum per query, never in less than float32.
    logarithms = max(element_bytes, 4) * shape.B * shape.N * shape.S
    return sizes | {f"d{name}": size for name, size in sizes.items()} | {"logarithms": logarithms}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one attention, of its gradients (with the scores recomputed), or of both.

    Only visible pairs count. The rescaling of a running softmax is a matter of the implementation and not counted.
    Beside its inputs and o the backward pass has the logarithm of every query's sum (`saved_bytes`).
    """
    sizes = _bytes_by_tensor(shape, ELEMENT_BYTES[dtype])
    return Work(
        terms=(
            *operations(direction, _operations_forward(shape), _operations_backward(shape)),
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
        tokens=shape.B * shape.S,
    )


def _causal_options(shape: Shape, backend: SDPBackend, device: torch.device) -> dict[str, Any]:
    """Say "causal" to PyTorch for S <= K. Its own flag is aligned at the start: beyond S = K it needs a mask."""
    if shape.S == shape.K:
        return {"is_causal": True}
    if backend == SDPBackend.FLASH_ATTENTION and device.type == "cuda":
        return {"attn_mask": causal_lower_right(shape.S, shape.K)}  # the one mask that this backend takes
    return {"attn_mask": _visible(shape, device)}


def _run_sdpa(backend: SDPBackend) -> Callable[..., tuple[torch.Tensor]]:
    """Give the `run` that calls scaled_dot_product_attention with one backend and no other."""

    def run(shape: Shape, q, k, v) -> tuple[torch.Tensor]:
        # Queries that see nothing are left out, where a backend could give NaN, and come back as zeros.
        blind = max(0, shape.S - shape.K) if shape.causal else 0
        seeing = Shape(shape.B, shape.N, shape.S - blind, shape.P, shape.K, shape.G, shape.causal)
        options = _causal_options(seeing, backend, q.device) if shape.causal else {}
        if backend == SDPBackend.EFFICIENT_ATTENTION and shape.G < shape.N:
            # Not every supported PyTorch lets this backend share heads: it gets copies, made inside the clock.
            k, v = (tensor.repeat_interleave(shape.N // shape.G, dim=1) for tensor in (k, v))
        with sdpa_kernel(backend):
            o = F.scaled_dot_product_attention(q[:, :, blind:], k, v, enable_gqa=k.shape[1] < shape.N, **options)
        return (F.pad(o, (0, 0, blind, 0)) if blind else o,)

    return run


# Rows that keep all scores in memory, several copies of them, are refused from here on: 4 times this must fit a CPU's
# or GPU's memory beside everything else.
MOST_SCORES_BYTES = {"cpu": 2 * 2**30, "cuda": 16 * 2**30}


def _why_not_plain(shape: Shape, dtype: str, device: str) -> str | None:
    scores = shape.B * shape.N * shape.S * shape.K * max(ELEMENT_BYTES[dtype], 4)
    if scores > MOST_SCORES_BYTES[device]:
        return f"keeps all scores in memory: {scores / 2**30:.0f} GiB, several times over"
    # A CPU without float16 arithmetic converts at every step; 1e9 operations then take about a second.
    if device == "cpu" and dtype == "fp16" and work(shape, dtype, "forward").matmul_flops > 1e9:
        return "float16 products on a CPU run at about 1 GFLOP/s; these would take longer than a second"
    return tf32_on_cpu(dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_plain(shape, dtype, device)


def _why_not_flash(shape: Shape, dtype: str, device: str) -> str | None:
    if device == "cpu":
        return tf32_on_cpu(dtype, device)
    if dtype not in ("fp16", "bf16"):
        return f"PyTorch's flash backend takes fp16 and bf16 on a GPU, not {dtype}"
    if shape.P > 256:
        return f"PyTorch's flash backend takes head dimensions up to 256, not P={shape.P}"
    return None


def _why_not_efficient(shape: Shape, dtype: str, device: str) -> str | None:
    if device == "cpu":
        return "PyTorch's memory-efficient backend is for GPUs"
    if dtype == "fp64":
        return "PyTorch's memory-efficient backend takes no float64"
    if shape.P * ELEMENT_BYTES[dtype] % 16:
        return f"PyTorch's memory-efficient backend needs heads of a multiple of 16 bytes, not P={shape.P} in {dtype}"
    return None


def _why_not_cudnn(shape: Shape, dtype: str, device: str) -> str | None:
    if device == "cpu":
        return "cuDNN is a library for GPUs"
    if dtype not in ("fp16", "bf16"):
        return f"cuDNN's attention takes fp16 and bf16, not {dtype}"
    if shape.P % 8 or shape.P > 128:
        return f"cuDNN's attention is sure to take head dimensions that are multiples of 8 up to 128, not P={shape.P}"
    if shape.K == 1 or shape.S == 1:
        return "cuDNN's attention needs more than one query and one key"
    return None


@triton.jit
def _rows(
    matrix, first, stride, count, P,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHECK_ROWS: tl.constexpr, CHECK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Load rows `first` to `first + ROWS` of a matrix (count, P) as a (ROWS, COLUMNS) block, zero outside of it."""
    row = first + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    pointers = matrix + (row.to(tl.int64) * stride)[:, None] + column[None, :]
    if CHECK_ROWS and CHECK_COLUMNS:
        block = tl.load(pointers, mask=(row < count)[:, None] & (column < P)[None, :], other=0.0)
    elif CHECK_ROWS:
        block = tl.load(pointers, mask=(row < count)[:, None], other=0.0)
    elif CHECK_COLUMNS:
        block = tl.load(pointers, mask=(column < P)[None, :], other=0.0)
    else:
        block = tl.load(pointers)
    return block


@triton.jit
def _absorb(
    average, total, top, queries, k, v, k_row, v_row, begin, end, last_seen, scale, K, P,
    BLOCK_K: tl.constexpr, CHECK_KEYS: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Take the keys from `begin` to `end`, BLOCK_K at a time, into the running softmax of a block of queries.

    Per query: `average`, the sum of the values weighted by 2^(score - top); `total`, the sum of these weights; `top`,
    the largest score so far. Scores are in powers of two: `scale` is log2(e)/sqrt(P).
    Without CHECK_KEYS all queries see all these keys.
    """
    for start in tl.range(begin, end, BLOCK_K):
        keys = _rows(k, start, k_row, K, P, BLOCK_K, queries.shape[1], CHECK_KEYS, PADDED)
        nothing = tl.zeros((queries.shape[0], BLOCK_K), tl.float32)
        scores = dot(queries, tl.trans(keys), nothing, PRECISION, INTERPRET)
        if CHECK_KEYS:
            visible = (start + tl.arange(0, BLOCK_K))[None, :] <= last_seen[:, None]
            scores = tl.where(visible, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        values = _rows(v, start, v_row, K, P, BLOCK_K, queries.shape[1], CHECK_KEYS, PADDED)
        average = dot(weights.to(values.dtype), values, average * shrink[:, None], PRECISION, INTERPRET)
        top = new_top
    return average, total, top


def _attend(
    q, k, v, o, scale, S, K, P, N, heads_per_group, offset,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute o for BLOCK_S queries of one head; query i sees the keys j <= i + offset.

    Neighbouring programs share a head and with it keys and values in L2; of a head the late queries, which see most,
    come first. Keys that all queries of the block see take a loop without masks, the rest one with masks.
    """
    blocks = tl.cdiv(S, BLOCK_S)
    program = tl.program_id(0)
    first = (blocks - 1 - program % blocks) * BLOCK_S
    head = (program // blocks % N).to(tl.int64)
    batch = (program // blocks // N).to(tl.int64)
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head // heads_per_group * k_head
    v += batch * v_batch + head // heads_per_group * v_head

    row = first + tl.arange(0, BLOCK_S)
    last_seen = tl.minimum(row + offset, K - 1)
    seen_by_all = tl.minimum(tl.maximum(first + offset + 1, 0), K)
    seen_by_any = tl.minimum(tl.maximum(tl.minimum(first + BLOCK_S, S) + offset, 0), K)
    unmasked = seen_by_all // BLOCK_K * BLOCK_K

    queries = _rows(q, first, q_row, S, P, BLOCK_S, BLOCK_P, True, PADDED)
    average = tl.zeros((BLOCK_S, BLOCK_P), tl.float32)
    total = tl.zeros((BLOCK_S,), tl.float32)
    # Float32's lowest number: unlike -inf it can be subtracted from itself in rows that see nothing.
    top = tl.full((BLOCK_S,), -3.4028234663852886e38, tl.float32)
    average, total, top = _absorb(
        average, total, top, queries, k, v, k_row, v_row, 0, unmasked, last_seen, scale, K, P,
        BLOCK_K, False, PADDED, PRECISION, INTERPRET,
    )  # fmt: skip
    average, total, top = _absorb(
        average, total, top, queries, k, v, k_row, v_row, unmasked, seen_by_any, last_seen, scale, K, P,
        BLOCK_K, True, PADDED, PRECISION, INTERPRET,
    )  # fmt: skip

    result = average / tl.where(total == 0, 1.0, total)[:, None]
    column = tl.arange(0, BLOCK_P)
    pointers = o + (batch * N + head) * S * P + (row.to(tl.int64) * P)[:, None] + column[None, :]
    tl.store(pointers, result.to(o.dtype.element_ty), mask=(row < S)[:, None] & (column < P)[None, :])


_POINTERS = ("q", "k", "v", "o")
_STRIDES = tuple(f"{tensor}_{axis}" for tensor in ("q", "k", "v") for axis in ("batch", "head", "row"))
_COUNTS = ("S", "K", "N", "heads_per_group", "offset")

# Two kernels from one function, so that exactly the signatures that are compiled offline are ever launched: pointers,
# head dimension and strides all multiples of 16, which gives 128-bit loads, or nothing known.
_attend_aligned = triton.jit(do_not_specialize=[*_COUNTS])(_attend)
_attend_unaligned = triton.jit(do_not_specialize=[*_COUNTS, *_POINTERS, "P", *_STRIDES])(_attend)


@dataclass(frozen=True)
class _Tile:
    """What one program does: `queries` rows at a time against `keys` columns."""

    queries: int
    keys: int
    warps: int
    stages: int

    def constexprs(self, width: int, layout: str, precision: str, interpret: bool) -> dict[str, Any]:
        return {
            "BLOCK_S": self.queries,
            "BLOCK_K": self.keys,
            "BLOCK_P": width,
            "PADDED": layout != "exact",
            "PRECISION": precision,
            "INTERPRET": interpret,
        }

    def options(self) -> dict[str, Any]:
        return checked_options(num_warps=self.warps, num_stages=self.stages)


# By block width (the head dimension rounded up to a power of two) and layout: `exact`, aligned and P equal to the
# width; `padded`, aligned and P below it; `unaligned`, anything else. Every tile is the largest one found that spills
# no register on sm_80, sm_90 and sm_100 and stays within the 163 KiB of shared memory of sm_80.
_TILES_16_BIT = {
    (32, "exact"): _Tile(128, 64, 4, 3),
    (32, "padded"): _Tile(128, 64, 4, 3),
    (32, "unaligned"): _Tile(128, 32, 4, 2),
    (64, "exact"): _Tile(128, 64, 4, 3),
    (64, "padded"): _Tile(64, 64, 4, 3),
    (64, "unaligned"): _Tile(64, 32, 4, 2),
    (128, "exact"): _Tile(128, 64, 8, 3),
    (128, "padded"): _Tile(128, 64, 8, 3),
    (128, "unaligned"): _Tile(64, 32, 8, 2),
    (256, "exact"): _Tile(64, 32, 8, 3),
    (256, "padded"): _Tile(64, 32, 8, 2),
    (256, "unaligned"): _Tile(32, 16, 8, 1),
}
_TILES_TF32 = {
    (32, "exact"): _Tile(64, 32, 4, 2),
    (32, "padded"): _Tile(64, 32, 4, 2),
    (32, "unaligned"): _Tile(64, 32, 4, 1),
    (64, "exact"): _Tile(128, 32, 8, 3),
    (64, "padded"): _Tile(128, 32, 8, 3),
    (64, "unaligned"): _Tile(64, 32, 4, 1),
    (128, "exact"): _Tile(128, 32, 8, 2),
    (128, "padded"): _Tile(128, 32, 8, 2),
    (128, "unaligned"): _Tile(64, 16, 8, 1),
    (256, "exact"): _Tile(64, 16, 8, 2),
    (256, "padded"): _Tile(32, 32, 8, 2),
    (256, "unaligned"): _Tile(32, 16, 8, 1),
}
# Without tensor cores operands live in registers too: small tiles, and no pipeline.
_TILES_FP32 = {
    (32, "exact"): _Tile(32, 32, 4, 1),
    (32, "padded"): _Tile(32, 32, 4, 1),
    (32, "unaligned"): _Tile(32, 32, 4, 1),
    (64, "exact"): _Tile(32, 32, 8, 1),
    (64, "padded"): _Tile(32, 32, 8, 1),
    (64, "unaligned"): _Tile(32, 16, 4, 1),
    (128, "exact"): _Tile(32, 32, 8, 1),
    (128, "padded"): _Tile(32, 16, 8, 1),
    (128, "unaligned"): _Tile(32, 16, 8, 1),
    (256, "exact"): _Tile(16, 16, 8, 1),
    (256, "padded"): _Tile(16, 16, 4, 1),
    (256, "unaligned"): _Tile(16, 16, 8, 1),
}
_TILES = {"bf16": _TILES_16_BIT, "fp16": _TILES_16_BIT, "tf32": _TILES_TF32, "fp32": _TILES_FP32}
_WIDEST = 256

_PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "tf32": "tf32"}
_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}


def _case(dtype: str, width: int, layout: str) -> CompileCase:
    tile = _TILES[dtype][width, layout]
    constexprs = tile.constexprs(width, layout, _PRECISION[dtype], interpret=False)
    tensor_cores = ("tensor",) if dtype != "fp32" else ()
    aligned = layout != "unaligned"
    return CompileCase(
        label=f"{dtype} P={width} {layout}",
        kernel=_attend_aligned if aligned else _attend_unaligned,
        signature={
            **dict.fromkeys(_POINTERS, _ELEMENT[dtype]),
            "scale": "fp32",
            **dict.fromkeys((*_COUNTS, "P", *_STRIDES), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_POINTERS, "P", *_STRIDES) if aligned else (),
        options=tile.options(),
        expects=(*tensor_cores, "wide") if aligned else tensor_cores,
        representative=(width, layout) == (64, "exact"),
    )


COMPILE = [_case(dtype, width, layout) for dtype, tiles in _TILES.items() for width, layout in tiles]


def _run_triton(shape: Shape, q, k, v) -> tuple[torch.Tensor]:
    """Launch the fused kernel. All axes but the last may have any stride; where that is not dense, a copy is made."""
    q, k, v = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (q, k, v))
    o = torch.empty((shape.B, shape.N, shape.S, shape.P), dtype=q.dtype, device=q.device)
    dtype = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(q.dtype, "tf32" if tf32_allowed() else "fp32")
    strides = [stride for tensor in (q, k, v) for stride in tensor.stride()[:3]]
    numbers = (shape.P, *strides, *(tensor.data_ptr() for tensor in (q, k, v, o)))
    aligned = all(number % 16 == 0 for number in numbers)
    width = max(32, triton.next_power_of_2(shape.P))
    layout = ("exact" if width == shape.P else "padded") if aligned else "unaligned"
    tile = _TILES[dtype][width, layout]
    kernel = _attend_aligned if aligned else _attend_unaligned
    grid = (triton.cdiv(shape.S, tile.queries) * shape.B * shape.N,)
    kernel[grid](
        q, k, v, o,
        math.log2(math.e) / math.sqrt(shape.P),
        shape.S, shape.K, shape.P, shape.N, shape.N // shape.G,
        shape.K - shape.S if shape.causal else shape.K - 1,
        *strides,
        **tile.constexprs(width, layout, _PRECISION[dtype], interpreted()),
        **tile.options(),
    )  # fmt: skip
    return (o,)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64":
        return "the Triton kernel accumulates in float32; float64 is for the reference"
    if shape.P > _WIDEST:
        return f"the Triton kernel takes head dimensions up to {_WIDEST}, not P={shape.P}"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


# Launches as far as known; the reference: two products, the scale, three for the mask, two fills, the softmax.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: 9 if shape.causal else 4,
        supports=_why_not_plain,
        grad=True,
    ),
    "torch.math": Implementation(
        _run_sdpa(SDPBackend.MATH),
        launches=lambda shape, dtype, device: 9 if shape.causal else 5,
        supports=_why_not_plain,
        grad=True,
    ),
    "torch.flash": Implementation(_run_sdpa(SDPBackend.FLASH_ATTENTION), supports=_why_not_flash, grad=True),
    "torch.efficient": Implementation(
        _run_sdpa(SDPBackend.EFFICIENT_ATTENTION),
        launches=lambda shape, dtype, device: 1 if shape.G == shape.N else 3,
        supports=_why_not_efficient,
        grad=True,
    ),
    "torch.cudnn": Implementation(_run_sdpa(SDPBackend.CUDNN_ATTENTION), supports=_why_not_cudnn, grad=True),
    "compile": Implementation(run_compiled(reference), launches=4, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, supports=_why_not_triton),
}
