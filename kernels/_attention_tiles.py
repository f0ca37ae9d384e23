"""Which tile each Triton kernel of attention runs with, and the list of what is compiled.

A configuration is a kernel, a dtype, a block width (the head dimension rounded up to a power of two, 32 or more) and a
layout: `descriptor`, aligned tensors loaded by the copy engine of sm_90 and later; `exact`, aligned and P equal to the
width; `padded`, aligned and P below it; `unaligned`, anything else. Aligned means that addresses, strides and P are all
multiples of 16, which gives 128-bit loads.

A name such as `descriptor_100` or `exact_80` is that layout on one target which takes a tile of its own.

Every tile is the largest found that spills no register on any of its targets and stays within their shared memory:
163 KiB on sm_80, 227 KiB on sm_90 and sm_100.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..roofline.contract import CompileCase
from ._attention_triton import attend, key_gradient, query_gradient
from ._triton import checked_options, older_than, tl, triton

WIDEST = 256
NARROWEST = 32  # two of the shortest products that a tensor core takes
DESCRIPTOR_CAPABILITY = 90  # the first with a copy engine for tensors


@dataclass(frozen=True)
class Tile:
    """What one program does at a time: `queries` rows of queries against `keys` keys.

    registers : most of a thread; 0 leaves it to ptxas, which may spill a few bytes so that one more program would fit.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    registers: int = 0

    def options(self) -> dict[str, Any]:
        """Launch options."""
        limit = {"maxnreg": self.registers} if self.registers else {}
        return checked_options(num_warps=self.warps, num_stages=self.stages, **limit)


ALL = 255  # registers that a thread can have


@dataclass(frozen=True)
class Kernel:
    """One of the kernels: what is compiled of it, with everything known of its arguments, or nothing.

    loaded : tensors that are read in blocks, by descriptors where there are any; with their axis of blocks.
    tensors : the others. numbers : run-time sizes, never specialised. strides : of the loaded tensors.
    """

    name: str
    loaded: dict[str, str]
    tensors: dict[str, str]
    numbers: tuple[str, ...]
    function: Callable[..., None]

    @property
    def pointers(self) -> tuple[str, ...]:
        """All tensors but the lengths."""
        return (*self.loaded, *self.tensors)

    @property
    def strides(self) -> tuple[str, ...]:
        """Names of the strides of the loaded tensors, three each."""
        return tuple(f"{tensor}_{axis}" for tensor in self.loaded for axis in ("batch", "head", "row"))

    @cached_property
    def aligned(self) -> Any:
        """The program for addresses, strides and P that are multiples of 16."""
        return triton.jit(do_not_specialize=[*self.numbers, *_LENGTHS])(self.function)

    @cached_property
    def unaligned(self) -> Any:
        """The program for anything else."""
        unknown = [*self.numbers, *_LENGTHS, *self.pointers, "P", *self.strides]
        return triton.jit(do_not_specialize=unknown)(self.function)

    def program(self, layout: str) -> Any:
        """The program to launch or compile; two, so that exactly what is compiled offline is ever launched."""
        return self.unaligned if layout == "unaligned" else self.aligned


_LENGTHS = ("query_lengths", "key_lengths")
COUNTS = ("S", "K", "N", "heads_per_group", "causal", "ragged")
_OPERANDS = {"q": "queries", "k": "keys", "v": "keys"}
# Element "" is that of q; the others are float32.
FORWARD = Kernel("forward", _OPERANDS, {"o": "", "logarithms": "fp32"}, (*COUNTS, "keep"), attend)
QUERIES = Kernel(
    "dq", _OPERANDS | {"do": "queries"}, {"o": "", "dq": "", "logarithms": "fp32", "sums": "fp32"}, COUNTS,
    query_gradient,
)  # fmt: skip
KEYS = Kernel(
    "dk dv", _OPERANDS | {"do": "queries"}, {"dk": "", "dv": "", "logarithms": "fp32", "sums": "fp32"}, COUNTS,
    key_gradient,
)  # fmt: skip

