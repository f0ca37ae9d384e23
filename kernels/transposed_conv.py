"""y[t'] = b + sum of x[t] W[w] over all t and w with t' + padding = t stride + w dilation, a transposed convolution

The gradient of a strided convolution with respect to its input, used to go from few time steps to many: every input
step spreads W taps over the output, `stride` steps after those of the step before.

B batch, T input steps, T' output steps, C input channels, O output channels, W taps; stride, padding, output_padding
and dilation as in PyTorch's ConvTranspose1d: T' = (T - 1) stride - 2 padding + dilation (W - 1) + output_padding + 1.
x (B, T, C), weight (W, C, O), bias (O) -> y (B, T', O); channels last.
The Triton kernel gathers: outputs of one phase, (t' + padding) mod stride, see the same taps, so that it multiplies by
no tap in vain, but those that meet padding.

Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv 1603.07285, 2016, chapter 4.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work, terms
from ._conv_launch import Phases, Walk, gradient_cases, product, product_cases, weight_gradient, why_not_triton
from ._conv_spot import spot_runs
from ._cost import operations, traffic
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


@dataclass(frozen=True)
class Shape:
    """Sizes of one transposed convolution."""

    B: int
    T: int
    C: int
    O: int
    W: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        for name in ("T", "C", "O", "W", "stride", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("B", "padding", "output_padding"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.output_padding >= max(self.stride, self.dilation):
            raise ValueError(
                f"output_padding={self.output_padding} must be smaller than the stride or the dilation "
                f"({self.stride} and {self.dilation}): it chooses among the lengths that one stride makes equal"
            )
        if self.outputs < 1:
            raise ValueError(
                f"padding={self.padding} takes away all of the output, whose length would be {self.outputs}; take less "
                "padding, more taps or a longer sequence"
            )

    @property
    def outputs(self) -> int:
        """Output steps T'."""
        return self.spread - 2 * self.padding + self.output_padding

    @property
    def spread(self) -> int:
        """Steps that all inputs with their taps reach, before padding takes some away at both ends."""
        return (self.T - 1) * self.stride + self.dilation * (self.W - 1) + 1


