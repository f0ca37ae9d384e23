"""Layer normalisation in Triton, alone or with the addition before it: h = x + a, y = (h - mean) / std weight + bias

Both are bound by memory. The sum of the residual stream and of what a layer adds to it is read by the normalisation
in the same launch that writes it, and its gradient takes the same way back. R rows of M columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..roofline.contract import CompileCase
from ._torch import once_differentiable
from ._triton import checked_options, tl, triton

# The constant of torch.nn.LayerNorm that keeps the root of a variance of zero away from a division.
EPSILON = 1e-5


def _normalise(
    x, added, weight, bias, h, y, means, scales, R, M, x_row, added_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr, ACC: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """Normalise ROWS rows; with ADD, `added` is added to x first and the sum written to h.

    Mean and 1/std of every row (R) are left for the backward pass.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < R)[:, None] & (column < M)[None, :]
    place = (row.to(tl.int64) * M)[:, None] + column[None, :]
    value = tl.load(x + (row.to(tl.int64) * x_row)[:, None] + column[None, :], mask=mask, other=0.0)
    if ADD:
        more = tl.load(added + (row.to(tl.int64) * added_row)[:, None] + column[None, :], mask=mask, other=0.0)
        value = (value.to(ACC) + more.to(ACC)).to(h.dtype.element_ty)
        tl.store(h + place, value, mask=mask)
    value = value.to(ACC)
    mean = tl.sum(value, 1) / M
    centred = tl.where(mask, value - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / M + EPSILON)
    factor = tl.load(weight + column, mask=column < M, other=0.0).to(ACC)
    shift = tl.load(bias + column, mask=column < M, other=0.0).to(ACC)
    result = centred * scale[:, None] * factor[None, :] + shift[None, :]
    tl.store(y + place, result.to(y.dtype.element_ty), mask=mask)
    tl.store(means + row, mean, mask=row < R)
    tl.store(scales + row, scale, mask=row < R)