_Table = dict[tuple[int, str], Tile]
_FORWARD_16_BIT: _Table = {
    (32, "descriptor"): Tile(128, 64, 4, 3),
    (32, "exact"): Tile(128, 64, 4, 3),
    (32, "padded"): Tile(128, 64, 4, 3),
    (32, "unaligned"): Tile(128, 32, 4, 2),
    (64, "descriptor"): Tile(128, 128, 8, 3),
    (64, "exact"): Tile(128, 64, 4, 3),
    (64, "padded"): Tile(64, 64, 4, 3),
    (64, "unaligned"): Tile(64, 32, 4, 2),
    (128, "descriptor"): Tile(128, 128, 8, 2),
    (128, "exact"): Tile(128, 64, 8, 3),
    (128, "padded"): Tile(128, 64, 8, 3),
    (128, "unaligned"): Tile(64, 32, 8, 2),
    (256, "descriptor"): Tile(128, 64, 8, 2),
    (256, "exact"): Tile(64, 32, 8, 3),
    (256, "padded"): Tile(64, 32, 8, 2),
    (256, "unaligned"): Tile(32, 16, 8, 1),
}
_FORWARD_TF32: _Table = {
    (32, "descriptor"): Tile(128, 64, 4, 2),
    (32, "exact"): Tile(64, 32, 4, 2),
    (32, "padded"): Tile(64, 32, 4, 2),
    (32, "unaligned"): Tile(64, 32, 4, 1),
    (64, "descriptor"): Tile(128, 64, 8, 2),
    (64, "exact"): Tile(128, 32, 8, 3),
    (64, "padded"): Tile(128, 32, 8, 3),
    (64, "unaligned"): Tile(64, 32, 4, 1),
    (128, "descriptor"): Tile(128, 32, 8, 2),
    (128, "exact"): Tile(128, 32, 8, 2),
    (128, "padded"): Tile(128, 32, 8, 2),
    (128, "unaligned"): Tile(64, 16, 8, 1),
    (256, "descriptor"): Tile(64, 16, 8, 2),
    (256, "exact"): Tile(64, 16, 8, 2),
    (256, "padded"): Tile(32, 32, 8, 2),
    (256, "unaligned"): Tile(32, 16, 8, 1),
}
# Without tensor cores operands live in registers too: small tiles, no pipeline, and nothing gained by descriptors.
_FORWARD_FP32: _Table = {
    (32, "exact"): Tile(32, 32, 4, 1),
    (32, "padded"): Tile(32, 32, 4, 1),
    (32, "unaligned"): Tile(32, 32, 4, 1),
    (64, "exact"): Tile(32, 32, 8, 1),
    (64, "padded"): Tile(32, 32, 8, 1),
    (64, "unaligned"): Tile(32, 16, 4, 1),
    (128, "exact"): Tile(32, 32, 8, 1),
    (128, "padded"): Tile(32, 16, 8, 1),
    (128, "unaligned"): Tile(32, 16, 8, 1),
    (256, "exact"): Tile(16, 16, 8, 1),
    (256, "padded"): Tile(16, 16, 4, 1),
    (256, "unaligned"): Tile(16, 16, 8, 1),
}
_QUERIES_16_BIT: _Table = {
    (32, "descriptor"): Tile(128, 64, 4, 3),
    (32, "exact"): Tile(64, 64, 4, 2),
    (32, "padded"): Tile(64, 64, 4, 2),
    (32, "unaligned"): Tile(64, 32, 4, 1),
    (64, "descriptor"): Tile(128, 64, 8, 3),
    (64, "exact"): Tile(64, 64, 4, 2),
    (64, "padded"): Tile(64, 64, 4, 2),
    (64, "unaligned"): Tile(64, 32, 8, 1),
    (128, "descriptor"): Tile(128, 64, 8, 2),
    (128, "exact"): Tile(64, 32, 8, 2),
    (128, "padded"): Tile(64, 32, 8, 2),
    (128, "unaligned"): Tile(32, 16, 8, 1),
    (256, "descriptor"): Tile(64, 64, 8, 2),
    (256, "exact"): Tile(64, 16, 8, 2),
    (256, "padded"): Tile(64, 16, 8, 2),
    (256, "unaligned"): Tile(16, 16, 8, 1),
}
_QUERIES_TF32: _Table = {
    (32, "descriptor"): Tile(64, 64, 4, 2),
    (32, "exact"): Tile(64, 32, 4, 2),
    (32, "padded"): Tile(64, 32, 4, 2),
    (32, "unaligned"): Tile(64, 16, 4, 1),
    (64, "descriptor"): Tile(64, 32, 4, 2),
    (64, "exact"): Tile(64, 32, 8, 2),
    (64, "padded"): Tile(64, 32, 8, 2),
    (64, "unaligned"): Tile(32, 16, 4, 1),
    (128, "descriptor"): Tile(64, 32, 8, 2),
    (128, "exact"): Tile(64, 16, 8, 2),
    (128, "padded"): Tile(64, 16, 8, 2),
    (128, "unaligned"): Tile(32, 16, 8, 1),
    (256, "descriptor"): Tile(16, 16, 8, 1),
    (256, "exact"): Tile(16, 16, 8, 1),
    (256, "padded"): Tile(16, 16, 8, 1),
    (256, "unaligned"): Tile(16, 32, 8, 1),
}
_QUERIES_FP32: _Table = {
    (width, layout): Tile(*size, 1)
    for width, size in {32: (32, 16, 4), 64: (32, 16, 8), 128: (16, 16, 8), 256: (16, 16, 8)}.items()
    for layout in ("exact", "padded", "unaligned")
}
_KEYS_16_BIT: _Table = {
    (32, "descriptor"): Tile(32, 128, 8, 2, ALL),
    (32, "exact"): Tile(64, 64, 4, 2),
    (32, "padded"): Tile(64, 64, 4, 2),
    (32, "padded_80"): Tile(64, 64, 4, 2, ALL),
    (32, "unaligned"): Tile(32, 64, 4, 1),
    (64, "descriptor"): Tile(32, 128, 8, 2),
    (64, "descriptor_100"): Tile(32, 64, 8, 2, ALL),
    (64, "exact"): Tile(32, 64, 8, 2),
    (64, "exact_80"): Tile(32, 64, 8, 1),
    (64, "padded"): Tile(32, 64, 8, 2),
    (64, "padded_80"): Tile(32, 64, 8, 1),
    (64, "unaligned"): Tile(32, 64, 4, 1),
    (128, "descriptor"): Tile(32, 128, 8, 2),
    (128, "descriptor_100"): Tile(32, 64, 8, 2),
    (128, "exact"): Tile(16, 64, 8, 2),
    (128, "exact_100"): Tile(16, 64, 8, 1),
    (128, "padded"): Tile(16, 64, 8, 2),
    (128, "padded_100"): Tile(16, 64, 8, 1),
    (128, "unaligned"): Tile(16, 32, 8, 1),
    (256, "descriptor"): Tile(16, 64, 8, 2),
    (256, "descriptor_100"): Tile(32, 32, 8, 2),
    (256, "exact"): Tile(16, 32, 8, 2),
    (256, "padded"): Tile(16, 32, 8, 2),
    (256, "unaligned"): Tile(16, 16, 8, 1),
}
_KEYS_TF32: _Table = {
    (width, layout): Tile(tile.keys, tile.queries, tile.warps, tile.stages, ALL if width == 32 else 0)
    for (width, layout), tile in _QUERIES_TF32.items()
} | {(256, "unaligned"): Tile(16, 32, 8, 1)}
_KEYS_FP32: _Table = {
    (width, layout): Tile(tile.keys, tile.queries, tile.warps, tile.stages, ALL)
    for (width, layout), tile in _QUERIES_FP32.items()
}


