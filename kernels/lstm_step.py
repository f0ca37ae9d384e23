"""c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'), with (i, f, g, o) = W_ih x + W_hh h + bias

One time step of a long short-term memory layer: four affine transformations of the input and the state, and the state
update, for a batch of sequences.

B batch, I input size, H hidden size.
x (B, I), h (B, H), c (B, H), weight_ih (4H, I), weight_hh (4H, H), bias (4H) -> h' (B, H), c' (B, H).
The rows of the weights are the gates i, f, g, o in this order, H rows each, as in torch.nn.LSTMCell; its two biases
are summed into one.

Source: Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997; the forget gate is that of
Gers, Schmidhuber and Cummins, Learning to Forget, Neural Computation 12(10), 2000.
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from ..roofline.contract import CompileCase, Implementation
from ..roofline.work import Term, Work, terms
from ._cost import operations, traffic
from ._device import dot, sigmoid, tanh
from ._torch import (
    ELEMENT_BYTES,
    check_tensors,
    dtype_of,
    generator,
    normal,
    run_compiled,
    tf32_on_cpu,
    why_no_compiler,
)
from ._triton import checked_options, interpreted, on_device_of, tl, triton, why_no_triton

GATES = 4


@dataclass(frozen=True)
class Shape:
    """Sizes of one step: B sequences, I inputs, H hidden units."""

    B: int
    I: int
    H: int

    def __post_init__(self) -> None:
        for size in fields(self):
            if getattr(self, size.name) < 1:
                raise ValueError(f"{size.name} must be at least 1, not {getattr(self, size.name)}")


SHAPES = {
    "quick": [Shape(3, 37, 130), Shape(1, 1024, 1024), Shape(64, 512, 512)],
    # The batch sweep walks up the memory roof and over the ridge; the rest varies the size at batch 1 and 32.
    "standard": [
        *(Shape(B, 2048, 2048) for B in (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        *(Shape(B, H, H) for H in (256, 512, 1024, 4096) for B in (1, 32)),
        Shape(17, 300, 1000),
    ],
    "full": [Shape(B, H, H) for H in (256, 512, 768, 1024, 1536, 2048, 4096, 8192) for B in (1, 4, 16, 32, 128, 512)],
}
# Sizes at and around the edges of the Triton tiles, for the correctness tests.
ODD = [Shape(1, 1, 1), Shape(17, 16, 48), Shape(33, 130, 7), Shape(3, 160, 32), Shape(70, 16, 32)]


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    B, I, H = shape.B, shape.I, shape.H
    return {
        "x": (B, I),
        "h": (B, H),
        "c": (B, H),
        "weight_ih": (GATES * H, I),
        "weight_hh": (GATES * H, H),
        "bias": (GATES * H,),
    }


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the gates away from saturation."""
    weights = (shape.I + shape.H) ** -0.5
    scales = {"x": 1.0, "h": 0.5, "c": 1.0, "weight_ih": weights, "weight_hh": weights, "bias": 0.5}
    source = generator(device, seed)
    return {name: normal(size, dtype, device, source, scales[name]) for name, size in _sizes(shape).items()}