SHAPES = {
    "quick": [Shape(4, 256, 64, 64, 4, stride=2, padding=1), Shape(3, 133, 37, 51, 3, stride=3, output_padding=1)],
    "standard": [
        # Upsampling as in vocoders and decoders: twice as many taps as the stride.
        Shape(8, 1024, 64, 32, 4, stride=2, padding=1),
        Shape(8, 512, 128, 64, 8, stride=4, padding=2),
        Shape(8, 256, 256, 128, 16, stride=8, padding=4),
        Shape(8, 1024, 128, 128, 4, stride=1),
        Shape(5, 509, 150, 75, 5, stride=3, padding=1, dilation=2),
        # Inverse of a filter bank: few channels out.
        Shape(8, 1024, 128, 16, 16, stride=8),
    ],
    "full": [
        *(Shape(16, 4096, C, C // 2, 2 * s, stride=s, padding=s // 2) for C in (64, 128, 256, 512) for s in (2, 4, 8)),
        *(Shape(16, 4096, 256, 256, 4, stride=s) for s in (1, 2, 3, 4)),
        *(Shape(16, 8192, C, C, 4, stride=2, padding=1) for C in (16, 32, 1024)),
        *(Shape(16, 2048, 128, 128, 3, stride=2, dilation=d) for d in (1, 2, 3, 64)),
    ],
}
# Every stride to 5, more and fewer taps than it, dilations with and without a common factor, padding beyond the first
# tap, and sizes at and around the edges of the Triton tiles.
ODD = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 7, 16, 16, 4, stride=2, padding=1),
    Shape(2, 65, 33, 17, 3, stride=3, output_padding=2),
    Shape(1, 9, 5, 3, 2, stride=5, padding=3, output_padding=1),
    Shape(1, 40, 200, 48, 4, stride=4, dilation=2, padding=2),
    Shape(1, 33, 19, 130, 3, stride=2, dilation=64, output_padding=3),
    Shape(2, 12, 3, 5, 31, padding=9),
    Shape(1, 1031, 16, 16, 3, stride=2, padding=1, output_padding=1),
]
ODD_LONG = [
    Shape(2, T, C, O, W, stride=stride, padding=min(padding, (W - 1) * dilation // 2), dilation=dilation)
    for T, C, O in ((1, 1, 17), (64, 33, 16), (129, 16, 64))
    for W in (1, 3, 6)
    for stride in (1, 2, 5)
    for padding, dilation in ((0, 1), (3, 2), (1, 5))
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(C W / stride), the length of the sum that makes an output."""
    source = generator(device, seed)
    summed = max(1.0, shape.W / shape.stride) * shape.C
    return {
        "x": normal((shape.B, shape.T, shape.C), dtype, device, source),
        "weight": normal((shape.W, shape.C, shape.O), dtype, device, source, scale=summed**-0.5),
        "bias": normal((shape.O,), dtype, device, source, scale=0.5),
    }


def check(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError."""
    sizes = {"x": (shape.B, shape.T, shape.C), "weight": (shape.W, shape.C, shape.O), "bias": (shape.O,)}
    check_tensors(shape, {"x": x, "weight": weight, "bias": bias}, sizes)


def reference(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Multiply every input step by all taps at once and add the products where they belong; returns y."""
    check(shape, x, weight, bias)
    every_tap = weight.permute(1, 0, 2).flatten(1)
    products = (x.reshape(-1, shape.C) @ every_tap).view(shape.B, shape.T, shape.W, shape.O)
    spread = x.new_zeros(shape.B, shape.spread + shape.output_padding, shape.O)
    reached = (shape.T - 1) * shape.stride + 1
    for w in range(shape.W):
        first = w * shape.dilation
        spread[:, first : first + reached : shape.stride] += products[:, :, w]
    return (spread[:, shape.padding : shape.padding + shape.outputs] + bias,)


def _run_torch(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Call conv_transpose1d, which wants channels first. The result is a view in the layout that it prefers."""
    check(shape, x, weight, bias)
    apart = adds_bias_apart(bias)
    y = F.conv_transpose1d(
        x.transpose(1, 2),
        weight.permute(1, 2, 0),
        None if apart else bias,
        stride=shape.stride,
        padding=shape.padding,
        output_padding=shape.output_padding,
        dilation=shape.dilation,
    )
    return (y.transpose(1, 2) + bias if apart else y.transpose(1, 2),)


def spot(shape: Shape, inputs: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick a random run of output steps and the last ones, of one random and of the last sequence.

    Returns shape and inputs of each smaller problem, what to take out of the outputs of the whole problem, and out of
    those of the part.
    """
    return [_steps_of(shape, inputs, *run) for run in spot_runs(shape.outputs, shape.B, seed)]


def _steps_of(shape: Shape, inputs: dict[str, Tensor], sequence: int, start: int, steps: int) -> Any:
    """The outputs from `start` on, made without padding of the inputs that reach them, one before and one more."""
    begin = start + shape.padding
    first = max(0, (begin - (shape.W - 1) * shape.dilation) // shape.stride)
    last = min(shape.T - 1, (begin + steps - 1) // shape.stride + 1)
    first = min(first, last)
    one = slice(sequence, sequence + 1)
    part = inputs | {"x": inputs["x"][one, first : last + 1]}
    beyond = max(0, shape.output_padding - shape.padding)
    smaller = replace(shape, B=1, T=last - first + 1, padding=0, output_padding=beyond)
    inside = begin - first * shape.stride
    of_whole = lambda outputs: (outputs[0][one, start : start + steps],)  # noqa: E731
    of_part = lambda outputs: (outputs[0][:, inside : inside + steps],)  # noqa: E731
    return smaller, part, of_whole, of_part


def _operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    product = 2 * shape.B * shape.T * shape.C * shape.O * shape.W
    outputs = shape.B * shape.outputs
    forward = (
        *terms("matmul_flops", ("taps", product, "W taps of C multiply-adds per input step, those cut off included")),
        *terms("pointwise_flops", ("bias", outputs * shape.O, "one addition per output")),
    )
    backward = (
        *terms(
            "matmul_flops",
            ("dx", product, "a strided convolution of the gradients"),
            ("dweight", product, "inputs times the gradients that their taps reach, summed over time and batch"),
        ),
        *terms("pointwise_flops", ("dbias", max(0, outputs - 1) * shape.O, "gradients summed over time and batch")),
    )
    return operations(direction, forward, backward)


# Per direction, what an implementation must read and write. The backward pass needs nothing but the inputs.
_KEPT = "nothing kept"
_TRAFFIC = {
    "forward": (("x", "weight", "bias"), ("y",)),
    "backward": (("x", "weight", "dy"), ("dx", "dweight", "dbias")),
    "both": (("x", "weight", "bias", "dy"), ("y", "dx", "dweight", "dbias")),
}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one transposed convolution, of its gradients, or of both, with every tensor held in `dtype`."""
    size = ELEMENT_BYTES[dtype]
    elements = {
        "x": shape.B * shape.T * shape.C,
        "weight": shape.W * shape.C * shape.O,
        "bias": shape.O,
        "y": shape.B * shape.outputs * shape.O,
    }
    sizes = {name: size * count for name, count in elements.items()}
    sizes |= {f"d{name}": amount for name, amount in sizes.items()} | {_KEPT: 0}
    parameters = elements["weight"] + elements["bias"]
    return Work(
        terms=(
            *_operations(shape, direction),
            *traffic(_TRAFFIC, sizes, direction, _KEPT, "for the backward pass", "which reads the inputs again"),
        ),
        weight_bytes=size * parameters,
        parameters=parameters,
        tokens=shape.B * shape.outputs,
    )


def phases_of(shape: Shape) -> tuple[Walk, Phases]:
    """How outputs are gathered: rows of every phase, and the taps that a phase sees.

    Output step q stride + phase - padding meets tap w at input step q + (phase - w dilation) / stride where that is
    whole: taps `cycle` = stride / gcd(stride, dilation) apart, at inputs dilation / gcd apart.
    """
    common = math.gcd(shape.stride, shape.dilation)
    first, last = shape.padding // shape.stride, (shape.outputs + shape.padding - 1) // shape.stride
    walk = Walk(last - first + 1, shape.W, tap_stride=-(shape.dilation // common))
    return walk, Phases(shape.stride, shape.dilation, shape.padding, shape.stride // common, shape.outputs)


class _Transposed(torch.autograd.Function):
    """x (B, T, C), weight (W, C, O), bias (O) -> y (B, T', O); keeps its inputs."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        walk, phases = phases_of(shape)
        ctx.shape = shape
        ctx.save_for_backward(x, weight)
        return product(x, weight, walk, bias, phases=phases)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        shape, (dy,), (x, weight) = ctx.shape, gradients, ctx.saved_tensors
        strided = Walk(shape.T, shape.W, shape.stride, -shape.padding, shape.dilation)
        dx, dweight = None, None
        if ctx.needs_input_grad[1]:
            dx, _ = product(dy, weight.transpose(1, 2).contiguous(), strided)
        if ctx.needs_input_grad[2]:
            dweight = weight_gradient(dy, x, strided).transpose(1, 2)
        return None, dx, dweight, dy.sum((0, 1)) if ctx.needs_input_grad[3] else None


def _run_triton(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Launch one kernel for all phases."""
    check(shape, x, weight, bias)
    return (_Transposed.apply(shape, x, weight, bias),)  # pyright: ignore[reportReturnType]


COMPILE = [
    *product_cases("phases", bias=True, phases=True, every_dtype=True),
    *product_cases("dx", rare=True),
    *gradient_cases(rare=True),
]


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


# Launches as far as known; of the reference: weights in order, product, zeros, an addition per tap, the bias.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference, launches=lambda shape, dtype, device: 4 + shape.W, supports=_why_not_torch, grad=True
    ),
    "torch": Implementation(_run_torch, launches=2, supports=_why_not_torch, grad=True),
    "compile": Implementation(run_compiled(reference), launches=3, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, supports=why_not_triton, grad=True),
}