def _by_dtype(half: _Table, tf32: _Table, fp32: _Table) -> dict[str, _Table]:
    return {"bf16": half, "fp16": half, "tf32": tf32, "fp32": fp32}


TILES = {
    "forward": _by_dtype(_FORWARD_16_BIT, _FORWARD_TF32, _FORWARD_FP32),
    "dq": _by_dtype(_QUERIES_16_BIT, _QUERIES_TF32, _QUERIES_FP32),
    "dk dv": _by_dtype(_KEYS_16_BIT, _KEYS_TF32, _KEYS_FP32),
}
_ELEMENT = {"bf16": "bf16", "fp16": "fp16", "tf32": "fp32", "fp32": "fp32"}


def tile_of(kernel: Kernel, dtype: str, width: int, layout: str) -> Tile:
    """Look up a tile; float64, which only the interpreter runs, takes those of fp32."""
    table = TILES[kernel.name]["fp32" if dtype == "fp64" else dtype]
    return table.get((width, layout)) or table[width, plain(layout)]


def plain(layout: str) -> str:
    """The layout without its target."""
    return layout.split("_")[0]


def constants(kernel: Kernel, dtype: str, width: int, layout: str, interpret: bool) -> dict[str, Any]:
    """Compile-time arguments of a configuration."""
    tile = tile_of(kernel, dtype, width, layout)
    return {
        "BLOCK_S": tile.queries,
        "BLOCK_K": tile.keys,
        "BLOCK_P": width,
        "LAYOUT": plain(layout),
        "PRECISION": "tf32" if dtype == "tf32" else "ieee",
        "ACC": tl.float64 if dtype == "fp64" else tl.float32,
        "INTERPRET": interpret,
    }


