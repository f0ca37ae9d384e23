"""y = (W_a * x + a) sigmoid(W_b * x + b), a causal convolution with a sigmoid gate; or y = x (1 - s) + (W_a * x + a) s

Gated convolution: two dense convolutions over the last W inputs, the sigmoid s of the second gating the first. The
residual form lets the input through where the gate is closed.

B batch, T time steps, C input channels, O output channels, W taps, `dilation` steps between taps.
x (B, T, C), weight (W, C, 2O), bias (2O) -> y (B, T, O); channels last, the columns of weight and bias are a then b.
(W * x)[t] = sum over w of x[t - (W - 1 - w) dilation] weight[w], with zeros before the first step: the last tap sees
the present input, no output sees the future.

Source: Dauphin et al., Language Modeling with Gated Convolutional Networks, ICML 2017; the residual form is a highway
connection (Srivastava et al., Highway Networks, arXiv 1505.00387, 2015).
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import CompileCase, Implementation
from ..roofline.work import Term, Work, terms
from ._conv_launch import (
    ELEMENT,
    POINTWISE_WARPS,
    ROWS_OF,
    Tile,
    acc_of,
    anticausal,
    causal,
    dense,
    gradient_cases,
    is_aligned,
    launched_dtype,
    pointwise_grid,
    product,
    product_cases,
    turned_over,
    weight_gradient,
    why_not_triton,
    wide_loads,
)
from ._conv_spot import causal_spot
from ._cost import operations, traffic
from ._device import dot, sigmoid
from ._torch import (
    ELEMENT_BYTES,
    check_tensors,
    generator,
    normal,
    once_differentiable,
    run_compiled,
    why_no_compiler,
    why_slow,
)
from ._triton import checked_options, tl, triton

GATES = 2  # the value a and the gate b


@dataclass(frozen=True)
class Shape:
    """Sizes of one gated convolution; `residual=1` mixes the input with the output and needs C = O."""

    B: int
    T: int
    C: int
    O: int
    W: int
    dilation: int = 1
    residual: int = 0

    def __post_init__(self) -> None:
        for size in fields(self):
            least = 0 if size.name == "B" else 1
            if size.name != "residual" and getattr(self, size.name) < least:
                raise ValueError(f"{size.name} must be at least {least}, not {getattr(self, size.name)}")
        if self.residual not in (0, 1):
            raise ValueError(f"residual must be 0 or 1, not {self.residual}")
        if self.residual and self.C != self.O:
            raise ValueError(f"the residual form adds the input to the output: C={self.C} and O={self.O} must be equal")

    @property
    def halo(self) -> int:
        """Steps before the present one that an output sees."""
        return (self.W - 1) * self.dilation


SHAPES = {
    "quick": [
        Shape(4, 1024, 128, 128, 4),
        Shape(3, 333, 37, 51, 3, dilation=2),
        Shape(2, 500, 64, 64, 5, dilation=3, residual=1),
    ],
    # Few channels: the bandwidth wall; many channels: the compute wall.
    "standard": [
        Shape(32, 4096, 32, 32, 2),
        Shape(32, 4096, 32, 32, 4),
        Shape(64, 4096, 16, 16, 4),
        Shape(16, 4096, 128, 128, 4),
        Shape(8, 4096, 512, 512, 4),
        Shape(8, 2048, 1024, 1024, 3, residual=1),
        Shape(8, 1000, 800, 800, 4),
        Shape(5, 1021, 150, 150, 7, dilation=4, residual=1),
    ],
    "full": [
        *(
            Shape(65536 // T, T, C, C, W)
            for T in (512, 4096)
            for C in (16, 32, 64, 128, 256, 512, 1024)
            for W in (2, 4)
        ),
        *(Shape(8, 4096, 256, 256, 3, dilation=d, residual=1) for d in (1, 4, 16, 64, 256)),
        *(Shape(1, T, 512, 512, 4) for T in (256, 1024, 16384, 131072)),
        Shape(8, 1000, 800, 800, 4),
        Shape(16, 2048, 64, 512, 5),
    ],
}
# Sizes at and around the edges of the Triton tiles; a halo longer than the sequence, many taps, many channels.
ODD = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 7, 16, 16, 4, residual=1),
    Shape(2, 65, 33, 17, 3, dilation=5),
    Shape(1, 9, 5, 3, 4, dilation=7),
    Shape(1, 130, 48, 80, 2),
    Shape(2, 40, 19, 19, 3, dilation=2, residual=1),
    Shape(1, 50, 200, 48, 2, dilation=64),
    Shape(1, 40, 8, 8, 31, residual=1),
    Shape(1, 1031, 16, 32, 2, dilation=64),
]
ODD_LONG = [
    Shape(2, T, C, C, W, dilation=dilation, residual=residual)
    for T in (1, 128, 257)
    for C in (1, 17, 64)
    for W, dilation in ((1, 1), (2, 1), (3, 64), (31, 2))
    for residual in (0, 1)
]


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    columns = GATES * shape.O
    return {"x": (shape.B, shape.T, shape.C), "weight": (shape.W, shape.C, columns), "bias": (columns,)}


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the gate away from saturation."""
    source = generator(device, seed)
    scales = {"x": 1.0, "weight": (shape.W * shape.C) ** -0.5, "bias": 0.5}
    return {name: normal(size, dtype, device, source, scales[name]) for name, size in _sizes(shape).items()}


