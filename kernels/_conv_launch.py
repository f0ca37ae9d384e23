"""Launches the Triton kernels of `_conv_triton`: which tiles, how the inputs are walked over, and what is compiled.

x (B, T, C), weight (W, C, O), channels last. The gradient of a convolution's input is a convolution of the gradients
with the same weights turned over, so one kernel does both; turning weights over copies them, which is small beside the
activations of long sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..roofline.contract import CompileCase
from . import _conv_triton as kernels
from ._torch import dtype_of, tf32_on_cpu
from ._triton import checked_options, interpreted, tl, triton, why_no_triton

PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "fp64": "ieee", "tf32": "tf32"}
ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}
# Programs for a sum over all time steps: two for each of the 132 multiprocessors of an H200. Not the count of the
# device at hand, so that the order of a sum, and with it the last bit, does not depend on the device.
PROGRAMS = 264


@dataclass(frozen=True)
class Walk:
    """Which steps a convolution sees: row r meets, at tap k, the input step r row_stride + first + k tap_stride."""

    rows: int
    taps: int
    row_stride: int = 1
    first: int = 0
    tap_stride: int = 1


@dataclass(frozen=True)
class Phases:
    """The phases of a transposed convolution: row q of phase f is the output step q stride + f - padding."""

    stride: int
    dilation: int
    padding: int
    cycle: int
    steps: int


def causal(T: int, W: int, dilation: int) -> Walk:
    """The last tap sees the present step, the others those `dilation` apart before it."""
    return Walk(T, W, first=-(W - 1) * dilation, tap_stride=dilation)


def anticausal(T: int, W: int, dilation: int) -> Walk:
    """The first tap sees the present step, the others later ones: gradients, with the weights turned over."""
    return Walk(T, W, tap_stride=dilation)


def turned_over(weight: Tensor) -> Tensor:
    """Weights (W, C, O) for the gradient of the input of a causal convolution: (W, O, C), the last tap first, dense."""
    return weight.flip(0).transpose(1, 2).contiguous()


@dataclass(frozen=True)
class Tile:
    """What one program does.

    steps, outputs, channels : rows, output channels and input channels at a time, of a product; a sum over time has
        channels on the rows and takes `steps` at a time.
    """

    steps: int
    outputs: int
    channels: int
    warps: int
    stages: int

    def constexprs(self, dtype: str, **flags: Any) -> dict[str, Any]:
        sizes = {"STEPS": self.steps, "OUTPUTS": self.outputs, "CHANNELS": self.channels}
        return {**sizes, **flags, "ACC": acc_of(dtype)[0], "PRECISION": PRECISION[dtype], "INTERPRET": interpreted()}

    def options(self) -> dict[str, Any]:
        return checked_options(num_warps=self.warps, num_stages=self.stages)


# Few outputs mean a bandwidth-bound convolution: no pipeline (one stage), because pipelined loads of Triton 3.6 pass by
# the L1 cache and would read every tap from L2; many outputs are compute-bound and want large, pipelined tiles. All fit
# the 163 KiB of shared memory of sm_80 and spill nowhere.
_PRODUCT = {
    "bf16": (Tile(128, 16, 64, 4, 1), Tile(128, 32, 64, 4, 1), Tile(128, 64, 64, 8, 1), Tile(128, 128, 64, 8, 3)),
    "fp16": (Tile(128, 16, 64, 4, 1), Tile(128, 32, 64, 4, 1), Tile(128, 64, 64, 8, 1), Tile(128, 128, 64, 8, 3)),
    "tf32": (Tile(128, 32, 32, 4, 1), Tile(128, 128, 32, 8, 3)),
    "fp32": (Tile(64, 16, 32, 4, 2), Tile(128, 64, 16, 8, 3)),
}
# Few channels again have no pipeline: the taps overlap, and L1 keeps them. Four programs per multiprocessor then have
# 64 KB of loads under way. TF32 has one tile, without pipeline, for its operand is turned over on the way.
_GRADIENT = {
    "bf16": (Tile(64, 64, 64, 4, 1), Tile(64, 128, 128, 8, 3)),
    "fp16": (Tile(64, 64, 64, 4, 1), Tile(64, 128, 128, 8, 3)),
    "tf32": (Tile(32, 64, 64, 4, 1),),
    "fp32": (Tile(32, 64, 32, 4, 2),),
}
# Sizes that are no multiples of 16 are loaded element by element, which one modest tile serves as well as any.
_UNALIGNED = {
    "bf16": Tile(64, 32, 32, 4, 2),
    "fp16": Tile(64, 32, 32, 4, 2),
    "tf32": Tile(64, 32, 32, 4, 2),
    "fp32": Tile(32, 16, 32, 4, 1),
}
_UNALIGNED_GRADIENT = {
    "bf16": Tile(32, 32, 64, 4, 2),
    "fp16": Tile(32, 32, 64, 4, 2),
    "tf32": Tile(32, 32, 64, 4, 2),
    "fp32": Tile(32, 32, 32, 4, 1),
}
# Rows by columns of a pointwise pass that sums columns: 8 values, 16 bytes of 16 bits, for each of 256 threads.
ROWS_OF = {16: 128, 64: 32}
POINTWISE_WARPS = 8


def launched_dtype(tensor: Tensor) -> str:
    """Name the dtype of a tensor as rows do. Raises ValueError for float64 outside Triton's interpreter."""
    if tensor.dtype == torch.float64 and not interpreted():
        raise ValueError("The Triton kernels sum in float32; give them float32, or take the reference for float64.")
    return dtype_of(tensor)