def block_of(tile: Tile, axis: str, width: int) -> list[int]:
    """Block of a descriptor of (batch, head, row, column) over queries or keys."""
    return [1, 1, getattr(tile, axis), width]


def layout_of(dtype: str, P: int, ragged: int, strides: list[int], addresses: list[int], capability: int) -> str:
    """Choose the layout for a head dimension, the strides of the loaded tensors and the addresses of all."""
    if any(number % 16 for number in (P, *strides, *addresses)):
        return "unaligned"
    # A descriptor has one length for all rows of the batch, and no axis that stays in place. On sm_100, drivers of CUDA
    # 13.1 or older may fault at one of a tensor with gaps in an allocation below 128 KiB; Triton avoids that from 3.7
    # on, and PyTorch, which reserves 2 MiB at a time, with any Triton.
    if dtype in ("bf16", "fp16", "tf32") and not ragged and all(strides) and capability >= DESCRIPTOR_CAPABILITY:
        layout = "descriptor"
    else:
        layout = "exact" if width_of(P) == P else "padded"
    if capability < DESCRIPTOR_CAPABILITY:
        return f"{layout}_80"
    return layout if capability < 100 else f"{layout}_100"


def widest_of(dtype: str) -> int:
    """The largest head dimension for a dtype: Triton 3.6 spills dq of wider float32 heads with every tile."""
    return 128 if dtype == "fp32" and older_than(3, 9) else WIDEST


def width_of(P: int) -> int:
    """Block width of a head dimension."""
    return max(NARROWEST, triton.next_power_of_2(P))


def capability_of(device: torch.device) -> int:
    """Compute capability as two digits in one; the interpreter does as sm_90 does."""
    if device.type != "cuda":
        return DESCRIPTOR_CAPABILITY
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


# What sm_90 multiplies warp by warp (mma) and not in groups of four warps (wgmma), for which 64 rows would be needed:
# with them these spill. All other 16-bit configurations of attention use wgmma there, and nothing else.
WITHOUT_WARP_GROUPS = {
    ("forward", 256, "unaligned"),
    ("dq", 128, "unaligned"),
    ("dq", 256, "unaligned"),
    ("dk dv", 128, "unaligned"),
    ("dk dv", 256, "unaligned"),
    ("dk dv", 256, "exact"),
    ("dk dv", 256, "padded"),
}