def _conv1d(shape: Shape, x, weight, bias) -> torch.Tensor:
    """Convolve for both gates with F.conv1d, which wants channels first: views and one padded copy; (B, 2O, T)."""
    check_tensors(shape, {"x": x, "weight": weight, "bias": bias}, _sizes(shape))
    padded = F.pad(x, (0, 0, shape.halo, 0)).transpose(1, 2)
    return F.conv1d(padded, weight.permute(2, 1, 0), bias, dilation=shape.dilation)


def reference(shape: Shape, x, weight, bias) -> tuple[torch.Tensor]:
    """Compute the gated convolution in plain PyTorch, in the dtype of the tensors; returns y."""
    value, gate = _conv1d(shape, x, weight, bias).transpose(1, 2).chunk(GATES, dim=-1)
    gate = torch.sigmoid(gate)
    return (x * (1 - gate) + value * gate if shape.residual else value * gate,)


def _run_torch(shape: Shape, x, weight, bias) -> tuple[torch.Tensor]:
    """Call conv1d and glu, or lerp for the residual form. The result is a view in whatever layout conv1d prefers."""
    gates = _conv1d(shape, x, weight, bias)
    if not shape.residual:
        return (F.glu(gates, dim=1).transpose(1, 2),)
    value, gate = gates.transpose(1, 2).chunk(GATES, dim=-1)
    return (torch.lerp(x, value, torch.sigmoid(gate)),)