def why_not_triton(shape: Any, dtype: str, device: str) -> str | None:
    """Refuse what no Triton kernel of a convolution computes."""
    if dtype == "fp64":
        return "the Triton kernels accumulate in float32; float64 is for the reference"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


def acc_of(dtype: str) -> tuple[Any, torch.dtype]:
    """The type of sums, for Triton and for PyTorch."""
    return (tl.float64, torch.float64) if dtype == "fp64" else (tl.float32, torch.float32)


def dense(tensor: Tensor) -> Tensor:
    """Copy a tensor (B, T, C) whose channels lie apart, or whose steps overlap."""
    if tensor.stride(2) == 1 and tensor.stride(1) >= tensor.shape[2]:
        return tensor
    # A tensor of one step counts as contiguous whatever its stride; only a copy has the one that kernels walk by.
    return tensor.clone(memory_format=torch.contiguous_format)


def is_aligned(sizes: Any, tensors: Any) -> bool:
    """Whether all sizes and addresses are multiples of 16, as the aligned kernels are compiled for."""
    return all(number % 16 == 0 for number in (*sizes, *(tensor.data_ptr() for tensor in tensors)))


def _merged(walk: Walk, x: Tensor, weight: Tensor | None) -> tuple[Walk, int]:
    """Make one tap of many whose inputs are neighbours in memory; returns the walk and its channels.

    One tap with W C channels fills the tiles however few channels there are.
    """
    channels = x.shape[2]
    apart = weight is not None and weight.stride(0) != channels * weight.stride(1)
    if walk.tap_stride != 1 or x.stride(1) != channels or apart:
        return walk, channels
    return replace(walk, taps=1), walk.taps * channels


def _tile(tiles: tuple[Tile, ...], outputs: int) -> Tile:
    """The narrowest tile that holds all outputs, or the widest."""
    return next((tile for tile in tiles if tile.outputs >= outputs), tiles[-1])


def _of(tiles: dict[str, Any], dtype: str) -> Any:
    return tiles["fp32" if dtype == "fp64" else dtype]


