"""x_(l+1) = x_l + relu(W_l * x_l + b_l), a stack of dilated causal convolutions; or x_(l+1) = relu(W_l * x_l + b_l)

Temporal convolutional network: the dilation grows from layer to layer, and with it what an output sees, its receptive
field of 1 + (W - 1) (sum of all dilations) steps (`receptive_field`), while the parameters stay few. `residual=1` is
the first form. The L layers wait for one another, whatever the length of the sequence: their number is the depth of the
chain of dependent steps, twice for a training step.

B batch, T time steps, C channels of all layers, W taps, L layers; layer l has dilation first base^l.
x (B, T, C), weight (L, W, C, C), bias (L, C) -> y (B, T, C); channels last, the last axis of weight are the outputs.
(W * x)[t] = sum over w of x[t - (W - 1 - w) dilation] weight[w], with zeros before the first step: the last tap sees
the present input, no output sees the future.

Source: Bai, Kolter and Koltun, An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
Modeling, arXiv 1803.01271, 2018, with one convolution per residual block and without its normalisation and dropout.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import CompileCase, Implementation
from ..roofline.work import Term, Work, terms
from ._conv_launch import (
    ELEMENT,
    PROGRAMS,
    Tile,
    anticausal,
    causal,
    gradient_cases,
    is_aligned,
    launched_dtype,
    product,
    product_cases,
    relu_cases,
    relu_gradient,
    turned_over,
    weight_gradient,
    why_not_triton,
    wide_loads,
)
from ._conv_spot import causal_spot
from ._cost import operations
from ._device import dot
from ._torch import (
    ELEMENT_BYTES,
    adds_bias_apart,
    check_tensors,
    generator,
    normal,
    once_differentiable,
    run_compiled,
    why_no_compiler,
    why_slow,
)
from ._triton import tl, triton


@dataclass(frozen=True)
class Shape:
    """Sizes of one stack. One layer with `first` as its dilation is a plain dilated convolution."""

    B: int
    T: int
    C: int
    W: int
    L: int
    base: int = 2
    residual: int = 1
    first: int = 1

    def __post_init__(self) -> None:
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("T", "C", "W", "L", "base", "first"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.residual not in (0, 1):
            raise ValueError(f"residual must be 0 or 1, not {self.residual}")
        if self.reach >= 2**31:
            raise ValueError(
                f"an output would see {self.reach} steps; at most 2^31 are possible, take a smaller L or base"
            )

    @property
    def dilations(self) -> tuple[int, ...]:
        """Steps between the taps of every layer."""
        return tuple(self.first * self.base**layer for layer in range(self.L))

    @property
    def reach(self) -> int:
        """Steps before the present one that an output sees."""
        return (self.W - 1) * sum(self.dilations)


SENSITIVE = True  # the gradient of ReLU jumps


def receptive_field(shape: Shape) -> int:
    """Count the steps that one output sees, the present one included."""
    return 1 + shape.reach


SHAPES = {
    "quick": [Shape(2, 500, 32, 3, 4), Shape(3, 333, 19, 2, 3, base=3, residual=0)],
    "standard": [
        # The stack of the source at its usual widths, and one layer whose taps lie near or far.
        Shape(8, 2048, 32, 3, 6),
        Shape(8, 2048, 64, 3, 6),
        Shape(4, 1024, 150, 7, 4),
        Shape(8, 2048, 64, 2, 8, residual=0),
        *(Shape(16, 2048, 64, 3, 1, first=dilation) for dilation in (1, 64)),
    ],
    "full": [
        *(Shape(65536 // T, T, C, 3, 6) for T in (1024, 8192) for C in (16, 32, 64, 128, 256, 512)),
        *(Shape(16, 4096, 64, W, 6) for W in (2, 5, 7)),
        *(Shape(16, 4096, 64, 3, L) for L in (2, 4, 8, 10)),
        *(Shape(16, 16384, C, 4, 1, first=dilation) for C in (64, 512) for dilation in (1, 4, 16, 64)),
    ],
}
# Sizes at and around the edges of the Triton tiles; taps further apart than the sequence is long; many taps; many
# channels in few steps, and many steps of few channels.
ODD = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 7, 16, 4, 2, residual=0),
    Shape(1, 130, 33, 3, 2, base=5),
    Shape(2, 9, 5, 4, 3, base=3),
    Shape(1, 40, 128, 2, 1, first=64),
    Shape(1, 12, 200, 2, 1),
    Shape(1, 65, 3, 31, 2, residual=0),
    Shape(1, 1031, 16, 2, 2, first=64),
]
ODD_LONG = [
    Shape(2, T, C, W, L, base=3, residual=residual, first=first)
    for T in (1, 128, 257)
    for C in (1, 17, 64)
    for W, L, first in ((1, 2, 1), (2, 3, 1), (3, 1, 64), (31, 1, 2))
    for residual in (0, 1)
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), so that no layer drowns in those before it."""
    source = generator(device, seed)
    fan_in = shape.W * shape.C
    return {
        "x": normal((shape.B, shape.T, shape.C), dtype, device, source),
        "weight": normal((shape.L, shape.W, shape.C, shape.C), dtype, device, source, scale=fan_in**-0.5),
        "bias": normal((shape.L, shape.C), dtype, device, source, scale=0.5),
    }