def spot(shape: Shape, inputs: dict[str, torch.Tensor], seed: int) -> list[Any]:
    """Pick runs of time steps, each with what it sees before it."""
    return causal_spot(shape, inputs, seed, shape.halo, ("x",))


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    outputs = shape.B * shape.T * shape.O
    product = 2 * outputs * shape.W * shape.C
    mixing = ("mix", 3 * outputs, "x + s (value - x)") if shape.residual else ("gate", outputs, "value times s")
    return (
        *terms(
            "matmul_flops",
            ("value convolution", product, "W taps of C multiply-adds per output, taps on padding included"),
            ("gate convolution", product, "the same for the gate"),
        ),
        *terms("pointwise_flops", ("bias", GATES * outputs, "one addition each for value and gate"), mixing),
        *terms("special_ops", ("sigmoid", outputs, "s, one per output")),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    outputs = shape.B * shape.T * shape.O
    product = 2 * outputs * shape.W * shape.C * GATES
    residual = (
        ("input through the gate", 2 * outputs, "dy (1 - s), added to dx"),
        ("difference to the input", outputs, "the gate weighs value - x"),
    )
    return (
        *terms(
            "matmul_flops",
            ("dx", product, "gradients of value and gate convolved with the flipped weights"),
            ("dweight", product, "inputs times gradients of value and gate, summed over time and batch"),
        ),
        *terms(
            "pointwise_flops",
            ("dvalue", outputs, "dy s"),
            ("dgate", 3 * outputs, "dvalue times value (1 - s)"),
            ("dbias", GATES * max(0, shape.B * shape.T - 1) * shape.O, "gradients summed over time and batch"),
            *(residual if shape.residual else ()),
        ),
    )


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    steps = shape.B * shape.T
    elements = {
        "x": steps * shape.C,
        "weight": shape.W * shape.C * GATES * shape.O,
        "bias": GATES * shape.O,
        "y": steps * shape.O,
    }
    sizes = {name: element_bytes * count for name, count in elements.items()}
    return sizes | {f"d{name}": size for name, size in sizes.items()} | {"value and s": GATES * sizes["y"]}


# Per direction, what an implementation must read and write. Value and sigmoid, which the forward pass leaves for the
# backward pass, are input of `backward`; in a training step an implementation may compute them twice instead.
_TRAFFIC = {
    "forward": (("x", "weight", "bias"), ("y",)),
    "backward": (("x", "weight", "value and s", "dy"), ("dx", "dweight", "dbias")),
    "both": (("x", "weight", "bias", "dy"), ("y", "dx", "dweight", "dbias")),
}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one gated convolution, of its gradients, or of both, with every tensor held in `dtype`.

    The backward pass has the value and the sigmoid of every output (`saved_bytes`).
    """
    element_bytes = ELEMENT_BYTES[dtype]
    sizes = _bytes_by_tensor(shape, element_bytes)
    weight_bytes = sizes["weight"] + sizes["bias"]
    return Work(
        terms=(
            *operations(direction, _operations_forward(shape), _operations_backward(shape)),
            *traffic(
                _TRAFFIC,
                sizes,
                direction,
                "value and s",
                "and writes value and sigmoid for the backward pass",
                "which reads them, the input and the weights again",
            ),
        ),
        weight_bytes=weight_bytes,
        saved_bytes=sizes["value and s"],
        parameters=weight_bytes // element_bytes,
        tokens=shape.B * shape.T,
    )


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


def _convolve_gate(
    x, weight, bias, y, saved, T, C, O, taps, last_tap, x_batch, x_step, x_tap, weight_tap, weight_channel,
    STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, RESIDUAL: tl.constexpr,
    SAVE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y for STEPS time steps and OUTPUTS channels of one sequence: value and gate in one accumulator.

    The product has the time on its rows; its columns are OUTPUTS values, then their OUTPUTS gates. Tap w of a step
    lies `(last_tap - w) * x_tap` elements before it. One loop runs over chunks of channels and, inside of these, over
    the taps, whose inputs overlap: only the first tap of a chunk brings new inputs from memory, the others find them
    in a cache. Neighbouring programs share their inputs. SAVE stores value and sigmoid for the backward pass, in saved
    (B, T, 2O).
    """
    output_blocks = tl.cdiv(O, OUTPUTS)
    step_blocks = tl.cdiv(T, STEPS)
    program = tl.program_id(0)
    step = (program // output_blocks % step_blocks * STEPS + tl.arange(0, STEPS)).to(tl.int64)
    batch = (program // output_blocks // step_blocks).to(tl.int64)
    first_output = program % output_blocks * OUTPUTS
    column = tl.arange(0, 2 * OUTPUTS)
    output = first_output + column % OUTPUTS
    column = column // OUTPUTS * O + output
    chunk = tl.arange(0, CHANNELS)

    x += batch * x_batch
    start = tl.load(bias + column, mask=output < O, other=0.0).to(ACC)
    gates = tl.zeros((STEPS, 2 * OUTPUTS), ACC) + start[None, :]
    for turn in range(tl.cdiv(C, CHANNELS) * taps):
        tap = turn % taps
        channel = turn // taps * CHANNELS + chunk
        # A place before the beginning of the sequence is padding: every step takes at least C places.
        place = (step * x_step)[:, None] + (channel - (last_tap - tap).to(tl.int64) * x_tap)[None, :]
        seen = (place >= 0) & (step < T)[:, None] & (channel < C)[None, :]
        taken = tl.load(x + place, mask=seen, other=0.0, cache_modifier=".ca")
        weights = tl.load(
            weight + tap.to(tl.int64) * weight_tap + (channel.to(tl.int64) * weight_channel)[:, None] + column[None, :],
            mask=(channel < C)[:, None] & (output < O)[None, :],
            other=0.0,
        )
        gates = dot(taken, weights, gates, PRECISION, INTERPRET)

    value, gate = tl.split(gates.reshape(STEPS, 2, OUTPUTS).permute(0, 2, 1))
    gate = sigmoid(gate)
    output = first_output + tl.arange(0, OUTPUTS)
    mask = (step < T)[:, None] & (output < O)[None, :]
    if SAVE:
        pair = saved + ((batch * T + step) * 2 * O)[:, None] + output[None, :]
        tl.store(pair, value.to(y.dtype.element_ty), mask=mask)
        tl.store(pair + O, gate.to(y.dtype.element_ty), mask=mask)
    result = value * gate
    if RESIDUAL:
        present = tl.load(x + (step * x_step)[:, None] + output[None, :], mask=mask, other=0.0)
        result += present.to(ACC) * (1.0 - gate)
    tl.store(y + ((batch * T + step) * O)[:, None] + output[None, :], result.to(y.dtype.element_ty), mask=mask)


def _gate_gradient(
    dy, saved, x, dgates, through, partial, rows, O,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, RESIDUAL: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of value and gate before its sigmoid, dgates (rows, 2O), from dy (rows, O), and their column sums.

    saved (rows, 2O) holds value and sigmoid. The residual form also writes the gradient that goes through the closed
    gate, `through` (rows, O). partial (programs, 2O) has one part per program of axis 0, to be summed in their order.
    """
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lane = tl.arange(0, ROWS)
    value_sums = tl.zeros((ROWS, COLUMNS), ACC)
    gate_sums = tl.zeros((ROWS, COLUMNS), ACC)
    for block in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (block * ROWS + lane).to(tl.int64)
        place = (row * O)[:, None] + column[None, :]
        pair = (row * 2 * O)[:, None] + column[None, :]
        mask = (row < rows)[:, None] & (column < O)[None, :]
        above = tl.load(dy + place, mask=mask, other=0.0).to(ACC)
        value = tl.load(saved + pair, mask=mask, other=0.0).to(ACC)
        gate = tl.load(saved + pair + O, mask=mask, other=0.0).to(ACC)
        dvalue = above * gate
        if RESIDUAL:
            value -= tl.load(x + place, mask=mask, other=0.0).to(ACC)
            tl.store(through + place, (above * (1.0 - gate)).to(dy.dtype.element_ty), mask=mask)
        dgate = dvalue * value * (1.0 - gate)
        tl.store(dgates + pair, dvalue.to(dy.dtype.element_ty), mask=mask)
        tl.store(dgates + pair + O, dgate.to(dy.dtype.element_ty), mask=mask)
        value_sums += dvalue
        gate_sums += dgate
    part = partial + tl.program_id(0).to(tl.int64) * 2 * O + column
    tl.store(part, tl.sum(value_sums, axis=0), mask=column < O)
    tl.store(part + O, tl.sum(gate_sums, axis=0), mask=column < O)


_TENSORS = ("x", "weight", "bias", "y", "saved")
_SIZES = ("C", "O", "x_batch", "x_step", "x_tap", "weight_tap", "weight_channel")
_COUNTS = ("T", "taps", "last_tap")
_GRADIENT_TENSORS = ("dy", "saved", "x", "dgates", "through", "partial")

# Two kernels from one function, so that exactly the signatures that are compiled offline are ever launched: all
# pointers and sizes multiples of 16, which gives 128-bit loads, or nothing known.
_convolve_gate_aligned = triton.jit(do_not_specialize=[*_COUNTS])(_convolve_gate)
_convolve_gate_unaligned = triton.jit(do_not_specialize=[*_COUNTS, *_SIZES, *_TENSORS])(_convolve_gate)
_gate_gradient_aligned = triton.jit(do_not_specialize=["rows"])(_gate_gradient)
_gate_gradient_unaligned = triton.jit(do_not_specialize=["rows", "O", *_GRADIENT_TENSORS])(_gate_gradient)


# Few outputs mean a bandwidth-bound convolution: no pipeline (one stage), because pipelined loads of Triton 3.6 pass by
# the L1 cache and would read every tap from L2, which cannot deliver several times the memory bandwidth; programs
# waiting side by side keep the loads in flight instead. Many outputs are compute-bound and want large, pipelined tiles.
# All fit the 163 KiB of shared memory of sm_80 and spill nowhere.
_TILES = {
    "bf16": (Tile(128, 16, 64, 4, 1), Tile(128, 32, 64, 8, 1), Tile(128, 64, 64, 8, 3), Tile(128, 128, 32, 8, 4)),
    "fp16": (Tile(128, 16, 64, 4, 1), Tile(128, 32, 64, 8, 1), Tile(128, 64, 64, 8, 3), Tile(128, 128, 32, 8, 4)),
    "tf32": (Tile(128, 16, 32, 4, 1), Tile(128, 32, 32, 4, 3), Tile(128, 64, 32, 8, 3)),
    "fp32": (Tile(64, 16, 32, 4, 2), Tile(128, 32, 16, 8, 3)),
}
# Sizes that are no multiples of 16 are loaded element by element, which one modest tile serves as well as any.
_UNALIGNED_TILES = {
    "bf16": Tile(64, 32, 32, 4, 2),
    "fp16": Tile(64, 32, 32, 4, 2),
    "tf32": Tile(64, 32, 32, 4, 2),
    "fp32": Tile(32, 16, 32, 4, 1),
}


def _tiles_for(dtype: str, save: int) -> tuple[Tile, ...]:
    """Tiles of the aligned kernel. With 128 outputs a kernel that saves runs out of registers."""
    tiles = _TILES["fp32" if dtype == "fp64" else dtype]
    return tuple(tile for tile in tiles if tile.outputs < 128) if save else tiles


def _case(dtype: str, tile: Tile, aligned: bool, residual: int, save: int) -> CompileCase:
    constexprs = tile.constexprs(dtype, RESIDUAL=residual, SAVE=save) | {"INTERPRET": False}
    tensor_cores = ("tensor",) if dtype != "fp32" else ()
    form, layout = ("residual" if residual else "plain"), ("aligned" if aligned else "unaligned")
    widest = aligned and tile == _tiles_for(dtype, save)[-1]
    # The form and what is saved change the end of the kernel only: they are compiled with the widest tile.
    usual = dtype == "bf16" or (widest and dtype != "fp16")
    return CompileCase(
        label=f"{dtype} {tile.outputs} outputs {form} {layout}{' saving' if save else ''}",
        kernel=_convolve_gate_aligned if aligned else _convolve_gate_unaligned,
        signature={
            **dict.fromkeys(_TENSORS, ELEMENT[dtype]),
            **dict.fromkeys((*_COUNTS, *_SIZES), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_TENSORS, *_SIZES) if aligned else (),
        options=tile.options(),
        expects=(*tensor_cores, wide_loads(dtype)) if aligned else tensor_cores,
        representative=widest and not (residual or save),
        rare=not (widest and dtype == "bf16") if residual or save else not usual,
    )


def _gradient_case(dtype: str, width: int, aligned: bool, residual: int) -> CompileCase:
    constexprs = {"ROWS": ROWS_OF[width], "COLUMNS": width, "RESIDUAL": residual, "ACC": tl.float32}
    form, layout = ("residual" if residual else "plain"), ("aligned" if aligned else "unaligned")
    return CompileCase(
        label=f"{dtype} gradient of the gates, {width} columns {form} {layout}",
        kernel=_gate_gradient_aligned if aligned else _gate_gradient_unaligned,
        signature={
            **dict.fromkeys(_GRADIENT_TENSORS, ELEMENT[dtype]),
            "partial": "*fp32",
            "rows": "i32",
            "O": "i32",
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_GRADIENT_TENSORS, "O") if aligned else (),
        options=checked_options(num_warps=POINTWISE_WARPS),
        expects=("wide loops",) if aligned else (),
        rare=dtype != "bf16" or not residual or width == 16,
    )


_EVERY = [(residual, save) for residual in (0, 1) for save in (0, 1)]
COMPILE = [
    *(_case(dtype, tile, True, *how) for dtype in _TILES for how in _EVERY for tile in _tiles_for(dtype, how[1])),
    *(_case(dtype, tile, False, *how) for dtype, tile in _UNALIGNED_TILES.items() for how in _EVERY),
    *(
        _gradient_case(dtype, width, aligned, residual)
        for dtype in ("bf16", "fp16", "fp32")
        for width in ROWS_OF
        for aligned in (True, False)
        for residual in (0, 1)
    ),
    *product_cases("dx"),
    *product_cases("dx with the closed gate's", add=True, rare=True),
    *gradient_cases(),
]


def _walk(shape: Shape, x, weight) -> dict[str, int]:
    """Say how the kernel's loop walks over inputs and weights, as its arguments `taps` to `weight_channel`.

    Without dilation, and with dense steps and taps, the inputs of one output are W C neighbours in memory, and so are
    their weights: a convolution of one tap with W C channels, which fills the tiles however few channels there are.
    """
    strides = {"x_batch": x.stride(0), "x_step": x.stride(1)}
    strides |= {"weight_tap": weight.stride(0), "weight_channel": weight.stride(1)}
    dense = x.stride(1) == shape.C and weight.stride(0) == shape.C * weight.stride(1)
    if shape.dilation == 1 and dense:
        return {"C": shape.W * shape.C, "taps": 1, "last_tap": shape.W - 1, "x_tap": shape.C, **strides}
    return {
        "C": shape.C,
        "taps": shape.W,
        "last_tap": shape.W - 1,
        "x_tap": shape.dilation * x.stride(1),
        **strides,
    }


def _convolve(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Launch the fused kernel; returns y and, to save, value and sigmoid (B, T, 2O).

    Inputs whose last axis is not dense, or whose steps overlap, are copied first.
    """
    x, bias = dense(x), bias.contiguous()
    weight = weight if weight.stride(2) == 1 else weight.contiguous()
    dtype = launched_dtype(x)
    y = torch.empty((shape.B, shape.T, shape.O), dtype=x.dtype, device=x.device)
    saved = torch.empty((shape.B, shape.T, GATES * shape.O), dtype=x.dtype, device=x.device) if save else None
    if not shape.B:
        return y, saved
    tensors = (x, weight, bias, y, y if saved is None else saved)
    arguments = {"T": shape.T, "O": shape.O, **_walk(shape, x, weight)}
    aligned = is_aligned((arguments[name] for name in _SIZES), tensors)
    tiles = _tiles_for(dtype, int(save))
    wide_enough = [tile for tile in tiles if tile.outputs >= shape.O]
    narrow = _UNALIGNED_TILES["fp32" if dtype == "fp64" else dtype]
    tile = (wide_enough or tiles[-1:])[0] if aligned else narrow
    kernel = _convolve_gate_aligned if aligned else _convolve_gate_unaligned
    grid = (triton.cdiv(shape.T, tile.steps) * triton.cdiv(shape.O, tile.outputs) * shape.B,)
    constexprs = tile.constexprs(dtype, RESIDUAL=shape.residual, SAVE=int(save))
    kernel[grid](*tensors, **arguments, **constexprs, **tile.options())
    return y, saved


def _gate_gradients(shape: Shape, dy: Tensor, saved: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of value and gate (B, T, 2O), what goes through the closed gate (B, T, O) or None, and dbias."""
    dy, x = dy.contiguous(), x.contiguous() if shape.residual else dy
    dgates, through = torch.empty_like(saved), torch.empty_like(dy) if shape.residual else None
    rows = shape.B * shape.T
    if not rows:
        return dgates, through, dy.new_zeros(GATES * shape.O)
    tile, grid = pointwise_grid(rows, shape.O)
    tile |= {"RESIDUAL": shape.residual}
    acc, kind = acc_of(launched_dtype(dy))
    partial = torch.empty((grid[0], GATES * shape.O), dtype=kind, device=dy.device)
    tensors = (dy, saved, x, dgates, dy if through is None else through)
    kernel = _gate_gradient_aligned if is_aligned((shape.O,), tensors) else _gate_gradient_unaligned
    options = checked_options(num_warps=POINTWISE_WARPS)
    kernel[grid](*tensors, partial, rows=rows, O=shape.O, **tile, ACC=acc, **options)
    return dgates, through, partial.sum(0).to(dy.dtype)


class _GatedConvolution(torch.autograd.Function):
    """x (B, T, C), weight (W, C, 2O), bias (2O) -> y (B, T, O); keeps value and sigmoid, or neither."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, keep: bool, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y, saved = _convolve(shape, x, weight, bias, keep)
        ctx.shape = shape
        ctx.save_for_backward(x, weight, bias, *(() if saved is None else (saved,)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        shape, (x, weight, bias, *kept) = ctx.shape, ctx.saved_tensors
        saved: Any = kept[0] if kept else _convolve(shape, x, weight, bias, save=True)[1]
        dgates, through, dbias = _gate_gradients(shape, gradients[0], saved, x)
        dx = dweight = None
        if ctx.needs_input_grad[2]:
            dx, _ = product(dgates, turned_over(weight), anticausal(shape.T, shape.W, shape.dilation), addend=through)
        if ctx.needs_input_grad[3]:
            dweight = weight_gradient(x, dgates, causal(shape.T, shape.W, shape.dilation))
        return None, None, dx, dweight, dbias


def _run_triton(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor, recompute: bool = False) -> tuple[Tensor]:
    """Compute y in one launch; for gradients it keeps value and sigmoid, or computes them again with `recompute`."""
    check_tensors(shape, {"x": x, "weight": weight, "bias": bias}, _sizes(shape))
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weight, bias))
    keep = differentiated and not recompute
    return (_GatedConvolution.apply(shape, keep, x, weight, bias),)  # pyright: ignore[reportReturnType]


# Launches as far as known; eagerly: the padding, the convolution, its bias, and the gate as one or several operations.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: 8 if shape.residual else 5,
        supports=_why_not_torch,
        grad=True,
    ),
    "torch": Implementation(
        _run_torch,
        launches=lambda shape, dtype, device: 5 if shape.residual else 4,
        supports=_why_not_torch,
        grad=True,
    ),
    "compile": Implementation(run_compiled(reference), launches=4, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, supports=why_not_triton, grad=True),
}