def _expects(kernel: Kernel, dtype: str, width: int, layout: str) -> tuple[str, ...]:
    """Which instructions a configuration must compile to."""
    halves = dtype in ("bf16", "fp16")
    groups = ("warp group",) if halves and (kernel.name, width, plain(layout)) not in WITHOUT_WARP_GROUPS else ()
    products = ("tensor", *groups) if dtype != "fp32" else ()
    if layout == "unaligned":
        return products
    # Loops with bulk copies, and those of dk and dv, load many logarithms and sums; sm_90 turns tf32 keys over, and
    # loads them narrowly.
    mixed = layout.startswith("descriptor") or kernel is KEYS or dtype == "tf32"
    return (*products, "wide" if mixed else "wide loops")


def _case(kernel: Kernel, dtype: str, width: int, layout: str) -> CompileCase:
    fixed = constants(kernel, dtype, width, layout, interpret=False)
    tile = tile_of(kernel, dtype, width, layout)
    element, aligned, descriptors = _ELEMENT[dtype], layout != "unaligned", layout.startswith("descriptor")
    loaded = {
        name: f"tensordesc<{element}{block_of(tile, axis, width)}>" if descriptors else f"*{element}"
        for name, axis in kernel.loaded.items()
    }
    known = tuple(kernel.tensors) if descriptors else kernel.pointers
    return CompileCase(
        label=f"{kernel.name} {dtype} P={width} {layout}",
        kernel=kernel.program(layout),
        signature={
            **loaded,
            **{name: f"*{kind or element}" for name, kind in kernel.tensors.items()},
            **dict.fromkeys(_LENGTHS, "*i64"),
            "scale": "fp32",
            **dict.fromkeys((*kernel.numbers, "P", *kernel.strides), "i32"),
            **dict.fromkeys(fixed, "constexpr"),
        },
        constexprs=fixed,
        divisible=(*known, "P", *kernel.strides) if aligned else (),
        options=tile.options(),
        targets=_targets(kernel, dtype, width, layout),
        expects=_expects(kernel, dtype, width, layout),
        representative=(dtype, width, layout) in (_REPRESENTATIVE_FORWARD if kernel is FORWARD else _REPRESENTATIVE),
        rare=(dtype, width, layout) not in _ORDINARY,
    )


def _targets(kernel: Kernel, dtype: str, width: int, layout: str) -> tuple[int, ...]:
    """The target in the name of the layout; without one all that can load so and have no tile of their own."""
    if layout != plain(layout):
        return (int(layout.split("_")[1]),)
    own = [name for size, name in TILES[kernel.name][dtype] if size == width]
    able = (90, 100) if layout == "descriptor" else (80, 90, 100)
    return tuple(target for target in able if f"{layout}_{target}" not in own)


_REPRESENTATIVE = {
    ("bf16", 64, "descriptor"),
    ("bf16", 64, "descriptor_100"),
    ("bf16", 64, "exact"),
    ("bf16", 64, "exact_80"),
}
# Of the forward kernel one in each of the other dtypes as well.
_REPRESENTATIVE_FORWARD = _REPRESENTATIVE | {("fp16", 128, "padded"), ("tf32", 32, "exact"), ("fp32", 128, "exact")}
# Of every kernel compiled in each run: all widths once, all layouts once, all dtypes once; the rest with --long.
_ORDINARY = _REPRESENTATIVE | {
    ("bf16", 128, "descriptor"),
    ("fp16", 256, "descriptor"),
    ("tf32", 32, "descriptor"),
    ("fp16", 128, "padded"),
    ("bf16", 64, "unaligned"),
    ("fp32", 128, "exact"),
}

COMPILE = [
    _case(kernel, dtype, width, layout)
    for kernel in (FORWARD, QUERIES, KEYS)
    for dtype, table in TILES[kernel.name].items()
    for width, layout in table
    if width <= widest_of(dtype)
]