def _normalise_backward(
    dy, dh, h, weight, means, scales, dx, dweights, dbiases, R, M, h_row, turns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of `turns` blocks of rows; with ADD the gradient of h itself is added to dx.

    A program sums the gradients of weight and bias over its rows, and leaves them in a row of its own of `dweights` and
    `dbiases` (programs, M).
    """
    column = tl.arange(0, COLUMNS)
    factor = tl.load(weight + column, mask=column < M, other=0.0).to(ACC)
    dfactor = tl.zeros((ROWS, COLUMNS), ACC)
    dshift = tl.zeros((ROWS, COLUMNS), ACC)
    for turn in range(turns):
        row = (turn * tl.num_programs(0) + tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
        mask = (row < R)[:, None] & (column < M)[None, :]
        place = (row.to(tl.int64) * M)[:, None] + column[None, :]
        above = tl.load(dy + place, mask=mask, other=0.0).to(ACC)
        value = tl.load(h + (row.to(tl.int64) * h_row)[:, None] + column[None, :], mask=mask, other=0.0).to(ACC)
        mean = tl.load(means + row, mask=row < R, other=0.0)
        scale = tl.load(scales + row, mask=row < R, other=0.0)
        normal = tl.where(mask, (value - mean[:, None]) * scale[:, None], 0.0)
        dfactor += above * normal
        dshift += above
        weighted = above * factor[None, :]
        parallel = tl.sum(weighted * normal, 1) / M
        result = (weighted - (tl.sum(weighted, 1) / M)[:, None] - normal * parallel[:, None]) * scale[:, None]
        if ADD:
            result += tl.load(dh + place, mask=mask, other=0.0).to(ACC)
        tl.store(dx + place, result.to(dx.dtype.element_ty), mask=mask)
    total = tl.program_id(0) * M + column
    tl.store(dweights + total, tl.sum(dfactor, 0), mask=column < M)
    tl.store(dbiases + total, tl.sum(dshift, 0), mask=column < M)


_FORWARD = ("x", "added", "weight", "bias", "h", "y", "means", "scales")
_BACKWARD = ("dy", "dh", "h", "weight", "means", "scales", "dx", "dweights", "dbiases")
_FLOAT32 = ("means", "scales", "dweights", "dbiases")
_FORWARD_SIZES, _BACKWARD_SIZES = ("M", "x_row", "added_row"), ("M", "h_row")
# Two kernels from one function each, so that exactly the signatures that are compiled offline are ever launched: all
# pointers and sizes multiples of 16, which gives 128-bit loads, or nothing known.
_forward_aligned = triton.jit(do_not_specialize=["R"])(_normalise)
_forward_unaligned = triton.jit(do_not_specialize=["R", *_FORWARD, *_FORWARD_SIZES])(_normalise)
_backward_aligned = triton.jit(do_not_specialize=["R", "turns"])(_normalise_backward)
_backward_unaligned = triton.jit(do_not_specialize=["R", "turns", *_BACKWARD, *_BACKWARD_SIZES])(_normalise_backward)

# Columns of a block: a row is held whole, in registers.
COLUMNS = (256, 512, 1024, 2048, 4096, 8192)
# The widest row without alignment: with an address for every element, more spill registers.
_WIDEST_UNALIGNED = 4096
# A program holds at least so many elements, 16 per thread of 4 warps: two loads of 16 bytes in 16-bit types.
_ELEMENTS = 2048
_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
# Programs of the backward pass per SM; each leaves a row of sums, so few are better.
_PROGRAMS_PER_SM = 4
# Without a GPU, in the interpreter: two programs take several turns each.
_PROGRAMS_OF_THE_INTERPRETER = 2


def _constexprs(columns: int, add: bool, kind: Any, backward: bool) -> dict[str, Any]:
    shared = {"ROWS": max(1, _ELEMENTS // columns), "COLUMNS": columns, "ADD": add, "ACC": kind}
    return shared if backward else shared | {"EPSILON": EPSILON}


def _options(columns: int) -> dict[str, Any]:
    return checked_options(num_warps=max(4, columns // 512), num_stages=1)


def _case(dtype: str, columns: int, aligned: bool, add: bool, backward: bool) -> CompileCase:
    pointers, sizes = (_BACKWARD, _BACKWARD_SIZES) if backward else (_FORWARD, _FORWARD_SIZES)
    kernels = (_backward_unaligned, _backward_aligned) if backward else (_forward_unaligned, _forward_aligned)
    constexprs = _constexprs(columns, add, tl.float32, backward)
    words = [dtype, "norm", str(columns), "aligned" if aligned else "unaligned", *["added"] * add]
    middle = columns == 1024 and add
    usual = middle and dtype != "fp16"
    return CompileCase(
        label=" ".join([*words, "backward" if backward else "forward"]),
        kernel=kernels[aligned],
        signature={
            **{name: "*fp32" if name in _FLOAT32 else _ELEMENT[dtype] for name in pointers},
            **dict.fromkeys(("R", *(["turns"] if backward else []), *sizes), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*pointers, *sizes) if aligned else (),
        options=_options(columns),
        expects=("wide loops",) if aligned else (),
        representative=aligned and (usual or (middle and not backward)),
        rare=not (usual or (dtype == "bf16" and aligned and columns in (1024, 8192))),
    )


COMPILE = [
    _case(dtype, columns, aligned, add, backward)
    for dtype in _ELEMENT
    for columns in COLUMNS
    for aligned in (True, False)
    for add in (True, False)
    for backward in (False, True)
    if aligned or columns <= _WIDEST_UNALIGNED
]


def why_not_width(M: int) -> str | None:
    """Say why rows of M values cannot be normalised, or None when they can."""
    if COLUMNS[-1] < M:
        return f"the Triton normalisation holds a whole row, up to {COLUMNS[-1]} values, not M={M}"
    if M % 16 and _WIDEST_UNALIGNED < M:
        return (
            f"the Triton normalisation takes rows of more than {_WIDEST_UNALIGNED} values in multiples of 16, not M={M}"
        )
    return None


@dataclass(frozen=True)
class _Sums:
    """The type of sums, for Triton and for PyTorch; float64 is for the interpreter."""

    device: Any
    host: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> _Sums:
        wide = tensor.dtype == torch.float64
        return _Sums(tl.float64, torch.float64) if wide else _Sums(tl.float32, torch.float32)


def _rows(tensor: Tensor) -> Tensor:
    """The tensor as dense rows (R, M), at an address that wide loads can take."""
    dense = tensor.reshape(-1, tensor.shape[-1])
    # A stride that spoils what a row's length allows is worth a copy.
    spoilt = dense.shape[1] % 16 == 0 and dense.stride(0) % 16
    dense = dense.contiguous() if spoilt or dense.stride(1) != 1 else dense
    return dense if dense.data_ptr() % 16 == 0 else dense.clone()


def _aligned(*numbers: int) -> bool:
    return all(number % 16 == 0 for number in numbers)


class _Normalise(torch.autograd.Function):
    """x (..., M), what is added to it or None, weight (M), bias (M) -> their sum, or x itself, and the norm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        rows = _rows(x)
        more = rows if added is None else _rows(added)
        weight, bias = _rows(weight)[0], _rows(bias)[0]
        R, M = rows.shape
        sums = _Sums.of(x)
        h = rows if added is None else torch.empty((R, M), dtype=x.dtype, device=x.device)
        y = torch.empty((R, M), dtype=x.dtype, device=x.device)
        means, scales = (torch.empty(R, dtype=sums.host, device=x.device) for _ in range(2))
        columns = max(COLUMNS[0], triton.next_power_of_2(M))
        constexprs = _constexprs(columns, added is not None, sums.device, backward=False)
        kernel = _forward_aligned if _aligned(M, rows.stride(0), more.stride(0)) else _forward_unaligned
        kernel[(triton.cdiv(R, constexprs["ROWS"]),)](
            rows, more, weight, bias, h, y, means, scales, R, M, rows.stride(0), more.stride(0),
            **constexprs, **_options(columns),
        )  # fmt: skip
        ctx.save_for_backward(h, weight, means, scales)
        ctx.columns, ctx.add, ctx.size = columns, added is not None, x.shape
        return None if added is None else h.view(x.shape), y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        h, weight, means, scales = ctx.saved_tensors
        dh, dy = gradients
        constexprs = _constexprs(ctx.columns, ctx.add, _Sums.of(h).device, backward=True)
        dy = _dense(torch.zeros_like(h) if dy is None else dy.reshape(h.shape))
        # An output that nobody used has no gradient.
        dh = _dense(torch.zeros_like(h) if dh is None else dh.reshape(h.shape)) if ctx.add else dy
        R, M = h.shape
        dx = torch.empty((R, M), dtype=h.dtype, device=h.device)
        blocks = triton.cdiv(R, constexprs["ROWS"])
        programs = min(blocks, _most_programs(h.device))
        sums = _Sums.of(h)
        dweights, dbiases = (torch.empty((programs, M), dtype=sums.host, device=h.device) for _ in range(2))
        kernel = _backward_aligned if _aligned(M, h.stride(0)) else _backward_unaligned
        kernel[(programs,)](
            dy, dh, h, weight, means, scales, dx, dweights, dbiases, R, M, h.stride(0), triton.cdiv(blocks, programs),
            **constexprs, **_options(ctx.columns),
        )  # fmt: skip
        dx = dx.view(ctx.size)
        return dx, dx if ctx.add else None, dweights.sum(0).to(h.dtype), dbiases.sum(0).to(h.dtype)


def _dense(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _most_programs(device: torch.device) -> int:
    if device.type != "cuda":
        return _PROGRAMS_OF_THE_INTERPRETER
    return _PROGRAMS_PER_SM * torch.cuda.get_device_properties(device).multi_processor_count


def normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer normalisation of x (..., M), at least one row, differentiably; `why_not_width` says which M it takes."""
    return _Normalise.apply(x, None, weight, bias)[1]  # pyright: ignore[reportOptionalSubscript, reportReturnType]


def add_normalise(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of two tensors and its layer normalisation in one launch."""
    return _Normalise.apply(x, added, weight, bias)  # pyright: ignore[reportReturnType]