def product(
    x: Tensor,
    weight: Tensor,
    walk: Walk,
    bias: Tensor | None = None,
    addend: Tensor | None = None,
    relu: bool = False,
    keep: bool = False,
    phases: Phases | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convolve x (B, T, C) with weight (W, C, O), add a bias, apply ReLU, add an addend (B, rows, O).

    Returns y (B, rows, O), or (B, phases.steps, O), and with `keep` the bytes (the same size) that say where ReLU let a
    value through.
    """
    x, weight = dense(x), dense(weight)
    dtype, steps = launched_dtype(x), phases.steps if phases else walk.rows
    y = torch.empty((len(x), steps, weight.shape[2]), dtype=x.dtype, device=x.device)
    kept = torch.empty(y.shape, dtype=torch.uint8, device=x.device) if keep else None
    if not y.numel():
        return y, kept
    walk, channels = (walk, x.shape[2]) if phases else _merged(walk, x, weight)
    given = {"bias": bias, "addend": addend, "kept": kept}
    tensors = {"x": x, "weight": weight, "y": y}
    tensors |= {name: y if tensor is None else tensor.contiguous() for name, tensor in given.items()}
    counts = {**vars(walk), "source": x.shape[1], "steps": steps}
    counts |= {name: getattr(phases, name) if phases else 1 for name in ("stride", "cycle", "dilation", "padding")}
    sizes = {"C": channels, "O": y.shape[2], "x_batch": x.stride(0), "x_step": x.stride(1)}
    sizes |= {"weight_tap": weight.stride(0), "weight_channel": weight.stride(1)}
    aligned = is_aligned(sizes.values(), tensors.values())
    tile = _tile(_of(_PRODUCT, dtype), y.shape[2]) if aligned else _of(_UNALIGNED, dtype)
    flags = _flags(bias is not None, relu, addend is not None, keep, phases is not None)
    kernel = kernels.product_aligned if aligned else kernels.product_unaligned
    blocks = triton.cdiv(walk.rows, tile.steps) * triton.cdiv(y.shape[2], tile.outputs)
    grid = (blocks * counts["stride"] * len(x),)
    options = _options(dtype, tile, phases is not None)
    kernel[grid](**tensors, **counts, **sizes, **tile.constexprs(dtype, **flags), **options)
    return y, kept


def _options(dtype: str, tile: Tile, phases: bool) -> dict[str, Any]:
    """Launch options of a product."""
    # Left to itself, the ptxas of Triton 3.9 stops at the 128 registers with which two of them share a multiprocessor,
    # and spills on sm_100; where it may take 144, it is content with 120.
    limit = {"maxnreg": 144} if phases and dtype == "fp32" and tile.warps == 8 else {}
    return tile.options() | checked_options(**limit)


def _flags(bias: bool, relu: bool, add: bool, keep: bool, phases: bool) -> dict[str, int]:
    return {"BIAS": int(bias), "RELU": int(relu), "ADD": int(add), "KEEP": int(keep), "PHASES": int(phases)}


def weight_gradient(x: Tensor, g: Tensor, walk: Walk) -> Tensor:
    """Sum x (B, T, C), as the rows see it, times g (B, rows, O) over all rows; returns (W, C, O) in the dtype of x."""
    x, g = dense(x), dense(g)
    dtype, shape = launched_dtype(x), (walk.taps, x.shape[2], g.shape[2])
    if not len(x):
        return x.new_zeros(shape)
    walk, channels = _merged(walk, x, None)
    counts = {**vars(walk), "source": x.shape[1], "sequences": len(x)}
    sizes = {"C": channels, "O": g.shape[2], "x_batch": x.stride(0), "x_step": x.stride(1)}
    sizes |= {"g_batch": g.stride(0), "g_step": g.stride(1)}
    aligned = is_aligned(sizes.values(), (x, g))
    tile = _tile(_of(_GRADIENT, dtype), min(channels, g.shape[2])) if aligned else _of(_UNALIGNED_GRADIENT, dtype)
    places = walk.taps * triton.cdiv(channels, tile.channels) * triton.cdiv(g.shape[2], tile.outputs)
    runs = len(x) * triton.cdiv(walk.rows, tile.steps)
    programs = PROGRAMS if tile.stages > 1 else 2 * PROGRAMS
    chunks = triton.cdiv(runs, max(1, programs // places))
    splits = triton.cdiv(runs, chunks)
    partial = torch.empty((splits, *shape), dtype=acc_of(dtype)[1], device=x.device)
    kernel = kernels.weight_gradient_aligned if aligned else kernels.weight_gradient_unaligned
    kernel[(splits * places,)](
        x, g, partial, chunks=chunks, **counts, **sizes, **tile.constexprs(dtype), **tile.options()
    )
    return partial.sum(0).to(x.dtype)


def pointwise_grid(rows: int, columns: int) -> tuple[dict[str, int], tuple[int, int]]:
    """Tile and grid of a pointwise pass over (rows, columns) that sums columns, one part per program of axis 0."""
    width = next((width for width in ROWS_OF if width >= columns), max(ROWS_OF))
    blocks = triton.cdiv(columns, width)
    programs = min(triton.cdiv(rows, ROWS_OF[width]), triton.cdiv(4 * PROGRAMS, blocks))
    return {"ROWS": ROWS_OF[width], "COLUMNS": width}, (programs, blocks)


def relu_gradient(dy: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Let gradients (B, T, O) through where `kept` is not zero; returns them, and their sum over time and batch (O)."""
    dy = dy.contiguous()
    dtype, rows, columns = launched_dtype(dy), dy.shape[0] * dy.shape[1], dy.shape[2]
    g = torch.empty_like(dy)
    if not rows:
        return g, dy.new_zeros(columns)
    tile, grid = pointwise_grid(rows, columns)
    acc, kind = acc_of(dtype)
    partial = torch.empty((grid[0], columns), dtype=kind, device=dy.device)
    aligned = is_aligned((columns,), (dy, kept, g))
    kernel = kernels.relu_gradient_aligned if aligned else kernels.relu_gradient_unaligned
    options = checked_options(num_warps=POINTWISE_WARPS)
    kernel[grid](dy, kept, g, partial, rows=rows, O=columns, **tile, ACC=acc, **options)
    return g, partial.sum(0).to(dy.dtype)


def _case(label: str, kernel: Any, signature: dict[str, str], constexprs: dict[str, Any], **about: Any) -> CompileCase:
    types = {**signature, **dict.fromkeys(constexprs, "constexpr")}
    return CompileCase(label=label, kernel=kernel, signature=types, constexprs=constexprs, **about)


def wide_loads(dtype: str) -> str:
    """What loads of an aligned product are held to: sm_90 turns its weights over in tf32, and loads them narrowly."""
    return "wide" if dtype == "tf32" else "wide loops"


def _tiles(aligned: dict[str, Any], unaligned: dict[str, Tile]) -> Iterator[tuple[str, Tile, bool, bool]]:
    """All tiles as (dtype, tile, aligned, usual); the others are compiled in the long test run only."""
    for dtype, tiles in aligned.items():
        # The narrowest stands for those without a pipeline, bf16 for fp16.
        usual = {"bf16": (tiles[0], tiles[-1]), "fp16": ()}.get(dtype, tiles[-1:])
        yield from ((dtype, tile, True, tile in usual) for tile in tiles)
    yield from ((dtype, tile, False, dtype == "bf16") for dtype, tile in unaligned.items())


def product_cases(
    name: str, bias: bool = False, relu: bool = False, add: bool = False, keep: bool = False, phases: bool = False,
    rare: bool = False, every_dtype: bool = False,
) -> list[CompileCase]:  # fmt: skip
    """What `product` launches with these options. `rare` leaves all but the widest tile of bf16 to the long test run;
    with `every_dtype` that of the others stands for its dtype on all targets too.
    """
    found = []
    for dtype, tile, aligned, usual in _tiles(_PRODUCT, _UNALIGNED):
        widest = aligned and tile == _PRODUCT[dtype][-1]
        signature = dict.fromkeys(kernels.PRODUCT_TENSORS, ELEMENT[dtype]) | ({"kept": "*u8"} if keep else {})
        signature |= dict.fromkeys((*kernels.PRODUCT_COUNTS, *kernels.PRODUCT_SIZES), "i32")
        constexprs = tile.constexprs(dtype, **_flags(bias, relu, add, keep, phases)) | {"INTERPRET": False}
        found.append(
            _case(
                f"{dtype} {name}, {tile.outputs} outputs {'aligned' if aligned else 'unaligned'}",
                kernels.product_aligned if aligned else kernels.product_unaligned,
                signature,
                constexprs,
                divisible=(*kernels.PRODUCT_TENSORS, *kernels.PRODUCT_SIZES) if aligned else (),
                options=_options(dtype, tile, phases),
                expects=(("tensor",) if dtype != "fp32" else ()) + ((wide_loads(dtype),) if aligned else ()),
                representative=widest and not rare and (every_dtype or dtype == "bf16"),
                rare=not (widest and dtype == "bf16") if rare else not usual,
            )
        )
    return found


def gradient_cases(rare: bool = False) -> list[CompileCase]:
    """What `weight_gradient` launches. `rare` leaves all but the widest tile to the long test run."""
    found = []
    for dtype, tile, aligned, usual in _tiles(_GRADIENT, _UNALIGNED_GRADIENT):
        widest = aligned and dtype == "bf16" and tile == _GRADIENT[dtype][-1]
        partial = {"partial": "*fp32"}
        signature = dict.fromkeys(kernels.GRADIENT_TENSORS, ELEMENT[dtype]) | partial
        signature |= dict.fromkeys((*kernels.GRADIENT_COUNTS, *kernels.GRADIENT_SIZES), "i32")
        found.append(
            _case(
                f"{dtype} dweight, {tile.channels} by {tile.outputs} {'aligned' if aligned else 'unaligned'}",
                kernels.weight_gradient_aligned if aligned else kernels.weight_gradient_unaligned,
                signature,
                tile.constexprs(dtype) | {"INTERPRET": False},
                divisible=(*kernels.GRADIENT_TENSORS, *kernels.GRADIENT_SIZES) if aligned else (),
                options=tile.options(),
                expects=(("tensor",) if dtype != "fp32" else ()) + (("wide loops",) if aligned else ()),
                representative=widest and not rare,
                rare=not widest if rare else not usual,
            )
        )
    return found


def relu_cases() -> list[CompileCase]:
    """What `relu_gradient` launches: flags in bytes, or outputs that are zero where nothing was let through."""
    found = []
    for dtype in ("bf16", "fp16", "fp32"):
        for width, rows in ROWS_OF.items():
            for aligned in (True, False):
                for kept in ("*u8", ELEMENT[dtype]):
                    flags, layout = ("bytes" if kept == "*u8" else "outputs"), ("aligned" if aligned else "unaligned")
                    signature = dict.fromkeys(("dy", "g"), ELEMENT[dtype]) | {"kept": kept, "partial": "*fp32"}
                    found.append(
                        _case(
                            f"{dtype} ReLU gradient by {flags}, {width} columns {layout}",
                            kernels.relu_gradient_aligned if aligned else kernels.relu_gradient_unaligned,
                            {**signature, "rows": "i32", "O": "i32"},
                            {"ROWS": rows, "COLUMNS": width, "ACC": tl.float32},
                            divisible=(*kernels.RELU_TENSORS, "O") if aligned else (),
                            options=checked_options(num_warps=POINTWISE_WARPS),
                            expects=("wide loops",) if aligned else (),
                            rare=dtype != "bf16" or width == 16 or not aligned,
                        )
                    )
    return found
