"""Triton parts of separable_conv: the depthwise convolution with its gate, its gradients, and fused with a product.

Letters and layout as in `separable_conv`. All tensors are dense. A program works on a tile of time steps by channels.
A tile loads its inputs once per tap: the same rows, moved by a tap, come from the L1 cache, which for 4 taps of 16-bit
numbers delivers 8 bytes per element where memory moves 4, at six times the rate. Where the taps are `dilation` steps
apart, so are the rows of a tile (`phases`), so that its taps still share their rows.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..roofline.contract import CompileCase
from ._device import dot, sigmoid
from ._triton import checked_options, tl, triton

# Taps whose loads are under way together. Four is what state-space models use; longer filters go in groups of four,
# and the loads of absent taps are masked off.
TAPS = 4


@triton.jit
def _place(program, T, phases, blocks, STEPS: tl.constexpr):
    """Give the sequence, the time steps (STEPS), int64, and the row of the partial sums that a program works on.

    The steps of a tile are `phases` apart. Neighbouring programs have neighbouring steps, so that they share lines.
    """
    phase = program % phases
    block = program // phases % blocks
    batch = (program // phases // blocks).to(tl.int64)
    step = phase + (block * STEPS + tl.arange(0, STEPS)).to(tl.int64) * phases
    return batch, step


@triton.jit
def _convolve(x, weight, bias, step, channel, T, C, taps, dilation, TAPS: tl.constexpr, ACC: tl.constexpr):
    """Depthwise convolution of one sequence x (T, C) at the given steps and channels, with its bias, in ACC."""
    inside = channel < C
    start = tl.load(bias + channel, mask=inside, other=0.0).to(ACC)
    h = tl.zeros((step.shape[0], channel.shape[0]), ACC) + start[None, :]
    for first in range(0, taps, TAPS):
        for tap in tl.static_range(TAPS):
            back = taps - 1 - first - tap
            used = inside & (channel * 0 + back >= 0)
            source = step - back.to(tl.int64) * dilation
            seen = ((source >= 0) & (source < T))[:, None] & used[None, :]
            taken = tl.load(x + (source * C)[:, None] + channel[None, :], mask=seen, other=0.0)
            factor = tl.load(weight + (taps - 1 - back).to(tl.int64) * C + channel, mask=used, other=0.0)
            h += taken.to(ACC) * factor.to(ACC)[None, :]
    return h


@triton.jit
def _gated(h, z, place, mask, GATE: tl.constexpr, ACC: tl.constexpr):
    """h as it is (GATE 0), h sigmoid(h) (GATE 1), or h silu(z) (GATE 2) with z at `place` of its tensor."""
    result = h
    if GATE == 1:
        result = h * sigmoid(h)
    if GATE == 2:
        other = tl.load(z + place, mask=mask, other=0.0).to(ACC)
        result = h * (other * sigmoid(other))
    return result


def _depthwise(
    x, weight, bias, z, y, T, taps, dilation, phases, blocks, C,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Compute y, the gated depthwise convolution, for STEPS steps and CHANNELS channels of one sequence."""
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch, step = _place(tl.program_id(0) // channel_blocks, T, phases, blocks, STEPS)
    sequence = batch * T * C
    h = _convolve(x + sequence, weight, bias, step, channel, T, C, taps, dilation, TAPS, ACC)
    place = sequence + (step * C)[:, None] + channel[None, :]
    mask = (step < T)[:, None] & (channel < C)[None, :]
    result = _gated(h, z, place, mask, GATE, ACC)
    tl.store(y + place, result.to(y.dtype.element_ty), mask=mask)


def _through_gate(
    x, weight, bias, z, above, dh, dz, T, taps, dilation, phases, blocks, C,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Turn the gradient `above` of the gated output into dh, that of the convolution, and dz; h is computed again."""
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch, step = _place(tl.program_id(0) // channel_blocks, T, phases, blocks, STEPS)
    sequence = batch * T * C
    h = _convolve(x + sequence, weight, bias, step, channel, T, C, taps, dilation, TAPS, ACC)
    place = sequence + (step * C)[:, None] + channel[None, :]
    mask = (step < T)[:, None] & (channel < C)[None, :]
    gradient = tl.load(above + place, mask=mask, other=0.0).to(ACC)
    if GATE == 1:
        s = sigmoid(h)
        gradient *= s * (1.0 + h * (1.0 - s))
    if GATE == 2:
        other = tl.load(z + place, mask=mask, other=0.0).to(ACC)
        s = sigmoid(other)
        of_gate = gradient * h * (s * (1.0 + other * (1.0 - s)))
        tl.store(dz + place, of_gate.to(dz.dtype.element_ty), mask=mask)
        gradient *= other * s
    tl.store(dh + place, gradient.to(dh.dtype.element_ty), mask=mask)


def _spread(
    x, weight, dh, dx, partial, T, taps, dilation, phases, blocks, C,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Compute dx, and this tile's share of dweight and dbias, from the gradient dh of the convolution.

    partial (tiles, taps + 1, C) in ACC: the sums over the tile's inputs, one row per tap and one for the bias. Every
    input meets the outputs that saw it, so that dh is loaded once per tap for dx and dweight alike.
    """
    channel_blocks = tl.cdiv(C, CHANNELS)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    tile = tl.program_id(0) // channel_blocks
    batch, step = _place(tile, T, phases, blocks, STEPS)
    sequence = batch * T * C
    inside = channel < C
    place = sequence + (step * C)[:, None] + channel[None, :]
    mask = (step < T)[:, None] & inside[None, :]
    present = tl.load(x + place, mask=mask, other=0.0).to(ACC)
    own = tl.load(dh + place, mask=mask, other=0.0).to(ACC)
    partial += tile.to(tl.int64) * (taps + 1) * C
    tl.store(partial + taps.to(tl.int64) * C + channel, tl.sum(own, 0), mask=inside)

    total = tl.zeros((STEPS, CHANNELS), ACC)
    for first in range(0, taps, TAPS):
        for tap in tl.static_range(TAPS):
            ahead = taps - 1 - first - tap
            used = inside & (channel * 0 + ahead >= 0)
            target = step + ahead.to(tl.int64) * dilation
            seen = (target < T)[:, None] & used[None, :]
            gradient = tl.load(dh + sequence + (target * C)[:, None] + channel[None, :], mask=seen, other=0.0).to(ACC)
            row = (taps - 1 - ahead).to(tl.int64) * C + channel
            factor = tl.load(weight + row, mask=used, other=0.0).to(ACC)
            # An input that no step is left to see may be infinite or NaN: it has no share in the sum.
            share = tl.where(seen, present * gradient, 0.0)
            total += tl.where(seen, gradient * factor[None, :], 0.0)
            tl.store(partial + row, tl.sum(share, 0), mask=used)
    tl.store(dx + place, total.to(dx.dtype.element_ty), mask=mask)


def _separable(
    x, weight, bias, z, pointwise, pointwise_bias, y, T, taps, dilation, phases, blocks, C, O,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y for STEPS steps and OUTPUTS outputs: the depthwise results go from registers into the product.

    They are rounded to the type of the tensors, as if they had been stored. Neighbouring programs share their inputs.
    """
    output_blocks = tl.cdiv(O, OUTPUTS)
    output = tl.program_id(0) % output_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    batch, step = _place(tl.program_id(0) // output_blocks, T, phases, blocks, STEPS)
    sequence = batch * T * C
    start = tl.load(pointwise_bias + output, mask=output < O, other=0.0).to(ACC)
    total = tl.zeros((STEPS, OUTPUTS), ACC) + start[None, :]
    for first in range(0, C, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        h = _convolve(x + sequence, weight, bias, step, channel, T, C, taps, dilation, TAPS, ACC)
        place = sequence + (step * C)[:, None] + channel[None, :]
        h = _gated(h, z, place, (step < T)[:, None] & (channel < C)[None, :], GATE, ACC)
        factors = tl.load(
            pointwise + (channel.to(tl.int64) * O)[:, None] + output[None, :],
            mask=(channel < C)[:, None] & (output < O)[None, :],
            other=0.0,
        )
        total = dot(h.to(x.dtype.element_ty), factors, total, PRECISION, INTERPRET)
    pointers = y + batch * T * O + (step * O)[:, None] + output[None, :]
    tl.store(pointers, total.to(y.dtype.element_ty), mask=(step < T)[:, None] & (output < O)[None, :])


_COUNTS = ("T", "taps", "dilation", "phases", "blocks")


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
    """What one program does: `steps` time steps by `channels` channels; in a fused one, into `outputs` outputs."""

    steps: int
    channels: int
    warps: int
    outputs: int = 0

    def constexprs(self, program: Program, gate: int, dtype: str, interpret: bool) -> dict[str, Any]:
        """Compile-time values of a program for this tile."""
        values: dict[str, Any] = {"STEPS": self.steps, "CHANNELS": self.channels, "TAPS": TAPS}
        values["ACC"] = tl.float64 if dtype == "fp64" else tl.float32
        if program.gated:
            values["GATE"] = gate
        if program is SEPARABLE:
            precision = "tf32" if dtype == "tf32" else "ieee"
            values |= {"OUTPUTS": self.outputs, "PRECISION": precision, "INTERPRET": interpret}
        return values

    def options(self) -> dict[str, Any]:
        """Backend options. One stage: pipelined loads pass by the L1 cache, where the taps find their rows."""
        return checked_options(num_warps=self.warps, num_stages=1)


# Alone: 16 elements per thread, so that with four taps about 20 warps fit an SM and have 20 KB of new inputs under way;
# the reads are half of the traffic and need 13 KB in flight at 4.3 TB/s and 0.8 us. Rows of 256 bytes, or 32 channels
# for the narrow ones.
_ALONE = {2: (Tile(128, 32, 8), Tile(32, 128, 8)), 4: (Tile(64, 32, 4), Tile(32, 64, 4))}
# The sums over a tile are written for every tap: twice the steps, half of that traffic.
_SPREAD = {2: (Tile(128, 32, 8), Tile(64, 64, 8)), 4: (Tile(64, 32, 4), Tile(64, 32, 4))}
_UNALIGNED = Tile(32, 64, 4)
# Fused, by the outputs that a program has; the widest that spills nowhere, for it computes the depthwise part least
# often. All have 64 rows for the instruction of a warp group.
_FUSED = {
    "bf16": (Tile(64, 64, 4, 64), Tile(64, 64, 8, 128), Tile(64, 64, 8, 256)),
    "fp16": (Tile(64, 64, 4, 64), Tile(64, 64, 8, 128), Tile(64, 64, 8, 256)),
    "tf32": (Tile(64, 32, 4, 64), Tile(64, 32, 8, 128)),
    "fp32": (Tile(64, 16, 8, 64),),
    "fp64": (Tile(64, 16, 8, 64),),
}
_FUSED_UNALIGNED = {
    "bf16": Tile(64, 32, 4, 64),
    "fp16": Tile(64, 32, 4, 64),
    "tf32": Tile(64, 32, 4, 64),
    "fp32": Tile(32, 16, 4, 32),
    "fp64": Tile(32, 16, 4, 32),
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
    phases, blocks = walk(tile.steps, sizes["T"], sizes["dilation"])
    columns = triton.cdiv(sizes["O"], tile.outputs) if program is SEPARABLE else triton.cdiv(sizes["C"], tile.channels)
    numbers = sizes | {"phases": phases, "blocks": blocks}
    program.kernel(aligned)[columns * phases * blocks * sizes["B"],](
        *tensors,
        *(numbers[name] for name in (*_COUNTS, *program.sizes)),
        **tile.constexprs(program, gate, dtype, interpret),
        **tile.options(),
    )


def aligned_to_16(program: Program, tensors: tuple[torch.Tensor, ...], sizes: dict[str, int]) -> bool:
    """Whether every size and address that a program reads in wide loads is a multiple of 16."""
    numbers = (*(sizes[name] for name in program.sizes), *(tensor.data_ptr() for tensor in tensors))
    return all(number % 16 == 0 for number in numbers)


def walk(steps: int, T: int, dilation: int) -> tuple[int, int]:
    """How tiles of `steps` cover T steps: the distance of a tile's rows, and the tiles along each of these phases.

    Rows lie `dilation` apart, for their taps to share them, unless that would leave tiles mostly empty.
    """
    phases = dilation if T // dilation >= steps else 1
    return phases, triton.cdiv(triton.cdiv(T, phases), steps)


_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}


def _case(
    program: Program, dtype: str, tile: Tile, gate: int, aligned: bool, rare: bool, representative: bool
) -> CompileCase:
    constexprs = tile.constexprs(program, gate, dtype, interpret=False)
    tensor_cores = ("tensor",) if program is SEPARABLE and dtype != "fp32" else ()
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
        expects=(*tensor_cores, "wide") if aligned else tensor_cores,
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

    float32 in its first tile; float16, which differs from bfloat16 in conversions alone, is rare.
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
                    first = dtype == "bf16" and gate == 1 and not index and program is not THROUGH_GATE
                    cases.append(_case(program, dtype, tile, gate, aligned, rare=not usual, representative=first))
    return cases