def _update(gates: torch.Tensor, c: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn gates before their nonlinearity, stacked along `axis`, and the old cell state into (h', c')."""
    i, f, g, o = gates.chunk(GATES, dim=axis)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def reference(shape: Shape, x, h, c, weight_ih, weight_hh, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the step in plain PyTorch, in the dtype of the tensors; returns h' and c', both (B, H)."""
    return _update(F.linear(x, weight_ih, bias) + F.linear(h, weight_hh), c, axis=1)


def spot(shape: Shape, inputs: dict[str, torch.Tensor], seed: int) -> list[Any]:
    """Pick random sequences and the last one: sequences are independent, so their steps are a smaller problem.

    Returns shape and inputs of the part, what to take out of the outputs of the whole problem, and out of the part's.
    """
    rows = torch.randperm(shape.B, generator=generator("cpu", seed))[: min(shape.B, 16)]
    rows[-1] = shape.B - 1
    part = {name: tensor[rows] if name in ("x", "h", "c") else tensor for name, tensor in inputs.items()}
    smaller = Shape(len(rows), shape.I, shape.H)
    return [(smaller, part, lambda outputs: tuple(output[rows] for output in outputs), lambda outputs: outputs)]


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    B, I, H = shape.B, shape.I, shape.H
    return (
        *terms(
            "matmul_flops",
            ("input product", 2 * B * GATES * H * I, "W_ih x: 4H dot products of length I per sequence"),
            ("recurrent product", 2 * B * GATES * H * H, "W_hh h: 4H dot products of length H per sequence"),
        ),
        *terms(
            "pointwise_flops",
            ("bias", GATES * B * H, "one addition per gate"),
            ("cell state", 3 * B * H, "f c + i g: two products and a sum"),
            ("hidden state", B * H, "o tanh(c')"),
        ),
        *terms(
            "special_ops",
            ("gates", GATES * B * H, "three sigmoids and a tanh"),
            ("cell output", B * H, "tanh(c')"),
        ),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    B, I, H = shape.B, shape.I, shape.H
    return (
        *terms(
            "matmul_flops",
            ("dx", 2 * B * GATES * H * I, "transposed W_ih times the gate gradients"),
            ("dh", 2 * B * GATES * H * H, "transposed W_hh times the gate gradients"),
            ("dW_ih", 2 * B * GATES * H * I, "outer products of gate gradients and x, summed over the batch"),
            ("dW_hh", 2 * B * GATES * H * H, "outer products of gate gradients and h, summed over the batch"),
        ),
        *terms(
            "pointwise_flops",
            ("do", B * H, "dh' tanh(c')"),
            ("dc'", 5 * B * H, "dc' + dh' o (1 - tanh(c')^2)"),
            ("di, df, dg, dc", 4 * B * H, "dc' times g, c, i and f"),
            ("sigmoid gradients", 9 * B * H, "times s (1 - s) for the gates i, f and o: three operations each"),
            ("tanh gradient", 3 * B * H, "times 1 - g^2"),
            ("dbias", (B - 1) * GATES * H, "the gate gradients summed over the batch"),
        ),
        *terms("special_ops", ("cell output", B * H, "tanh(c') again: cheaper than keeping it")),
    )


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    B, I, H = shape.B, shape.I, shape.H
    elements = {
        "weight_ih": GATES * H * I,
        "weight_hh": GATES * H * H,
        "bias": GATES * H,
        "x": B * I,
        "h": B * H,
        "c": B * H,
        "h'": B * H,
        "c'": B * H,
        "gates": GATES * B * H,
    }
    sizes = {name: element_bytes * count for name, count in elements.items()}
    return sizes | {f"d{name}": size for name, size in sizes.items()}


# Per direction, what an implementation must read and write. The gates that the forward pass leaves to the backward
# pass are an input of `backward`, but neither input nor output of a training step: an implementation may recompute
# them. Likewise a training step needs the weights in both of its halves and is charged for one read: the second may
# hit a cache, and a floor must not promise otherwise.
_FORWARD = (("weight_ih", "weight_hh", "bias", "x", "h", "c"), ("h'", "c'"))
_GRADIENTS = ("dweight_ih", "dweight_hh", "dbias", "dx", "dh", "dc")
_TRAFFIC = {
    "forward": _FORWARD,
    "backward": (("weight_ih", "weight_hh", "x", "h", "c", "c'", "gates", "dh'", "dc'"), _GRADIENTS),
    "both": ((*_FORWARD[0], "dh'", "dc'"), (*_FORWARD[1], *_GRADIENTS)),
}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one step, of its gradients, or of both, with every tensor held in `dtype`.

    The backward pass has the gates i, f, g, o after their nonlinearities (4BH values, `saved_bytes`) and c'.
    """
    element_bytes = ELEMENT_BYTES[dtype]
    sizes = _bytes_by_tensor(shape, element_bytes)
    weight_bytes = sizes["weight_ih"] + sizes["weight_hh"] + sizes["bias"]
    return Work(
        terms=(
            *operations(direction, _operations_forward(shape), _operations_backward(shape)),
            *traffic(
                _TRAFFIC,
                sizes,
                direction,
                "gates",
                "and writes the gates for the backward pass",
                "which reads the weights and the gates again",
            ),
        ),
        depth=1,
        weight_bytes=weight_bytes,
        state_bytes=sizes["h"] + sizes["c"],
        saved_bytes=sizes["gates"],
        parameters=weight_bytes // element_bytes,
        tokens=shape.B,
    )


@cache
def _no_bias(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.zeros(size, dtype=dtype, device=device)


def _run_torch(shape: Shape, x, h, c, weight_ih, weight_hh, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Call what torch.nn.LSTMCell calls. Its CUDA kernel insists on a second bias: zeros, made in the first call."""
    second = None if x.device.type == "cpu" else _no_bias(bias.shape[0], bias.dtype, bias.device)
    return torch._VF.lstm_cell(x, (h, c), weight_ih, weight_hh, bias, second)


def _run_onednn(shape: Shape, x, h, c, weight_ih, weight_hh, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Take both products from oneDNN, the second with the addition fused; F.linear would use the BLAS for float32."""
    linear = torch.ops.mkldnn._linear_pointwise
    gates = linear(x, weight_ih, bias, "none", [], "")
    return _update(linear.binary(h, gates, weight_hh, None, "add"), c, axis=1)


def _run_addmm(shape: Shape, x, h, c, weight_ih, weight_hh, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the gates on the rows, so that the BLAS streams the weights as its left operand; outputs are transposed."""
    gates = torch.addmm(torch.addmm(bias[:, None], weight_ih, x.t()), weight_hh, h.t())
    hidden, cell = _update(gates, c.t(), axis=0)
    return hidden.t(), cell.t()


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    # The float16 product of a CPU runs at about 1 GFLOP/s here: beyond this a call takes longer than a second.
    if device == "cpu" and dtype == "fp16" and work(shape, dtype, "forward").matmul_flops > 1e9:
        return "float16 products on a CPU run at about 1 GFLOP/s; this one would take longer than a second"
    return tf32_on_cpu(dtype, device)


def _why_not_onednn(shape: Shape, dtype: str, device: str) -> str | None:
    if device != "cpu":
        return "oneDNN is a library for CPUs"
    if not torch.backends.mkldnn.is_available():
        return "this build of PyTorch has no oneDNN"
    if dtype not in ("fp32", "bf16", "tf32"):
        return f"this row calls oneDNN in fp32 and bf16 only, not in {dtype}"
    if dtype == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bf16 products for this CPU (they need AVX-512 or the like)"
    return tf32_on_cpu(dtype, device)


@triton.jit
def _gates(
    gates, weight_ih, weight_hh, x, h, rows, row_mask, batch, batch_mask, I, H,
    ih_stride, hh_stride, x_stride, h_stride,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add the chosen rows of W_ih x + W_hh h to `gates` (rows, batch).

    One loop runs over the tiles of both products, so that the loads of the second are under way before the first ends.
    Two loops would drain and refill the pipeline in between and wait for memory once more.
    """
    depth = tl.arange(0, DEPTH)[None, :]
    rows = rows.to(tl.int64)[:, None]
    batch = batch.to(tl.int64)[:, None]
    input_tiles = tl.cdiv(I, DEPTH)
    for tile in range(input_tiles + tl.cdiv(H, DEPTH)):
        of_input = tile < input_tiles
        column = tl.where(of_input, tile, tile - input_tiles) * DEPTH + depth
        inside = column < tl.where(of_input, I, H)
        weight = tl.where(of_input, weight_ih, weight_hh) + rows * tl.where(of_input, ih_stride, hh_stride) + column
        operand = tl.where(of_input, x, h) + batch * tl.where(of_input, x_stride, h_stride) + column
        weight = tl.load(weight, mask=row_mask[:, None] & inside, other=0.0)
        operand = tl.load(operand, mask=batch_mask[:, None] & inside, other=0.0)
        gates = dot(weight, tl.trans(operand), gates, PRECISION, INTERPRET)
    return gates


def _step(
    x, h, c, weight_ih, weight_hh, bias, h_out, c_out, B, I, H, x_stride, h_stride, c_stride, ih_stride, hh_stride,
    UNITS: tl.constexpr, BATCH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute h' and c' of UNITS hidden units for BATCH sequences: a program reads all four gates of its units.

    The gates lie on the rows of the product and the batch on its columns: tensor cores take 16 or 64 rows but as few
    as 8 columns, so a small batch wastes little. Programs of the same units have neighbouring numbers and share their
    weights in L2.
    """
    batch = tl.program_id(0) * BATCH + tl.arange(0, BATCH)
    first_unit = tl.program_id(1) * UNITS
    line = tl.arange(0, 4 * UNITS)
    unit = first_unit + line % UNITS
    rows = line // UNITS * H + unit
    row_mask = unit < H
    batch_mask = batch < B
    start = tl.load(bias + rows, mask=row_mask, other=0.0).to(tl.float32)
    gates = _gates(
        tl.zeros((4 * UNITS, BATCH), tl.float32) + start[:, None],
        weight_ih, weight_hh, x, h, rows, row_mask, batch, batch_mask, I, H,
        ih_stride, hh_stride, x_stride, h_stride, DEPTH, PRECISION, INTERPRET,
    )  # fmt: skip
    # (4, UNITS, BATCH) with the gate as two binary digits in front; each split takes the last digit off.
    i_and_g, f_and_o = tl.split(gates.reshape(2, 2, UNITS, BATCH).permute(2, 3, 0, 1))
    i, g = tl.split(i_and_g)
    f, o = tl.split(f_and_o)
    units = (first_unit + tl.arange(0, UNITS))[:, None]
    mask = (units < H) & batch_mask[None, :]
    batch = batch.to(tl.int64)[None, :]
    cell = tl.load(c + batch * c_stride + units, mask=mask, other=0.0).to(tl.float32)
    cell = sigmoid(f) * cell + sigmoid(i) * tanh(g)
    hidden = sigmoid(o) * tanh(cell)
    tl.store(c_out + batch * H + units, cell.to(c_out.dtype.element_ty), mask=mask)
    tl.store(h_out + batch * H + units, hidden.to(h_out.dtype.element_ty), mask=mask)


_TENSORS = ("x", "h", "c", "weight_ih", "weight_hh", "bias", "h_out", "c_out")
_SIZES = ("I", "H", "x_stride", "h_stride", "c_stride", "ih_stride", "hh_stride")

# Two kernels from one function, so that exactly the two signatures that are compiled offline are ever launched: all
# pointers and sizes multiples of 16, which gives 128-bit loads, or nothing known.
_step_aligned = triton.jit(do_not_specialize=["B"])(_step)
_step_unaligned = triton.jit(do_not_specialize=["B", *_SIZES, *_TENSORS])(_step)


@dataclass(frozen=True)
class _Tile:
    """What one program does: `units` hidden units (four rows each) by `batch` sequences, `depth` columns at a time."""

    units: int
    batch: int
    depth: int
    warps: int
    stages: int

    def constexprs(self, precision: str, interpret: bool) -> dict[str, Any]:
        return {
            "UNITS": self.units,
            "BATCH": self.batch,
            "DEPTH": self.depth,
            "PRECISION": precision,
            "INTERPRET": interpret,
        }

    def options(self) -> dict[str, Any]:
        return checked_options(num_warps=self.warps, num_stages=self.stages)


# Depth and stages keep 24 KiB or more of weights on their way to every processor (4.8 TB/s times 0.6 us of latency is
# 22 KiB for each of 132) inside the 163 KiB of shared memory of sm_80. With 64 rows or more sm_90 uses its warp-group
# products.
_TILES_16_BIT = (
    _Tile(8, 16, 128, 4, 5),
    _Tile(16, 16, 128, 4, 4),
    _Tile(32, 16, 128, 8, 4),
    _Tile(8, 32, 128, 4, 5),
    _Tile(16, 32, 128, 4, 4),
    _Tile(32, 32, 128, 8, 4),
    _Tile(16, 64, 128, 4, 4),
    _Tile(32, 64, 128, 8, 3),
    _Tile(16, 128, 64, 8, 4),
    _Tile(32, 128, 64, 8, 4),
)
# The same bytes per tile in half as many columns.
_TILES_TF32 = tuple(_Tile(t.units, t.batch, t.depth // 2, t.warps, t.stages) for t in _TILES_16_BIT)
# Without tensor cores a padded column costs as much as a real one, hence a tile for up to 4 sequences; 32 rows per
# four warps is as far as the accumulators go without spilling.
_TILES_FP32 = (
    _Tile(8, 4, 64, 4, 4),
    _Tile(8, 16, 64, 4, 3),
    _Tile(8, 32, 32, 4, 4),
    _Tile(16, 64, 32, 8, 4),
)
_TILES = {"bf16": _TILES_16_BIT, "fp16": _TILES_16_BIT, "tf32": _TILES_TF32, "fp32": _TILES_FP32}
# Sizes that are no multiples of 16 are loaded element by element, which one modest tile serves as well as any.
_UNALIGNED_TILE = _Tile(8, 32, 32, 4, 3)

_PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "tf32": "tf32"}
_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}


def _case(dtype: str, tile: _Tile, aligned: bool) -> CompileCase:
    constexprs = tile.constexprs(_PRECISION[dtype], interpret=False)
    tensor_cores = ("tensor",) if dtype != "fp32" else ()
    return CompileCase(
        label=f"{dtype} {tile.units} units x {tile.batch} {'aligned' if aligned else 'unaligned'}",
        kernel=_step_aligned if aligned else _step_unaligned,
        signature={
            **dict.fromkeys(_TENSORS, _ELEMENT[dtype]),
            **dict.fromkeys(("B", *_SIZES), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_TENSORS, *_SIZES) if aligned else (),
        options=tile.options(),
        expects=(*tensor_cores, "wide loops") if aligned else tensor_cores,
        representative=aligned and (tile.units, tile.batch) == (_TILES[dtype][1].units, 16),
    )


COMPILE = [
    *(_case(dtype, tile, aligned=True) for dtype, tiles in _TILES.items() for tile in tiles),
    *(_case(dtype, _UNALIGNED_TILE, aligned=False) for dtype in _TILES),
]


def _tile_for(shape: Shape, dtype: str, processors: int) -> _Tile:
    """Choose the narrowest tile that holds the batch, then the most units that still keep the processors busy.

    More units per program mean fewer programs that read the whole input and state; nine tenths of the processors are
    enough to draw all of the memory bandwidth. Where even the fewest units would leave more than half of the processors
    idle, the batch is cut into narrower tiles: weights are then read once for each, but all others from L2.
    """
    tiles = _TILES[dtype]
    widths = sorted({tile.batch for tile in tiles})
    holding = next((width for width in widths if width >= shape.B), widths[-1])
    fitting: list[_Tile] = []
    for width in (width for width in reversed(widths) if width <= holding):
        fitting = sorted((tile for tile in tiles if tile.batch == width), key=lambda tile: -tile.units)
        if _programs(shape, fitting[-1]) >= 0.5 * processors:
            break
    filling = [tile for tile in fitting if _programs(shape, tile) >= 0.9 * processors]
    return (filling or fitting[-1:])[0]


def _programs(shape: Shape, tile: _Tile) -> int:
    """Programs of a launch."""
    return -(-shape.B // tile.batch) * -(-shape.H // tile.units)


@cache
def _processors(device: torch.device) -> int:
    if interpreted():
        return 2  # small shapes would never see a wide tile with more
    # Without a GPU the choice is that of an H200.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def _row_major(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _run_triton(shape: Shape, x, h, c, weight_ih, weight_hh, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the fused step. Rows may be any distance apart; a tensor whose rows are not dense is copied first.

    Raises ValueError where tensors do not fit the shape or each other, and where gradients are wanted.
    """
    given = {"x": x, "h": h, "c": c, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
    check_tensors(shape, given, _sizes(shape))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given.values()):
        raise ValueError("The row 'triton' of lstm_step computes no gradients; take 'torch', or torch.no_grad().")
    tensors = [_row_major(tensor) for tensor in given.values()]
    tensors += [torch.empty((shape.B, shape.H), dtype=x.dtype, device=x.device) for _ in range(2)]
    dtype = dtype_of(x)
    sizes = [shape.I, shape.H, *(tensor.stride(0) for tensor in tensors[:5])]
    aligned = all(number % 16 == 0 for number in (*sizes, *(tensor.data_ptr() for tensor in tensors)))
    tile = _tile_for(shape, dtype, _processors(x.device)) if aligned else _UNALIGNED_TILE
    grid = (triton.cdiv(shape.B, tile.batch), triton.cdiv(shape.H, tile.units))
    kernel = _step_aligned if aligned else _step_unaligned
    constexprs = tile.constexprs(_PRECISION[dtype], interpreted())
    with on_device_of(x):
        kernel[grid](*tensors, shape.B, *sizes, **constexprs, **tile.options())
    return tensors[-2], tensors[-1]


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64":
        return "the Triton kernel accumulates in float32; float64 is for the reference"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


# Launches as far as known: two products, their sum unless fused, four gates, three for the cell, two for the output.
IMPLEMENTATIONS = {
    "reference": Implementation(reference, launches=12, supports=_why_not_torch, grad=True),
    "torch": Implementation(
        _run_torch,
        launches=lambda shape, dtype, device: 12 if device == "cpu" else 3,
        supports=_why_not_torch,
        grad=True,
    ),
    "torch.onednn": Implementation(_run_onednn, launches=11, supports=_why_not_onednn),
    "torch.addmm": Implementation(_run_addmm, launches=11, supports=_why_not_torch, grad=True),
    "compile": Implementation(run_compiled(reference), launches=3, supports=why_no_compiler, grad=True),
    "triton": Implementation(_run_triton, launches=1, supports=_why_not_triton),
}
