"""Triton parts of separable_conv: the depthwise convolution with its gate, its gradients, and fused with a product.

Letters and layout as in `separable_conv`; all tensors are dense.

A thread computes segments: four steps, `dilation` apart, of some neighbouring channels. For four taps it loads seven
rows, all of them under way together, and uses each row for up to four products: a step that loaded every tap by itself
would spend four times the instructions on addresses and conversions and be bound by these rather than by memory.
Longer filters go in groups of four taps. Neighbouring segments share three rows, which the L1 cache holds.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..roofline.contract import CompileCase
from ._device import dot, sigmoid
from ._triton import checked_options, tl, triton

# Steps of a segment and taps of a group: the functions below are written out for four of each.
ROWS = 4


@triton.jit
def _place(tile, phases, segments, SEGMENTS: tl.constexpr):
    """Give the sequence of a tile (int64) and the first steps of its segments (SEGMENTS).

    The steps of a segment are `phases` apart; neighbouring segments begin at neighbouring steps, as long as these
    belong to different phases.
    """
    tiles = tl.cdiv(segments, SEGMENTS)
    segment = tile % tiles * SEGMENTS + tl.arange(0, SEGMENTS)
    step = segment * 4
    if phases > 1:
        step = segment % phases + segment // phases * (4 * phases)
    return (tile // tiles).to(tl.int64), step


@triton.jit
def _row(x, step, channel, T, C):
    """Load one row per segment of a sequence x (T, C), zeros outside of it: (segments, channels)."""
    seen = ((step >= 0) & (step < T))[:, None] & (channel < C)[None, :]
    return tl.load(x + (step.to(tl.int64) * C)[:, None] + channel[None, :], mask=seen, other=0.0)


@triton.jit
def _factor(weight, tap, channel, C, ACC: tl.constexpr):
    """Load the weights of one tap, zeros for one before the first: (1, channels)."""
    place = channel + tap * C
    return tl.load(weight + place, mask=(channel < C) & (place >= 0), other=0.0).to(ACC)[None, :]


@triton.jit
def _convolve(x, weight, bias, step, channel, T, C, taps, phases, ACC: tl.constexpr):
    """Depthwise convolution of a sequence x (T, C), bias included: the four steps of the segments beginning at `step`.

    The first group of taps may lack up to three; what it would multiply with zero may be NaN and is left out.
    """
    start = tl.load(bias + channel, mask=channel < C, other=0.0).to(ACC)
    h0 = tl.zeros((step.shape[0], channel.shape[0]), ACC) + start[None, :]
    h1, h2, h3 = h0, h0, h0
    for first in range(taps - tl.cdiv(taps, 4) * 4, taps, 4):
        oldest = step - (taps - 1 - first) * phases
        x0 = _row(x, oldest, channel, T, C)
        x1 = _row(x, oldest + phases, channel, T, C)
        x2 = _row(x, oldest + 2 * phases, channel, T, C)
        x3 = _row(x, oldest + 3 * phases, channel, T, C)
        x4 = _row(x, oldest + 4 * phases, channel, T, C).to(ACC)
        x5 = _row(x, oldest + 5 * phases, channel, T, C).to(ACC)
        x6 = _row(x, oldest + 6 * phases, channel, T, C).to(ACC)
        w0 = _factor(weight, first, channel, C, ACC)
        w1 = _factor(weight, first + 1, channel, C, ACC)
        w2 = _factor(weight, first + 2, channel, C, ACC)
        w3 = _factor(weight, first + 3, channel, C, ACC)
        x1, x2, x3 = x1.to(ACC), x2.to(ACC), x3.to(ACC)
        if first >= 0:
            h0, h1, h2, h3 = h0 + x0.to(ACC) * w0, h1 + x1 * w0, h2 + x2 * w0, h3 + x3 * w0
        if first >= -1:
            h0, h1, h2, h3 = h0 + x1 * w1, h1 + x2 * w1, h2 + x3 * w1, h3 + x4 * w1
        if first >= -2:
            h0, h1, h2, h3 = h0 + x2 * w2, h1 + x3 * w2, h2 + x4 * w2, h3 + x5 * w2
        h0, h1, h2, h3 = h0 + x3 * w3, h1 + x4 * w3, h2 + x5 * w3, h3 + x6 * w3
    return h0, h1, h2, h3


@triton.jit
def _sigmoid(x, INTERPRET: tl.constexpr) -> Any:
    """1 / (1 + exp(-x)) in five instructions: the general exponential and quotient take twelve, half of such a kernel.

    What they guard, denormal numbers, cannot matter: the denominator is at least one, and a result below the normal
    numbers is zero. NaN stays NaN.
    """
    if INTERPRET:
        result = sigmoid(x)
    else:
        result = tl.inline_asm_elementwise(
            "{ .reg .f32 e; mul.f32 e, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 e, e;"  # -log2(e)
            " add.f32 e, e, 0f3F800000; rcp.approx.ftz.f32 $0, e; }",  # 1
            "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    return result


@triton.jit
def _gated(h, z, step, channel, T, C, GATE: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr):
    """h as it is (GATE 0), h sigmoid(h) (GATE 1), or h silu(z) (GATE 2) with the row of `step` of a sequence z."""
    result = h
    if GATE == 1:
        result = h * _sigmoid(h, INTERPRET)
    if GATE == 2:
        other = _row(z, step, channel, T, C).to(ACC)
        result = h * (other * _sigmoid(other, INTERPRET))
    return result


@triton.jit
def _store(y, step, channel, T, C, value):
    """Store one row per segment of a sequence y (T, C)."""
    mask = (step < T)[:, None] & (channel < C)[None, :]
    tl.store(y + (step.to(tl.int64) * C)[:, None] + channel[None, :], value.to(y.dtype.element_ty), mask=mask)


def _depthwise(
    x, weight, bias, z, y, T, taps, phases, segments, C,
    SEGMENTS: tl.constexpr, CHANNELS: tl.constexpr, GATE: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y, the gated depthwise convolution, for SEGMENTS segments and CHANNELS channels of one sequence."""
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch, step = _place(tl.program_id(0) // channel_blocks, phases, segments, SEGMENTS)
    start = batch * T * C
    h0, h1, h2, h3 = _convolve(x + start, weight, bias, step, channel, T, C, taps, phases, ACC)
    z += start
    y += start
    _store(y, step, channel, T, C, _gated(h0, z, step, channel, T, C, GATE, ACC, INTERPRET))
    step += phases
    _store(y, step, channel, T, C, _gated(h1, z, step, channel, T, C, GATE, ACC, INTERPRET))
    step += phases
    _store(y, step, channel, T, C, _gated(h2, z, step, channel, T, C, GATE, ACC, INTERPRET))
    step += phases
    _store(y, step, channel, T, C, _gated(h3, z, step, channel, T, C, GATE, ACC, INTERPRET))


@triton.jit
def _row_through_gate(
    h, z, above, dh, dz, step, channel, T, C, GATE: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr
):
    """Turn a row of the gradient `above` of the gated output into rows of dh and dz."""
    gradient = _row(above, step, channel, T, C).to(ACC)
    if GATE == 1:
        s = _sigmoid(h, INTERPRET)
        gradient *= s * (1.0 + h * (1.0 - s))
    if GATE == 2:
        other = _row(z, step, channel, T, C).to(ACC)
        s = _sigmoid(other, INTERPRET)
        _store(dz, step, channel, T, C, gradient * h * (s * (1.0 + other * (1.0 - s))))
        gradient *= other * s
    _store(dh, step, channel, T, C, gradient)


def _through_gate(
    x, weight, bias, z, above, dh, dz, T, taps, phases, segments, C,
    SEGMENTS: tl.constexpr, CHANNELS: tl.constexpr, GATE: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Turn the gradient `above` of the gated output into dh, that of the convolution, and dz; h is computed again."""
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch, step = _place(tl.program_id(0) // channel_blocks, phases, segments, SEGMENTS)
    start = batch * T * C
    h0, h1, h2, h3 = _convolve(x + start, weight, bias, step, channel, T, C, taps, phases, ACC)
    z += start
    above += start
    dh += start
    dz += start
    _row_through_gate(h0, z, above, dh, dz, step, channel, T, C, GATE, ACC, INTERPRET)
    step += phases
    _row_through_gate(h1, z, above, dh, dz, step, channel, T, C, GATE, ACC, INTERPRET)
    step += phases
    _row_through_gate(h2, z, above, dh, dz, step, channel, T, C, GATE, ACC, INTERPRET)
    step += phases
    _row_through_gate(h3, z, above, dh, dz, step, channel, T, C, GATE, ACC, INTERPRET)


@triton.jit
def _share(
    partial, tap, x0, x1, x2, x3, d0, d1, d2, d3, target, phases, channel, T, C,
):  # fmt: skip
    """Store a tap's sum over the tile: inputs times the gradients of the steps from `target` on, which saw them.

    An input that no step is left to see may be infinite or NaN: it has no share.
    """
    total = tl.where((target < T)[:, None], x0, 0.0) * d0
    total += tl.where((target + phases < T)[:, None], x1, 0.0) * d1
    total += tl.where((target + 2 * phases < T)[:, None], x2, 0.0) * d2
    total += tl.where((target + 3 * phases < T)[:, None], x3, 0.0) * d3
    tl.store(partial + tap * C + channel, tl.sum(total, 0), mask=channel < C)


def _spread(
    x, weight, dh, dx, partial, T, taps, phases, segments, C,
    SEGMENTS: tl.constexpr, CHANNELS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Compute dx, and this tile's share of dweight and dbias, from the gradient dh of the convolution.

    partial (tiles, taps + 1, C) in ACC: the sums over the tile's inputs, one row per tap and one for the bias. Every
    input meets the gradients of the steps that saw it, so that dh is loaded once for dx and dweight alike.
    """
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    tile = tl.program_id(0) // channel_blocks
    batch, step = _place(tile, phases, segments, SEGMENTS)
    x += batch * T * C
    dh += batch * T * C
    dx += batch * T * C
    partial += tile.to(tl.int64) * (taps + 1) * C
    x0 = _row(x, step, channel, T, C).to(ACC)
    x1 = _row(x, step + phases, channel, T, C).to(ACC)
    x2 = _row(x, step + 2 * phases, channel, T, C).to(ACC)
    x3 = _row(x, step + 3 * phases, channel, T, C).to(ACC)
    d0 = _row(dh, step, channel, T, C).to(ACC)
    d1 = _row(dh, step + phases, channel, T, C).to(ACC)
    d2 = _row(dh, step + 2 * phases, channel, T, C).to(ACC)
    d3 = _row(dh, step + 3 * phases, channel, T, C).to(ACC)
    tl.store(partial + taps * C + channel, tl.sum(d0 + d1 + d2 + d3, 0), mask=channel < C)

    g0 = tl.zeros((SEGMENTS, CHANNELS), ACC)
    g1, g2, g3 = g0, g0, g0
    for tap in range(taps - 1, -1, -4):
        target = step + (taps - 1 - tap) * phases
        d4 = _row(dh, target + 4 * phases, channel, T, C).to(ACC)
        d5 = _row(dh, target + 5 * phases, channel, T, C).to(ACC)
        d6 = _row(dh, target + 6 * phases, channel, T, C).to(ACC)
        d7 = _row(dh, target + 7 * phases, channel, T, C).to(ACC)
        w = _factor(weight, tap, channel, C, ACC)
        g0, g1, g2, g3 = g0 + d0 * w, g1 + d1 * w, g2 + d2 * w, g3 + d3 * w
        _share(partial, tap, x0, x1, x2, x3, d0, d1, d2, d3, target, phases, channel, T, C)
        if tap >= 1:
            w = _factor(weight, tap - 1, channel, C, ACC)
            g0, g1, g2, g3 = g0 + d1 * w, g1 + d2 * w, g2 + d3 * w, g3 + d4 * w
            _share(partial, tap - 1, x0, x1, x2, x3, d1, d2, d3, d4, target + phases, phases, channel, T, C)
        if tap >= 2:
            w = _factor(weight, tap - 2, channel, C, ACC)
            g0, g1, g2, g3 = g0 + d2 * w, g1 + d3 * w, g2 + d4 * w, g3 + d5 * w
            _share(partial, tap - 2, x0, x1, x2, x3, d2, d3, d4, d5, target + 2 * phases, phases, channel, T, C)
        if tap >= 3:
            w = _factor(weight, tap - 3, channel, C, ACC)
            g0, g1, g2, g3 = g0 + d3 * w, g1 + d4 * w, g2 + d5 * w, g3 + d6 * w
            _share(partial, tap - 3, x0, x1, x2, x3, d3, d4, d5, d6, target + 3 * phases, phases, channel, T, C)
        d0, d1, d2, d3 = d4, d5, d6, d7
    _store(dx, step, channel, T, C, g0)
    _store(dx, step + phases, channel, T, C, g1)
    _store(dx, step + 2 * phases, channel, T, C, g2)
    _store(dx, step + 3 * phases, channel, T, C, g3)


def _separable(
    x, weight, bias, z, pointwise, pointwise_bias, y, T, taps, phases, segments, C, O,
    SEGMENTS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, GATE: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y for the steps of SEGMENTS segments and OUTPUTS outputs: the gated convolution never goes to memory.

    It is rounded to the type of the tensors, as if it had been stored. Neighbouring programs share their inputs.
    """
    output_blocks = tl.cdiv(O, OUTPUTS)
    output = tl.program_id(0) % output_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    batch, step = _place(tl.program_id(0) // output_blocks, phases, segments, SEGMENTS)
    x += batch * T * C
    z += batch * T * C
    start = tl.load(pointwise_bias + output, mask=output < O, other=0.0).to(ACC)
    total = tl.zeros((4 * SEGMENTS, OUTPUTS), ACC) + start[None, :]
    for first in range(0, C, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        h0, h1, h2, h3 = _convolve(x, weight, bias, step, channel, T, C, taps, phases, ACC)
        h0 = _gated(h0, z, step, channel, T, C, GATE, ACC, INTERPRET).to(x.dtype.element_ty)
        h1 = _gated(h1, z, step + phases, channel, T, C, GATE, ACC, INTERPRET).to(x.dtype.element_ty)
        h2 = _gated(h2, z, step + 2 * phases, channel, T, C, GATE, ACC, INTERPRET).to(x.dtype.element_ty)
        h3 = _gated(h3, z, step + 3 * phases, channel, T, C, GATE, ACC, INTERPRET).to(x.dtype.element_ty)
        # Row 4 s + j of the product is step j of segment s.
        rows = tl.join(tl.join(h0, h2), tl.join(h1, h3)).permute(0, 2, 3, 1).reshape(4 * SEGMENTS, CHANNELS)
        factors = tl.load(
            pointwise + (channel.to(tl.int64) * O)[:, None] + output[None, :],
            mask=(channel < C)[:, None] & (output < O)[None, :],
            other=0.0,
        )
        total = dot(rows, factors, total, PRECISION, INTERPRET)
    row = tl.arange(0, 4 * SEGMENTS)
    segment = tl.program_id(0) // output_blocks % tl.cdiv(segments, SEGMENTS) * SEGMENTS + row // 4
    step = segment % phases + (segment // phases * 4 + row % 4) * phases
    _store(y + batch * T * O, step, output, T, O, total)


_COUNTS = ("T", "taps", "phases", "segments")


@dataclass(frozen=True)
class Program:
    """One kernel function with its tensors, in their order, and its sizes that have to be multiples of 16."""

    name: str
    function: Any
    tensors: tuple[str, ...]
    sizes: tuple[str, ...] = ("C",)
    gated: bool = True

    def kernel(self, aligned: bool) -> Any:
        """The compiled function: two from one, so that exactly the signatures compiled offline are ever launched.

        `aligned` takes all pointers and sizes as multiples of 16, which gives 128-bit loads; the other knows nothing.
        """
        return _KERNELS[self.name, aligned]


DEPTHWISE = Program("depthwise", _depthwise, ("x", "weight", "bias", "z", "y"))
THROUGH_GATE = Program("through gate", _through_gate, ("x", "weight", "bias", "z", "above", "dh", "dz"))
SPREAD = Program("spread", _spread, ("x", "weight", "dh", "dx", "partial"), gated=False)
SEPARABLE = Program(
    "separable", _separable, ("x", "weight", "bias", "z", "pointwise", "pointwise_bias", "y"), ("C", "O")
)
_KERNELS = {
    (program.name, aligned): triton.jit(
        do_not_specialize=[*_COUNTS] if aligned else [*_COUNTS, *program.sizes, *program.tensors]
    )(program.function)
    for program in (DEPTHWISE, THROUGH_GATE, SPREAD, SEPARABLE)
    for aligned in (True, False)
}


@dataclass(frozen=True)
class Tile:
    """What one program does: `segments` of four steps by `channels` channels; a fused one, into `outputs` outputs."""

    segments: int
    channels: int
    warps: int
    outputs: int = 0

    def constexprs(self, program: Program, gate: int, dtype: str, interpret: bool) -> dict[str, Any]:
        """Compile-time values of a program for this tile."""
        values: dict[str, Any] = {"SEGMENTS": self.segments, "CHANNELS": self.channels}
        values["ACC"] = tl.float64 if dtype == "fp64" else tl.float32
        if program.gated:
            values |= {"GATE": gate, "INTERPRET": interpret}
        if program is SEPARABLE:
            precision = "tf32" if dtype == "tf32" else "ieee"
            values |= {"OUTPUTS": self.outputs, "PRECISION": precision}
        return values

    def options(self) -> dict[str, Any]:
        """Backend options. One stage: pipelined loads pass by the L1 cache, where the taps find their rows."""
        return checked_options(num_warps=self.warps, num_stages=1)


# Alone: a thread has one wide load per row, four new rows and three shared ones. With 16 warps on an SM 32 KB of new
# inputs are under way; reads are half of the traffic and need 13 KB at 4.3 TB/s and 0.8 us. Rows of 256 bytes, or of 32
# channels for the narrow ones.
_ALONE = {2: (Tile(64, 32, 8), Tile(16, 128, 8)), 4: (Tile(32, 32, 8), Tile(16, 64, 8))}
# The sums over a tile are written for every tap: the more steps the less of that traffic.
_SPREAD = {2: (Tile(64, 32, 8), Tile(32, 64, 8)), 4: (Tile(32, 32, 8), Tile(32, 32, 8))}
_UNALIGNED = Tile(16, 64, 8)
# Fused, by the outputs that a program has; the widest that spills nowhere, for it computes the depthwise part least
# often. All have at least 64 rows for the instruction of a warp group.
_FUSED = {
    "bf16": (Tile(16, 64, 4, 64), Tile(32, 64, 8, 128), Tile(16, 64, 8, 256)),
    "fp16": (Tile(16, 64, 4, 64), Tile(32, 64, 8, 128), Tile(16, 64, 8, 256)),
    "tf32": (Tile(16, 32, 4, 64), Tile(16, 64, 8, 128)),
    "fp32": (Tile(16, 64, 8, 64),),
    "fp64": (Tile(16, 64, 8, 64),),
}
_FUSED_UNALIGNED = {
    "bf16": Tile(16, 32, 8, 64),
    "fp16": Tile(16, 32, 8, 64),
    "tf32": Tile(16, 16, 8, 64),
    "fp32": Tile(8, 16, 4, 32),
    "fp64": Tile(8, 16, 4, 32),
}


def tile_for(program: Program, dtype: str, element_bytes: int, C: int, O: int, aligned: bool) -> Tile:
    """Choose the tile of a program: the narrowest that holds all channels, or all outputs of a fused one."""
    if program is SEPARABLE:
        tiles = _FUSED[dtype]
        return next((tile for tile in tiles if tile.outputs >= O), tiles[-1]) if aligned else _FUSED_UNALIGNED[dtype]
    if not aligned:
        return _UNALIGNED
    narrow, wide = (_SPREAD if program is SPREAD else _ALONE)[2 if element_bytes == 2 else 4]
    return narrow if narrow.channels >= C else wide


def launch(
    program: Program, tensors: tuple[torch.Tensor, ...], dtype: str, sizes: dict[str, int], gate: int, interpret: bool
) -> None:
    """Start a program over all tiles. sizes : B, T, C, O, taps and dilation."""
    aligned = aligned_to_16(program, tensors, sizes)
    tile = tile_for(program, dtype, tensors[0].element_size(), sizes["C"], sizes["O"], aligned)
    phases, segments = walk(sizes["T"], sizes["dilation"])
    columns = triton.cdiv(sizes["O"], tile.outputs) if program is SEPARABLE else triton.cdiv(sizes["C"], tile.channels)
    numbers = sizes | {"phases": phases, "segments": segments}
    program.kernel(aligned)[columns * triton.cdiv(segments, tile.segments) * sizes["B"],](
        *tensors,
        *(numbers[name] for name in (*_COUNTS, *program.sizes)),
        **tile.constexprs(program, gate, dtype, interpret),
        **tile.options(),
    )


def aligned_to_16(program: Program, tensors: tuple[torch.Tensor, ...], sizes: dict[str, int]) -> bool:
    """Whether every size and address that a program reads in wide loads is a multiple of 16."""
    numbers = (*(sizes[name] for name in program.sizes), *(tensor.data_ptr() for tensor in tensors))
    return all(number % 16 == 0 for number in numbers)


def walk(T: int, dilation: int) -> tuple[int, int]:
    """How segments cover T steps: the distance of a segment's steps, and their number over all phases.

    Steps lie `dilation` apart, for their taps to share rows; a dilation beyond the sequence leaves one step each.
    """
    phases = min(dilation, T)
    return phases, phases * triton.cdiv(triton.cdiv(T, phases), ROWS)


_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}


def _case(
    program: Program, dtype: str, tile: Tile, gate: int, aligned: bool, rare: bool, representative: bool
) -> CompileCase:
    constexprs = tile.constexprs(program, gate, dtype, interpret=False)
    tensor_cores = ("tensor",) if program is SEPARABLE and dtype != "fp32" else ()
    # The widest fused tile has four inputs for every thread, which are 64 bits in 16-bit types.
    wide = "wide" if program is SEPARABLE else "wide loops"
    width = f"{tile.outputs} outputs" if program is SEPARABLE else f"{tile.channels} channels"
    form = f" {('plain', 'silu', 'gate')[gate]}" if program.gated else ""
    signature = {
        **dict.fromkeys(program.tensors, _ELEMENT[dtype]),
        **dict.fromkeys((*_COUNTS, *program.sizes), "i32"),
        **dict.fromkeys(constexprs, "constexpr"),
    }
    if program is SPREAD:
        signature["partial"] = "*fp32"
    return CompileCase(
        label=f"{program.name} {dtype} {width}{form} {'aligned' if aligned else 'unaligned'}",
        kernel=program.kernel(aligned),
        signature=signature,
        constexprs=constexprs,
        divisible=(*program.tensors, *program.sizes) if aligned else (),
        options=tile.options(),
        expects=(*tensor_cores, wide) if aligned else tensor_cores,
        representative=representative,
        rare=rare,
    )


def _tiles(program: Program, dtype: str) -> list[tuple[Tile, bool]]:
    """All tiles of a program with whether they are for aligned sizes, the most used one first."""
    if program is SEPARABLE:
        return [*((tile, True) for tile in reversed(_FUSED[dtype])), (_FUSED_UNALIGNED[dtype], False)]
    tiles = (_SPREAD if program is SPREAD else _ALONE)[2 if dtype in ("bf16", "fp16") else 4]
    return [*dict.fromkeys((tile, True) for tile in reversed(tiles)), (_UNALIGNED, False)]


def compile_cases() -> list[CompileCase]:
    """List every configuration that is launched. Common ones: SiLU everywhere, the other forms in the first bf16 tile.

    float32 in its first tile; float16, which differs from bfloat16 in conversions alone, is rare. The fused kernel
    stands for every dtype on all targets.
    """
    cases = []
    for program in (DEPTHWISE, THROUGH_GATE, SPREAD, SEPARABLE):
        for dtype in ("bf16", "fp16", "tf32", "fp32") if program is SEPARABLE else ("bf16", "fp16", "fp32"):
            gates = {"through gate": (1, 2), "spread": (1,)}.get(program.name, (0, 1, 2))
            for index, (tile, aligned) in enumerate(_tiles(program, dtype)):
                for gate in gates:
                    usual = (dtype == "bf16" and (gate == 1 or not index)) or (
                        dtype != "fp16" and gate == 1 and not index
                    )
                    stands = program is SEPARABLE or (dtype == "bf16" and program is not THROUGH_GATE)
                    first = stands and gate == 1 and not index
                    cases.append(_case(program, dtype, tile, gate, aligned, rare=not usual, representative=first))
    return cases
