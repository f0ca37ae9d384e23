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

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.nn import functional as F

from ..roofline.contract import CompileCase, Implementation
from ..roofline.work import Term, Work, terms
from ._cost import operations, traffic
from ._device import dot, sigmoid
from ._torch import ELEMENT_BYTES, generator, normal, run_compiled, tf32_allowed, tf32_on_cpu, why_no_compiler
from ._triton import checked_options, interpreted, tl, triton, why_no_triton

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
            if size.name != "residual" and getattr(self, size.name) < 1:
                raise ValueError(f"{size.name} must be at least 1, not {getattr(self, size.name)}")
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
# Sizes at and around the edges of the Triton tiles, a halo longer than the sequence included.
ODD = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 7, 16, 16, 4, residual=1),
    Shape(2, 65, 33, 17, 3, dilation=5),
    Shape(1, 9, 5, 3, 4, dilation=7),
    Shape(1, 130, 48, 80, 2),
    Shape(2, 40, 19, 19, 3, dilation=2, residual=1),
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the gate away from saturation."""
    source = generator(device, seed)
    fan_in = shape.W * shape.C
    return {
        "x": normal((shape.B, shape.T, shape.C), dtype, device, source),
        "weight": normal((shape.W, shape.C, GATES * shape.O), dtype, device, source, scale=fan_in**-0.5),
        "bias": normal((GATES * shape.O,), dtype, device, source, scale=0.5),
    }


def _convolve(shape: Shape, x, weight, bias) -> torch.Tensor:
    """Convolve for both gates with F.conv1d, which wants channels first: views and one padded copy; (B, 2O, T)."""
    padded = F.pad(x, (0, 0, shape.halo, 0)).transpose(1, 2)
    return F.conv1d(padded, weight.permute(2, 1, 0), bias, dilation=shape.dilation)


def reference(shape: Shape, x, weight, bias) -> tuple[torch.Tensor]:
    """Compute the gated convolution in plain PyTorch, in the dtype of the tensors; returns y."""
    value, gate = _convolve(shape, x, weight, bias).transpose(1, 2).chunk(GATES, dim=-1)
    gate = torch.sigmoid(gate)
    return (x * (1 - gate) + value * gate if shape.residual else value * gate,)


def _run_torch(shape: Shape, x, weight, bias) -> tuple[torch.Tensor]:
    """Call conv1d and glu, or lerp for the residual form. The result is a view in whatever layout conv1d prefers."""
    gates = _convolve(shape, x, weight, bias)
    if not shape.residual:
        return (F.glu(gates, dim=1).transpose(1, 2),)
    value, gate = gates.transpose(1, 2).chunk(GATES, dim=-1)
    return (torch.lerp(x, value, torch.sigmoid(gate)),)


# Time steps of a spot check: two of the widest tiles, so that a tile border lies inside.
SPOT_STEPS = 256


def spot(shape: Shape, inputs: dict[str, torch.Tensor], seed: int) -> list[Any]:
    """Pick a random run of time steps and the last ones, of one random and of the last sequence.

    A run with the halo before it is a convolution of its own, whose outputs in the halo are dropped. Returns shape and
    inputs of each, what to take out of the outputs of the whole problem, and out of those of the part.
    """
    source = generator("cpu", seed)
    steps = min(shape.T, SPOT_STEPS)
    starts = (int(torch.randint(shape.T - steps + 1, (), generator=source)), shape.T - steps)
    sequences = (int(torch.randint(shape.B, (), generator=source)), shape.B - 1)
    return [_steps_of(shape, inputs, sequence, start, steps) for sequence, start in zip(sequences, starts)]


def _steps_of(shape: Shape, inputs: dict[str, torch.Tensor], sequence: int, start: int, steps: int) -> Any:
    first = max(0, start - shape.halo)
    one = slice(sequence, sequence + 1)
    part = inputs | {"x": inputs["x"][one, first : start + steps]}
    smaller = replace(shape, B=1, T=start + steps - first)
    of_whole = lambda outputs: (outputs[0][one, start : start + steps],)  # noqa: E731
    of_part = lambda outputs: (outputs[0][:, start - first :],)  # noqa: E731
    return smaller, part, of_whole, of_part


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
            ("dbias", GATES * (shape.B * shape.T - 1) * shape.O, "gradients summed over time and batch"),
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
    # A CPU without float16 arithmetic converts at every step; 1e9 operations then take about a second.
    if device == "cpu" and dtype == "fp16" and work(shape, dtype, "forward").matmul_flops > 1e9:
        return "float16 products on a CPU run at about 1 GFLOP/s; these would take longer than a second"
    return tf32_on_cpu(dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


def _convolve_gate(
    x, weight, bias, y, T, C, O, taps, last_tap, x_batch, x_step, x_tap, weight_tap, weight_channel,
    STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y for STEPS time steps and OUTPUTS channels of one sequence: value and gate in one accumulator.

    The product has the time on its rows; its columns are OUTPUTS values, then their OUTPUTS gates. Tap w of a step
    lies `(last_tap - w) * x_tap` elements before it. One loop runs over chunks of channels and, inside of these, over
    the taps, whose inputs overlap: only the first tap of a chunk brings new inputs from memory, the others find them
    in a cache. Neighbouring programs share their inputs.
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
    start = tl.load(bias + column, mask=output < O, other=0.0).to(tl.float32)
    gates = tl.zeros((STEPS, 2 * OUTPUTS), tl.float32) + start[None, :]
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
    result = value * gate
    if RESIDUAL:
        present = tl.load(x + (step * x_step)[:, None] + output[None, :], mask=mask, other=0.0)
        result += present.to(tl.float32) * (1.0 - gate)
    pointers = y + ((batch * T + step) * O)[:, None] + output[None, :]
    tl.store(pointers, result.to(y.dtype.element_ty), mask=mask)


_TENSORS = ("x", "weight", "bias", "y")
_SIZES = ("C", "O", "x_batch", "x_step", "x_tap", "weight_tap", "weight_channel")
_COUNTS = ("T", "taps", "last_tap")

# Two kernels from one function, so that exactly the signatures that are compiled offline are ever launched: all
# pointers and sizes multiples of 16, which gives 128-bit loads, or nothing known.
_convolve_gate_aligned = triton.jit(do_not_specialize=[*_COUNTS])(_convolve_gate)
_convolve_gate_unaligned = triton.jit(do_not_specialize=[*_COUNTS, *_SIZES, *_TENSORS])(_convolve_gate)


@dataclass(frozen=True)
class _Tile:
    """What one program does: `steps` time steps by `outputs` channels, `channels` input channels at a time."""

    steps: int
    outputs: int
    channels: int
    warps: int
    stages: int

    def constexprs(self, residual: int, precision: str, interpret: bool) -> dict[str, Any]:
        return {
            "STEPS": self.steps,
            "OUTPUTS": self.outputs,
            "CHANNELS": self.channels,
            "RESIDUAL": residual,
            "PRECISION": precision,
            "INTERPRET": interpret,
        }

    def options(self) -> dict[str, Any]:
        return checked_options(num_warps=self.warps, num_stages=self.stages)


# Few outputs mean a bandwidth-bound convolution: no pipeline (one stage), because pipelined loads of Triton 3.6 pass by
# the L1 cache and would read every tap from L2, which cannot deliver several times the memory bandwidth; programs
# waiting side by side keep the loads in flight instead. Many outputs are compute-bound and want large, pipelined tiles.
# All fit the 163 KiB of shared memory of sm_80 and spill nowhere.
_TILES = {
    "bf16": (_Tile(128, 16, 64, 4, 1), _Tile(128, 32, 64, 8, 1), _Tile(128, 64, 64, 8, 3), _Tile(128, 128, 32, 8, 4)),
    "fp16": (_Tile(128, 16, 64, 4, 1), _Tile(128, 32, 64, 8, 1), _Tile(128, 64, 64, 8, 3), _Tile(128, 128, 32, 8, 4)),
    "tf32": (_Tile(128, 16, 32, 4, 1), _Tile(128, 32, 32, 4, 3), _Tile(128, 64, 32, 8, 3)),
    "fp32": (_Tile(64, 16, 32, 4, 2), _Tile(128, 32, 16, 8, 3)),
}
# Sizes that are no multiples of 16 are loaded element by element, which one modest tile serves as well as any.
_UNALIGNED_TILES = {
    "bf16": _Tile(64, 32, 32, 4, 2),
    "fp16": _Tile(64, 32, 32, 4, 2),
    "tf32": _Tile(64, 32, 32, 4, 2),
    "fp32": _Tile(32, 16, 32, 4, 1),
}

_PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "tf32": "tf32"}
_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}


def _case(dtype: str, tile: _Tile, aligned: bool, residual: int) -> CompileCase:
    constexprs = tile.constexprs(residual, _PRECISION[dtype], interpret=False)
    tensor_cores = ("tensor",) if dtype != "fp32" else ()
    form, layout = ("residual" if residual else "plain"), ("aligned" if aligned else "unaligned")
    return CompileCase(
        label=f"{dtype} {tile.outputs} outputs {form} {layout}",
        kernel=_convolve_gate_aligned if aligned else _convolve_gate_unaligned,
        signature={
            **dict.fromkeys(_TENSORS, _ELEMENT[dtype]),
            **dict.fromkeys((*_COUNTS, *_SIZES), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_TENSORS, *_SIZES) if aligned else (),
        options=tile.options(),
        expects=(*tensor_cores, "wide") if aligned else tensor_cores,
        representative=aligned and not residual and tile == _TILES[dtype][-1],
    )


COMPILE = [
    *(_case(dtype, tile, True, residual) for dtype, tiles in _TILES.items() for tile in tiles for residual in (0, 1)),
    *(_case(dtype, tile, False, residual) for dtype, tile in _UNALIGNED_TILES.items() for residual in (0, 1)),
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


def _run_triton(shape: Shape, x, weight, bias) -> tuple[torch.Tensor]:
    """Launch the fused kernel. Inputs whose last axis is not dense, or whose steps overlap, are copied first."""
    x = x if x.stride(2) == 1 and x.stride(1) >= shape.C else x.contiguous()
    weight = weight if weight.stride(2) == 1 else weight.contiguous()
    bias = bias.contiguous()
    y = torch.empty((shape.B, shape.T, shape.O), dtype=x.dtype, device=x.device)
    dtype = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(x.dtype, "tf32" if tf32_allowed() else "fp32")
    arguments = {"T": shape.T, "O": shape.O, **_walk(shape, x, weight)}
    numbers = (*(arguments[name] for name in _SIZES), *(tensor.data_ptr() for tensor in (x, weight, bias, y)))
    aligned = all(number % 16 == 0 for number in numbers)
    wide_enough = [tile for tile in _TILES[dtype] if tile.outputs >= shape.O]
    tile = (wide_enough or _TILES[dtype][-1:])[0] if aligned else _UNALIGNED_TILES[dtype]
    kernel = _convolve_gate_aligned if aligned else _convolve_gate_unaligned
    grid = (triton.cdiv(shape.T, tile.steps) * triton.cdiv(shape.O, tile.outputs) * shape.B,)
    constexprs = tile.constexprs(shape.residual, _PRECISION[dtype], interpreted())
    kernel[grid](x, weight, bias, y, **arguments, **constexprs, **tile.options())
    return (y,)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64":
        return "the Triton kernel accumulates in float32; float64 is for the reference"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


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
    "triton": Implementation(_run_triton, supports=_why_not_triton),
}
