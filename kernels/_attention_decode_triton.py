"""Runs the Triton kernels of attention_decode: every key is read once, by programs that share the keys of a sequence.

The keys of a sequence and key/value head are cut into splits, one program each. A program keeps the R = N/G queries of
its group as the rows of one block and streams its keys and values past them, with a running softmax; a second, small
launch merges what the splits have found. The backward pass streams the keys once more: a program writes the gradients
of its keys and values, and its share of the gradient of the queries, which are then added up.
Letters as in `attention_decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..roofline.contract import CompileCase
from ._attention_tiles import ALL
from ._device import dot
from ._torch import dtype_of, once_differentiable
from ._triton import checked_options, interpreted, tl, triton

if TYPE_CHECKING:
    from .attention_decode import Shape


@triton.jit
def _block(
    matrix, row, stride, inside, P, COLUMNS: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    """Load rows of a matrix of P columns as a block of COLUMNS, zero in rows that are not `inside` and beyond P."""
    column = tl.arange(0, COLUMNS)
    pointers = matrix + (row.to(tl.int64) * stride)[:, None] + column[None, :]
    mask = inside[:, None] & (column < P)[None, :] if PADDED else inside[:, None]
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def _valid(lengths, batch, K, ragged):
    """Keys of a sequence: its length if `ragged`, else K, and nothing is read."""
    valid = K
    if ragged:
        valid = tl.minimum(tl.load(lengths + batch).to(tl.int32), K)
    return valid


def _attend_split(
    q, k, v, lengths, sums, tops, totals, scale, K, P, R, G, chunk, splits, ragged,
    q_batch, q_head, k_batch, k_head, k_row, v_batch, v_head, v_row,
    ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Take one split, `chunk` keys, into the running softmax of the R queries of its group.

    Leaves for every query n of sequence b, at [b N + n, split]: in `sums` (B N, splits, P) the sum of the values
    weighted by 2^(score - top), in `totals` the sum of these weights, and in `tops` the largest score. Scores are in
    powers of two: `scale` is log2(e)/sqrt(P). A split that lies after the end of its sequence leaves nothing.
    """
    split = tl.program_id(0) % splits
    group = (tl.program_id(0) // splits % G).to(tl.int64)
    batch = (tl.program_id(0) // splits // G).to(tl.int64)
    begin = split * chunk
    end = tl.minimum(begin + chunk, _valid(lengths, batch, K, ragged))
    row = tl.arange(0, ROWS)
    queries = _block(q + batch * q_batch + group * R * q_head, row, q_head, row < R, P, WIDTH, PADDED)
    k += batch * k_batch + group * k_head
    v += batch * v_batch + group * v_head

    average = tl.zeros((ROWS, WIDTH), ACC)
    total = tl.zeros((ROWS,), ACC)
    # Float32's lowest number: unlike -inf it can be subtracted from itself.
    top = tl.full((ROWS,), -3.4028234663852886e38, ACC)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        keys = _block(k, key, k_row, key < end, P, WIDTH, PADDED)
        scores = dot(queries, tl.trans(keys), tl.zeros((ROWS, KEYS), ACC), PRECISION, INTERPRET)
        scores = tl.where((key < end)[None, :], scores * scale, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        values = _block(v, key, v_row, key < end, P, WIDTH, PADDED)
        average = dot(weights.to(values.dtype), values, average * shrink[:, None], PRECISION, INTERPRET)
        top = new_top

    place = ((batch * G + group) * R + row) * splits + split
    wanted = row < tl.where(begin < end, R, 0)
    tl.store(tops + place, top, mask=wanted)
    tl.store(totals + place, total, mask=wanted)
    column = tl.arange(0, WIDTH)
    tl.store(sums + (place * P)[:, None] + column[None, :], average, mask=wanted[:, None] & (column < P)[None, :])


def _merge(
    sums, tops, totals, lengths, o, logarithms, K, P, N, chunk, splits, ragged,
    SPLITS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Add up what the splits found for COLUMNS columns of one query; also keep log2 of the sum of 2^score (B N).

    A query without keys gives zeros; one whose scores are all -inf gives NaN, as a softmax does.
    """
    query = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = _valid(lengths, query // N, K, ragged)
    average = tl.zeros((COLUMNS,), ACC)
    total = tl.zeros((1,), ACC)
    top = tl.full((1,), -3.4028234663852886e38, ACC)
    for first in range(0, tl.cdiv(valid, chunk), SPLITS):
        split = first + tl.arange(0, SPLITS)
        used = split * chunk < valid
        place = query * splits + split
        found = tl.load(tops + place, mask=used, other=-3.4028234663852886e38)
        new_top = tl.maximum(top, tl.max(found, 0))
        shares = tl.exp2(found - new_top)
        shrink = tl.exp2(top - new_top)
        mask = used[:, None] & (column < P)[None, :]
        values = tl.load(sums + (place * P)[:, None] + column[None, :], mask=mask, other=0.0)
        average = average * shrink + tl.sum(values * shares[:, None], 0)
        total = total * shrink + tl.sum(shares * tl.load(totals + place, mask=used, other=0.0), 0)
        top = new_top
    result = tl.where(valid > 0, average / total, 0.0)
    tl.store(o + query * P + column, result.to(o.dtype.element_ty), mask=column < P)
    once = tl.program_id(1) * COLUMNS + tl.arange(0, 1)
    tl.store(logarithms + query + once, top + tl.log2(total), mask=once == 0)


def _attend_split_backward(
    q, k, v, o, do, logarithms, lengths, dsums, dk, dv, scale, K, P, R, G, chunk, splits, ragged,
    q_batch, q_head, k_batch, k_head, k_row, v_batch, v_head, v_row,
    ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the keys and values of one split, and its share of dq to `dsums` (B N, splits, P).

    o and do (B, N, P) and dk and dv (B, G, K, P) are dense. The weights are computed again from `logarithms`. Keys
    after the end of a sequence get zeros.
    """
    split = tl.program_id(0) % splits
    group = (tl.program_id(0) // splits % G).to(tl.int64)
    batch = (tl.program_id(0) // splits // G).to(tl.int64)
    begin = split * chunk
    end = tl.minimum(begin + chunk, K)
    valid = tl.minimum(end, _valid(lengths, batch, K, ragged))
    row = tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    first = (batch * G + group) * R
    queries = _block(q + batch * q_batch + group * R * q_head, row, q_head, row < R, P, WIDTH, PADDED)
    above = _block(do + first * P, row, P, row < R, P, WIDTH, PADDED)
    results = _block(o + first * P, row, P, row < R, P, WIDTH, PADDED)
    share = tl.sum(above.to(ACC) * results.to(ACC), 1, keep_dims=True)
    top = tl.load(logarithms + first + row, mask=row < R, other=0.0)
    k += batch * k_batch + group * k_head
    v += batch * v_batch + group * v_head
    written = (batch * G + group) * K * P

    dqueries = tl.zeros((ROWS, WIDTH), ACC)
    nothing = tl.zeros((ROWS, KEYS), ACC)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        inside = key < valid
        paired = (row < R)[:, None] & inside[None, :]
        keys = _block(k, key, k_row, inside, P, WIDTH, PADDED)
        values = _block(v, key, v_row, inside, P, WIDTH, PADDED)
        scores = dot(queries, tl.trans(keys), nothing, PRECISION, INTERPRET) * scale
        weights = tl.where(paired, tl.exp2(scores - top[:, None]), 0.0)
        dweights = dot(above, tl.trans(values), nothing, PRECISION, INTERPRET)
        # ln 2 turns the scale of powers of two back into 1/sqrt(P).
        dscores = weights * (dweights - share) * (scale * 0.6931471805599453)
        dscores = tl.where(paired, dscores, 0.0).to(keys.dtype)
        dqueries = dot(dscores, keys, dqueries, PRECISION, INTERPRET)
        empty = tl.zeros((KEYS, WIDTH), ACC)
        dkeys = dot(tl.trans(dscores), queries, empty, PRECISION, INTERPRET)
        dvalues = dot(tl.trans(weights.to(above.dtype)), above, empty, PRECISION, INTERPRET)
        place = written + (key.to(tl.int64) * P)[:, None] + column[None, :]
        mask = (key < end)[:, None] & (column < P)[None, :]
        # Zero times a query that is not finite would be NaN.
        dkeys = tl.where(inside[:, None], dkeys, 0.0)
        dvalues = tl.where(inside[:, None], dvalues, 0.0)
        tl.store(dk + place, dkeys.to(dk.dtype.element_ty), mask=mask)
        tl.store(dv + place, dvalues.to(dv.dtype.element_ty), mask=mask)

    place = (first + row) * splits + split
    mask = (row < R)[:, None] & (column < P)[None, :]
    tl.store(dsums + (place * P)[:, None] + column[None, :], dqueries, mask=mask)


_STRIDES = ("q_batch", "q_head", "k_batch", "k_head", "k_row", "v_batch", "v_head", "v_row")
_COUNTS = ("K", "R", "G", "chunk", "splits", "ragged")
_FORWARD = ("q", "k", "v", "sums", "tops", "totals")
_MERGED = ("sums", "tops", "totals", "o", "logarithms")
_BACKWARD = ("q", "k", "v", "o", "do", "logarithms", "dsums", "dk", "dv")
_MERGE_COUNTS = ("K", "N", "chunk", "splits", "ragged")


@dataclass(frozen=True)
class _Program:
    """A kernel twice: with pointers, P and strides all multiples of 16, for 128-bit loads, and with nothing known.

    So exactly the signatures that are compiled offline are ever launched. `lengths` is read one by one.
    """

    pointers: tuple[str, ...]
    counts: tuple[str, ...]
    sizes: tuple[str, ...]
    aligned: Any
    unaligned: Any

    def kernel(self, aligned: bool) -> Any:
        """The twin to launch."""
        return self.aligned if aligned else self.unaligned


def _program(function: Any, pointers: tuple[str, ...], counts: tuple[str, ...], sizes: tuple[str, ...]) -> _Program:
    aligned = triton.jit(do_not_specialize=["lengths", *counts])(function)
    unaligned = triton.jit(do_not_specialize=["lengths", *counts, *pointers, *sizes])(function)
    return _Program(pointers, counts, sizes, aligned, unaligned)


SPLIT = _program(_attend_split, _FORWARD, _COUNTS, ("P", *_STRIDES))
MERGE = _program(_merge, _MERGED, _MERGE_COUNTS, ("P",))
BACKWARD = _program(_attend_split_backward, _BACKWARD, _COUNTS, ("P", *_STRIDES))


@dataclass(frozen=True)
class Tile:
    """What a program has in hand beside the queries of its group: `keys` keys at a time.

    registers : most of a thread; 0 leaves it to ptxas, which may spill a few bytes so that one more program would fit.
    """

    keys: int
    warps: int
    stages: int
    registers: int = 0

    def constexprs(self, width: int, layout: str, dtype: str, interpret: bool) -> dict[str, Any]:
        """Compile-time values of both split kernels."""
        return {
            "ROWS": ROWS,
            "KEYS": self.keys,
            "WIDTH": width,
            "PADDED": layout != "exact",
            "PRECISION": "tf32" if dtype == "tf32" else "ieee",
            "ACC": accumulator(dtype)[0],
            "INTERPRET": interpret,
        }

    def options(self) -> dict[str, Any]:
        """Launch options."""
        limit = {"maxnreg": self.registers} if self.registers else {}
        return checked_options(num_warps=self.warps, num_stages=self.stages, **limit)


def accumulator(dtype: str) -> tuple[Any, torch.dtype]:
    """The type of sums, for Triton and for PyTorch; float64 is for the interpreter."""
    return (tl.float64, torch.float64) if dtype == "fp64" else (tl.float32, torch.float32)


_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}
WIDTHS = (32, 64, 128, 256)
# Queries of a group in one block: the least that a tensor core takes, and the widest group in common use.
ROWS = 16


def _keys(dtype: str, width: int, layout: str) -> int:
    """Keys at a time: 16 KiB of keys and as many of values, two or three times, leave room for two programs per SM."""
    most = {"bf16": 128, "fp16": 128, "tf32": 64}.get(dtype, 32)
    # 8192 elements of 16 bits are 16 KiB; float32 without tensor cores holds its operands in registers.
    elements = {"bf16": 8192, "fp16": 8192, "tf32": 4096}.get(dtype, 2048)
    return max(16, min(most, elements // width) // (2 if layout == "unaligned" else 1))


def tile_for(dtype: str, width: int, layout: str, backward: bool) -> Tile:
    """The tile of a configuration; the same table is compiled and launched.

    Found by compiling: none spills on sm_80, sm_90 and sm_100. Without alignment nothing is pipelined, and without
    tensor cores neither.
    """
    keys = _keys(dtype, width, layout)
    if backward:
        keys = 16 if layout == "unaligned" else max(16, keys // 2)
    registers = ALL if backward and dtype in ("fp32", "tf32") else 0
    if dtype in ("fp32", "fp64"):
        return Tile(keys, 8 if width > 64 else 4, 1, registers)
    return Tile(keys, 8 if backward and width == 256 else 4, 1 if layout == "unaligned" else 3, registers)


def _too_wide(dtype: str, width: int) -> bool:
    """Whether the backward pass is left to PyTorch: without tensor cores a block of 256 columns fits no registers."""
    return dtype == "fp32" and width == 256


# The merge: this many splits and columns at a time, which are 32 registers per thread of 4 warps.
_MERGE_TILE = {"SPLITS": 128, "COLUMNS": 32}
_MERGE_OPTIONS = {"num_warps": 4, "num_stages": 1}


_FLOAT32 = ("sums", "tops", "totals", "logarithms", "dsums")


def _compiled(
    label: str, program: _Program, dtype: str, aligned: bool, constexprs: dict[str, Any], **how: Any
) -> CompileCase:
    return CompileCase(
        label=label,
        kernel=program.kernel(aligned),
        signature={
            **{name: "*fp32" if name in _FLOAT32 else _ELEMENT[dtype] for name in program.pointers},
            "lengths": "*i64",
            **({"scale": "fp32"} if program is not MERGE else {}),
            **dict.fromkeys((*program.counts, *program.sizes), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*program.pointers, *program.sizes) if aligned else (),
        **how,
    )


def _case(dtype: str, width: int, layout: str, backward: bool) -> CompileCase:
    tile = tile_for(dtype, width, layout, backward)
    tensor_cores = ("tensor",) if dtype != "fp32" else ()
    aligned = layout != "unaligned"
    # Of each kind one is compiled in every test run, at 128 columns; in bf16 every width.
    exact, common = layout == "exact", width == 128
    return _compiled(
        f"{dtype} P={width} {layout} {'backward' if backward else 'forward'}",
        BACKWARD if backward else SPLIT,
        dtype,
        aligned,
        tile.constexprs(width, layout, dtype, interpret=False),
        options=tile.options(),
        expects=(*tensor_cores, "wide loops") if aligned else tensor_cores,
        representative=exact and common and (dtype == "bf16" or not backward),
        rare=not ((exact or common) if dtype == "bf16" else exact and common),
    )


def _merge_case(dtype: str, aligned: bool) -> CompileCase:
    return _compiled(
        f"{dtype} merge {'aligned' if aligned else 'unaligned'}",
        MERGE,
        dtype,
        aligned,
        {**_MERGE_TILE, "ACC": tl.float32},
        options=checked_options(**_MERGE_OPTIONS),
        expects=("wide loops",) if aligned else (),
        rare=dtype != "bf16",
    )


COMPILE = [
    *(
        _case(dtype, width, layout, backward)
        for dtype in _ELEMENT
        for width in WIDTHS
        for layout in ("exact", "padded", "unaligned")
        for backward in (False, True)
        if not (backward and _too_wide(dtype, width))
    ),
    # tf32 merges as fp32 does.
    *(_merge_case(dtype, aligned) for dtype in ("bf16", "fp16", "fp32") for aligned in (True, False)),
]


@dataclass(frozen=True)
class Plan:
    """How one call is launched. `splits` of `chunk` keys each; tiles of both directions have the same chunk."""

    shape: Shape
    dtype: str
    layout: str
    width: int
    splits: int
    chunk: int

    @property
    def scale(self) -> float:
        """Scores as powers of two, divided by the root of their length."""
        return math.log2(math.e) / math.sqrt(self.shape.P)

    def sizes(self) -> tuple[int, ...]:
        """K, P, R, G, chunk, splits and ragged, as the kernels take them."""
        shape = self.shape
        return shape.K, shape.P, shape.N // shape.G, shape.G, self.chunk, self.splits, shape.ragged


# Two programs per SM overlap one's arithmetic with the other's loads; tiles are small enough for that.
_PROGRAMS_PER_SM = 2
# Starting a program and filling its pipeline costs about as much as so many tiles of keys.
_TILES_TO_START = 2
# Rounds of programs that are considered; more would only make the merge longer.
_MOST_ROUNDS = 4
# Without a GPU, in the interpreter, programs follow one another; a few make several splits, so that merging is tested.
_SMS_OF_THE_INTERPRETER = 4


def best_splits(groups: int, tiles: int, sms: int) -> int:
    """Choose into how many splits the `tiles` of keys of each of `groups` sequences and heads are cut.

    The time of a choice is its rounds of programs times the tiles of one program, with its start; the least wins.
    """
    slots = _PROGRAMS_PER_SM * sms
    choices = [min(tiles, max(1, rounds * slots // groups)) for rounds in range(1, _MOST_ROUNDS + 1)]

    def time_of(splits: int) -> int:
        each = -(-tiles // splits)
        return -(-groups * -(-tiles // each) // slots) * (each + _TILES_TO_START)

    return min(choices, key=time_of)


def _sms(device: torch.device) -> int:
    if device.type != "cuda":
        return _SMS_OF_THE_INTERPRETER
    return torch.cuda.get_device_properties(device).multi_processor_count


def why_not_shape(shape: Shape) -> str | None:
    """Say why the kernels do not take a shape, or None when they do."""
    if WIDTHS[-1] < shape.P:
        return f"the Triton kernels take head dimensions up to {WIDTHS[-1]}, not P={shape.P}"
    shared = shape.N // shape.G
    if shared > ROWS:
        return f"the Triton kernels take groups of up to {ROWS} queries, not N/G={shared}"
    return None


def _plan(shape: Shape, splits: int | None, q: Tensor, k: Tensor, v: Tensor) -> Plan:
    dtype = dtype_of(q)
    numbers = (shape.P, *(n for t in (q, k, v) for n in (*t.stride()[:-1], t.data_ptr())))
    width = max(WIDTHS[0], triton.next_power_of_2(shape.P))
    layout = ("exact" if width == shape.P else "padded") if all(n % 16 == 0 for n in numbers) else "unaligned"
    keys = tile_for(dtype, width, layout, backward=False).keys
    tiles = -(-shape.K // keys)
    wanted = best_splits(shape.B * shape.G, tiles, _sms(q.device)) if splits is None else min(splits, tiles)
    each = -(-tiles // wanted)
    return Plan(shape, dtype, layout, width, -(-tiles // each), each * keys)


def _dense(tensor: Tensor) -> Tensor:
    """The same values with a dense last axis."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _strides(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...]:
    return (*q.stride()[:2], *k.stride()[:3], *v.stride()[:3])


def _launch_forward(plan: Plan, lengths: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Compute o (B, N, P) and the logarithms to base 2 (B, N) of the sums of 2^score."""
    shape, aligned = plan.shape, plan.layout != "unaligned"
    kind = accumulator(plan.dtype)[1]
    queries = shape.B * shape.N
    o = torch.empty((shape.B, shape.N, shape.P), dtype=q.dtype, device=q.device)
    logarithms = torch.empty((shape.B, shape.N), dtype=kind, device=q.device)
    sums = torch.empty((queries, plan.splits, shape.P), dtype=kind, device=q.device)
    tops, totals = (torch.empty((queries, plan.splits), dtype=kind, device=q.device) for _ in range(2))
    tile = tile_for(plan.dtype, plan.width, plan.layout, backward=False)
    constexprs = tile.constexprs(plan.width, plan.layout, plan.dtype, interpreted())
    SPLIT.kernel(aligned)[(shape.B * shape.G * plan.splits,)](
        q, k, v, lengths, sums, tops, totals, plan.scale, *plan.sizes(), *_strides(q, k, v),
        **constexprs, **tile.options(),
    )  # fmt: skip
    grid = (queries, triton.cdiv(shape.P, _MERGE_TILE["COLUMNS"]))
    MERGE.kernel(shape.P % 16 == 0)[grid](
        sums, tops, totals, lengths, o, logarithms, shape.K, shape.P, shape.N, plan.chunk, plan.splits, shape.ragged,
        **_MERGE_TILE, ACC=accumulator(plan.dtype)[0], **checked_options(**_MERGE_OPTIONS),
    )  # fmt: skip
    return o, logarithms


def _launch_backward(
    plan: Plan, lengths: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, logarithms: Tensor, do: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    shape = plan.shape
    do = do.contiguous()
    do = do if do.data_ptr() % 16 == 0 else do.clone()
    kind = accumulator(plan.dtype)[1]
    dsums = torch.empty((shape.B, shape.N, plan.splits, shape.P), dtype=kind, device=q.device)
    dk, dv = (torch.empty((shape.B, shape.G, shape.K, shape.P), dtype=q.dtype, device=q.device) for _ in range(2))
    tile = tile_for(plan.dtype, plan.width, plan.layout, backward=True)
    constexprs = tile.constexprs(plan.width, plan.layout, plan.dtype, interpreted())
    BACKWARD.kernel(plan.layout != "unaligned")[(shape.B * shape.G * plan.splits,)](
        q, k, v, o, do, logarithms, lengths, dsums, dk, dv, plan.scale, *plan.sizes(), *_strides(q, k, v),
        **constexprs, **tile.options(),
    )  # fmt: skip
    return dsums.sum(2).to(q.dtype), dk, dv


def _plain_backward(
    plan: Plan, lengths: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, logarithms: Tensor, do: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by PyTorch's products, with all scores of the queries in memory."""
    shape = plan.shape
    queries, results, above = (t.reshape(shape.B, shape.G, -1, shape.P) for t in (q, o, do))
    valid = None
    if shape.ragged:
        valid = (torch.arange(shape.K, device=q.device) < lengths[:, None])[:, None, None]
        k, v = (torch.where(valid.transpose(-1, -2), tensor, 0) for tensor in (k, v))
    weights = torch.exp2(queries @ k.mT * plan.scale - logarithms.reshape(shape.B, shape.G, -1, 1))
    share = (above * results).sum(-1, keepdim=True)
    dscores = weights * (above @ v.mT - share) / math.sqrt(shape.P)
    if valid is not None:
        weights, dscores = (torch.where(valid, tensor, 0) for tensor in (weights, dscores))
    return (dscores @ k).reshape(q.shape), dscores.mT @ queries, weights.mT @ above


class _Decode(torch.autograd.Function):
    """Attention of one query per sequence: q (B, N, P), k and v (B, G, K, P) -> o (B, N, P)."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, lengths: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o, logarithms = _launch_forward(plan, lengths, q, k, v)
        ctx.save_for_backward(lengths, q, k, v, o, logarithms)
        ctx.plan = plan
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        lengths, q, k, v, o, logarithms = ctx.saved_tensors
        differentiate = _plain_backward if _too_wide(ctx.plan.dtype, ctx.plan.width) else _launch_backward
        return (None, None, *differentiate(ctx.plan, lengths, q, k, v, o, logarithms, gradients[0]))


def decode(
    shape: Shape, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, splits: int | None = None
) -> Tensor:
    """Attend by the Triton kernels, differentiably; returns o (B, N, P). B must be at least 1.

    All axes but the last may have any stride; where that is not dense, a copy is made, as of lengths.
    lengths : (B,) int64, keys of every sequence, if the shape is ragged. splits : parts into which the keys are cut,
        at most one per tile of keys; chosen by the size of the problem and of the GPU unless given.
    Raises ValueError for a shape that the kernels do not take.
    """
    refused = why_not_shape(shape)
    if refused:
        raise ValueError(refused + ".")
    q, k, v = _dense(q), _dense(k), _dense(v)
    plan = _plan(shape, splits, q, k, v)
    # Without lengths nobody reads them, but they have a type.
    lengths = torch.empty(1, dtype=torch.int64, device=q.device) if lengths is None else lengths.contiguous()
    return _Decode.apply(plan, lengths, q, k, v)  # pyright: ignore[reportReturnType]