def check(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError."""
    C = shape.C
    sizes = {"x": (shape.B, shape.T, C), "weight": (shape.L, shape.W, C, C), "bias": (shape.L, C)}
    check_tensors(shape, {"x": x, "weight": weight, "bias": bias}, sizes)


def _taps_side_by_side(x: Tensor, W: int, dilation: int) -> Tensor:
    """What every step sees at all taps, (B, T, W C)."""
    T = x.shape[1]
    padded = F.pad(x, (0, 0, (W - 1) * dilation, 0))
    return torch.cat([padded[:, w * dilation : w * dilation + T] for w in range(W)], dim=2)


def reference(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Compute every layer as one matrix product of all taps side by side, in plain PyTorch; returns y."""
    check(shape, x, weight, bias)
    for layer, dilation in enumerate(shape.dilations):
        change = _taps_side_by_side(x, shape.W, dilation) @ weight[layer].flatten(0, 1) + bias[layer]
        x = x + change.relu() if shape.residual else change.relu()
    return (x,)


def _run_torch(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Call conv1d per layer, channels first in between. The result is a view in the layout that conv1d prefers."""
    check(shape, x, weight, bias)
    state = x.transpose(1, 2)
    for layer, dilation in enumerate(shape.dilations):
        padded = F.pad(state, ((shape.W - 1) * dilation, 0))
        apart = adds_bias_apart(bias)
        change = F.conv1d(padded, weight[layer].permute(2, 1, 0), None if apart else bias[layer], dilation=dilation)
        change = (change + bias[layer, :, None] if apart else change).relu()
        state = state + change if shape.residual else change
    return (state.transpose(1, 2),)


def spot(shape: Shape, inputs: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick runs of time steps, each with what it sees before it."""
    return causal_spot(shape, inputs, seed, shape.reach, ("x",))


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    values = shape.L * shape.B * shape.T * shape.C
    return (
        *terms(
            "matmul_flops",
            ("convolutions", 2 * values * shape.W * shape.C, "W taps of C multiply-adds per value of every layer"),
        ),
        *terms(
            "pointwise_flops",
            ("bias", values, "one addition per value of every layer"),
            ("ReLU", values, "one maximum per value of every layer"),
            *((("residual", values, "the input of the layer added"),) if shape.residual else ()),
        ),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    values = shape.L * shape.B * shape.T * shape.C
    product = 2 * values * shape.W * shape.C
    return (
        *terms(
            "matmul_flops",
            ("dx", product, "gradients of every layer convolved with its flipped weights"),
            ("dweight", product, "inputs of every layer times its gradients, summed over time and batch"),
        ),
        *terms(
            "pointwise_flops",
            ("ReLU gradient", values, "zero where the layer's sum was not positive"),
            ("dbias", shape.L * max(0, shape.B * shape.T - 1) * shape.C, "gradients summed over time and batch"),
            *((("residual gradient", values, "what goes around the layer added"),) if shape.residual else ()),
        ),
    )


def _flag_bytes(shape: Shape) -> int:
    """Bytes that say where ReLU let a value through; without the residual form its output says so itself."""
    return shape.L * shape.B * shape.T * shape.C * shape.residual


def _bytes(shape: Shape, size: int, direction: str) -> tuple[Term, ...]:
    state = size * shape.B * shape.T * shape.C
    parameters = size * shape.L * (shape.W * shape.C + 1) * shape.C
    weights = size * shape.L * shape.W * shape.C**2
    saved, flags = _saved_bytes(shape, size), _flag_bytes(shape)
    y = ("y", state, "whose zeros say where ReLU let nothing through")
    read = {
        "forward": (("x", state, "read once"), ("parameters", parameters, "weights and biases of all layers, once")),
        "backward": (
            *(("x", state, "read once"), ("weight", weights, "of all layers, once"), ("dy", state, "read once")),
            ("saved", saved, "inputs of the layers above the first, and a byte per value that passed ReLU, once"),
            *(() if shape.residual else (y,)),
        ),
    }
    write = {
        "forward": (("y", state, "written once"),),
        "backward": (("dx", state, "written once"), ("gradients", parameters, "of all parameters, once")),
    }
    # A layer reads its input and writes its output; backward it reads its input and the flags or the output, takes the
    # gradient of its output and gives that of its input.
    passes = {
        "forward": (
            "layers forward",
            2 * shape.L * state + parameters,
            "every layer reads its input, writes its output",
        ),
        "backward": (
            "layers backward",
            (3 + (1 - shape.residual)) * shape.L * state + flags + weights + parameters,
            "every layer reads its input, gradient and ReLU's flags or output, and writes its input's gradient",
        ),
    }
    if direction != "both":
        return (
            *terms("read_bytes", *read[direction]),
            *terms("write_bytes", *write[direction]),
            *terms("streamed_bytes", passes[direction]),
        )
    return (
        *terms("read_bytes", *read["forward"], ("dy", state, "read once")),
        *terms("write_bytes", *write["forward"], *write["backward"]),
        *terms("streamed_bytes", *passes.values(), ("flags", flags, "a byte per value that passed ReLU, written")),
    )


def _saved_bytes(shape: Shape, size: int) -> int:
    return size * (shape.L - 1) * shape.B * shape.T * shape.C + _flag_bytes(shape)


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one stack, of its gradients, or of both, with every tensor held in `dtype`.

    The states between layers are not compulsory: a program may compute all layers of a piece of the sequence. They are
    in the streamed bytes, and `saved_bytes` for the backward pass, with a byte per value of the residual form.
    """
    size = ELEMENT_BYTES[dtype]
    state = size * shape.B * shape.T * shape.C
    parameters = shape.L * (shape.W * shape.C + 1) * shape.C
    return Work(
        terms=(
            *operations(direction, _operations_forward(shape), _operations_backward(shape)),
            *_bytes(shape, size, direction),
        ),
        depth=shape.L * (2 if direction == "both" else 1),
        weight_bytes=size * parameters,
        recurrent_bytes=0,  # every layer has weights of its own, which are needed once
        state_bytes=2 * state,  # input and output of a layer
        saved_bytes=_saved_bytes(shape, size),
        parameters=parameters,
        tokens=shape.B * shape.T,
    )


class _Layer(torch.autograd.Function):
    """One layer: x (B, T, C), weight (W, C, C), bias (C) -> y (B, T, C); keeps x, and where ReLU let values through."""

    @staticmethod
    def forward(
        ctx: Any, dilation: int, residual: int, keep: bool, x: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:  # fmt: skip
        walk = causal(x.shape[1], len(weight), dilation)
        flags = keep and bool(residual)
        y, kept = product(x, weight, walk, bias, x if residual else None, relu=True, keep=flags)
        ctx.dilation, ctx.residual = dilation, residual
        if keep:
            ctx.save_for_backward(x, weight, y if kept is None else kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (x, weight, kept) = gradients, ctx.saved_tensors
        (T, W), dx, dweight = (x.shape[1], len(weight)), None, None
        g, dbias = relu_gradient(dy, kept)
        if ctx.needs_input_grad[3]:
            around = dy if ctx.residual else None
            dx, _ = product(g, turned_over(weight), anticausal(T, W, ctx.dilation), addend=around)
        if ctx.needs_input_grad[4]:
            dweight = weight_gradient(x, g, causal(T, W, ctx.dilation))
        return None, None, None, dx, dweight, dbias


def _run_triton(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Launch one kernel per layer, which adds the bias, applies ReLU and adds the layer's input."""
    check(shape, x, weight, bias)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weight, bias))
    for dilation, layer_weight, layer_bias in zip(shape.dilations, weight.unbind(0), bias.unbind(0)):
        x = _Layer.apply(dilation, shape.residual, keep, x, layer_weight, layer_bias)  # pyright: ignore
    return (x,)


@triton.jit
def _layer(
    source, weight, bias, target, begin, end, dilation, taps, C,
    STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, RESIDUAL: tl.constexpr, ACC: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute the steps from `begin` to before `end` of one layer, STEPS at a time, all channels at once.

    source, target : where step 0 of the layer's input and output would lie, dense (steps, C).
    """
    output = tl.arange(0, OUTPUTS)
    chunk = tl.arange(0, CHANNELS)
    start = tl.load(bias + output, mask=output < C, other=0.0).to(ACC)
    for first in range(begin, end, STEPS):
        step = (first + tl.arange(0, STEPS)).to(tl.int64)
        sums = tl.zeros((STEPS, OUTPUTS), ACC) + start[None, :]
        for turn in range(tl.cdiv(C, CHANNELS) * taps):
            tap = turn % taps
            channel = turn // taps * CHANNELS + chunk
            seen = step - (taps - 1 - tap).to(tl.int64) * dilation
            taken = tl.load(
                source + (seen * C)[:, None] + channel[None, :],
                mask=((seen >= 0) & (step < end))[:, None] & (channel < C)[None, :],
                other=0.0,
            )
            weights = tl.load(
                weight + tap.to(tl.int64) * C * C + (channel * C)[:, None] + output[None, :],
                mask=(channel < C)[:, None] & (output < C)[None, :],
                other=0.0,
            )
            sums = dot(taken, weights, sums, PRECISION, INTERPRET)
        sums = tl.where(sums <= 0, 0.0, sums)  # NaN stays
        place = (step * C)[:, None] + output[None, :]
        mask = (step < end)[:, None] & (output < C)[None, :]
        if RESIDUAL:
            sums += tl.load(source + place, mask=mask, other=0.0).to(ACC)
        tl.store(target + place, sums.to(target.dtype.element_ty), mask=mask)


def _stack(
    x, weight, bias, scratch, y, T, L, taps, base, dilation, reach, pieces, C,
    SPAN: tl.constexpr, STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, RESIDUAL: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute all layers of pieces of SPAN steps, one piece after another; x and y dense (B, T, C).

    A layer is computed from as many steps before the piece as the layers above it see, up to `reach` for the first.
    What a layer leaves for the next goes to one of two buffers of the program, scratch (programs, 2, reach + SPAN, C),
    which the next piece overwrites: it stays in the caches.
    """
    span_blocks = tl.cdiv(T, SPAN)
    buffer = (reach + SPAN).to(tl.int64) * C
    scratch += tl.program_id(0) * 2 * buffer
    for piece in range(tl.program_id(0), pieces, tl.num_programs(0)):
        start = piece % span_blocks * SPAN
        sequence = (piece // span_blocks).to(tl.int64) * T * C
        end = tl.minimum(start + SPAN, T)
        source = x + sequence
        above = reach
        apart = dilation
        for layer in range(L):
            above -= (taps - 1) * apart
            # Step `start - reach` is the first of a buffer.
            target = scratch + layer % 2 * buffer - (start - reach).to(tl.int64) * C
            target = tl.where(layer == L - 1, y + sequence, target)
            parameters = tl.cast(layer, tl.int64) * C
            _layer(
                source, weight + parameters * taps * C, bias + parameters, target, tl.maximum(start - above, 0), end,
                apart, taps, C, STEPS, OUTPUTS, CHANNELS, RESIDUAL, ACC, PRECISION, INTERPRET,
            )  # fmt: skip
            tl.debug_barrier()
            source = target
            apart *= base


_TENSORS = ("x", "weight", "bias", "scratch", "y")
_COUNTS = ("T", "L", "taps", "base", "dilation", "reach", "pieces")
_stack_aligned = triton.jit(do_not_specialize=[*_COUNTS])(_stack)
_stack_unaligned = triton.jit(do_not_specialize=[*_COUNTS, "C", *_TENSORS])(_stack)

# Steps of a piece. With the longest reach, as long again, and 64 channels of two bytes, the buffers of 264 programs
# take 35 MB: they stay in the 50 MB of an H200's L2 cache.
_SPAN = 256
# All channels of a layer are one tile.
_MAX_CHANNELS = 128
# No pipeline: a layer's input has just been written, and pipelined loads would pass by the L1 cache.
_STACK_TILES = {
    "bf16": (Tile(128, 16, 16, 4, 1), Tile(128, 32, 32, 4, 1), Tile(128, 64, 64, 8, 1), Tile(128, 128, 64, 8, 1)),
    "fp16": (Tile(128, 16, 16, 4, 1), Tile(128, 32, 32, 4, 1), Tile(128, 64, 64, 8, 1), Tile(128, 128, 64, 8, 1)),
    "tf32": (Tile(128, 32, 32, 4, 1), Tile(64, 128, 32, 8, 1)),
    "fp32": (Tile(64, 32, 32, 4, 1), Tile(64, 128, 16, 8, 1)),
}
_UNALIGNED_STACK = {
    "bf16": Tile(64, 128, 32, 8, 1),
    "fp16": Tile(64, 128, 32, 8, 1),
    "tf32": Tile(32, 128, 32, 8, 1),
    "fp32": Tile(16, 128, 16, 4, 1),
}


def _run_fused(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Launch one kernel for all layers. Raises ValueError for a stack that it refuses."""
    check(shape, x, weight, bias)
    refused = _why_not_fused_shape(shape)
    if refused:
        raise ValueError(refused + ".")
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    y = torch.empty_like(x)
    if not shape.B:
        return (y,)
    dtype = launched_dtype(x)
    pieces = shape.B * triton.cdiv(shape.T, _SPAN)
    programs = min(pieces, PROGRAMS)
    scratch = x.new_empty(programs, 2, shape.reach + _SPAN, shape.C)
    tensors = (x, weight, bias, scratch, y)
    aligned = is_aligned((shape.C,), tensors)
    name = "fp32" if dtype == "fp64" else dtype
    tiles = _STACK_TILES[name] if aligned else (_UNALIGNED_STACK[name],)
    tile = next(tile for tile in tiles if tile.outputs >= shape.C)
    kernel = _stack_aligned if aligned else _stack_unaligned
    counts = {"T": shape.T, "L": shape.L, "taps": shape.W, "base": shape.base, "dilation": shape.first}
    counts |= {"reach": shape.reach, "pieces": pieces}
    constexprs = tile.constexprs(dtype, SPAN=_SPAN, RESIDUAL=shape.residual)
    kernel[(programs,)](*tensors, **counts, C=shape.C, **constexprs, **tile.options())
    return (y,)


def _stack_case(dtype: str, tile: Tile, aligned: bool, residual: int) -> CompileCase:
    constexprs = tile.constexprs(dtype, SPAN=_SPAN, RESIDUAL=residual) | {"INTERPRET": False}
    form, layout = ("residual" if residual else "plain"), ("aligned" if aligned else "unaligned")
    widest = aligned and dtype == "bf16" and tile == _STACK_TILES[dtype][-1]
    return CompileCase(
        label=f"{dtype} all layers, {tile.outputs} channels {form} {layout}",
        kernel=_stack_aligned if aligned else _stack_unaligned,
        signature={
            **dict.fromkeys(_TENSORS, ELEMENT[dtype]),
            **dict.fromkeys((*_COUNTS, "C"), "i32"),
            **dict.fromkeys(constexprs, "constexpr"),
        },
        constexprs=constexprs,
        divisible=(*_TENSORS, "C") if aligned else (),
        options=tile.options(),
        expects=(("tensor",) if dtype != "fp32" else ()) + ((wide_loads(dtype),) if aligned else ()),
        representative=widest and bool(residual),
        rare=dtype != "bf16" or not residual,
    )


_EVERY_TILE = [
    *((dtype, tile, True) for dtype, tiles in _STACK_TILES.items() for tile in tiles),
    *((dtype, tile, False) for dtype, tile in _UNALIGNED_STACK.items()),
]
COMPILE = [
    *product_cases("forward keeping flags", bias=True, relu=True, add=True, keep=True),
    *product_cases("forward residual", bias=True, relu=True, add=True, rare=True),
    *product_cases("forward plain", bias=True, relu=True, rare=True),
    *product_cases("dx residual", add=True, rare=True),
    *product_cases("dx plain", rare=True),
    *gradient_cases(rare=True),
    *relu_cases(),
    *(_stack_case(dtype, tile, aligned, form) for dtype, tile, aligned in _EVERY_TILE for form in (0, 1)),
]


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


def _why_not_fused_shape(shape: Shape) -> str | None:
    if shape.C > _MAX_CHANNELS:
        return f"all layers in one launch take at most {_MAX_CHANNELS} channels, not {shape.C}; take the row triton"
    if shape.reach > _SPAN:
        return (
            f"a piece of {_SPAN} steps would be computed from {shape.reach} steps before it, more than itself; "
            "take the row triton, or fewer layers, taps or a smaller dilation"
        )
    return None


def _why_not_fused(shape: Shape, dtype: str, device: str) -> str | None:
    return _why_not_fused_shape(shape) or why_not_triton(shape, dtype, device)


def _launches(per_layer: int, shape: Shape, dtype: str, device: str) -> int:
    return per_layer * shape.L


# Launches as far as known; of a layer: padding, taps side by side, product or convolution, bias, ReLU and the sum.
IMPLEMENTATIONS = {
    "reference": Implementation(reference, launches=partial(_launches, 6), supports=_why_not_torch, grad=True),
    "torch": Implementation(_run_torch, launches=partial(_launches, 5), supports=_why_not_torch, grad=True),
    "compile": Implementation(
        run_compiled(reference), launches=partial(_launches, 2), supports=_why_not_compile, grad=True
    ),
    "triton": Implementation(_run_triton, launches=partial(_launches, 1), supports=why_not_triton, grad=True),
    # The states between layers stay near the program, and a layer waits for the one before inside of it.
    "triton_fused": Implementation(_run_fused, weights="kept", chain="inside", supports=_why_not_fused),
}
