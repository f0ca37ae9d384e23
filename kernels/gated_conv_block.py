"""y = x + (u sigmoid(v)) W_o + b_o, [u, v] = W * LayerNorm(x) + b, a layer of a gated convolutional language model

A residual block: every step is normalised over its channels, a causal convolution with a sigmoid gate mixes it with
the steps before it, a linear layer mixes the channels of the result, and the input is added.

B batch, T time steps, C channels, W taps, `dilation` steps between taps.
x (B, T, C); scale and shift of the normalisation (C); weight (W, C, 2C) and bias (2C) of the kernel gated_conv, whose
columns are u then v; out_weight W_o (C, C) and out_bias (C) -> y (B, T, C); channels last.
LayerNorm(x) = scale (x - mean) / sqrt(variance + 1e-5) + shift, with mean and variance over the C channels of a step.

Source: Dauphin et al., Language Modeling with Gated Convolutional Networks, ICML 2017, with Ba et al., Layer
Normalization, arXiv 1607.06450, 2016, before the convolution in the place of weight normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import Implementation, PartCall
from ..roofline.work import Term, Work, terms
from . import gated_conv
from ._conv_launch import Walk, product, product_cases, weight_gradient
from ._cost import operations, traffic
from ._torch import (
    DTYPES,
    ELEMENT_BYTES,
    check_tensors,
    generator,
    normal,
    once_differentiable,
    run_compiled,
    why_no_compiler,
)

# Added to the variance so that a constant step is not divided by zero; PyTorch's default.
EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of one block."""

    B: int
    T: int
    C: int
    W: int
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("T", "C", "W", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def inner(self) -> gated_conv.Shape:
        """The convolution as a shape of the kernel gated_conv."""
        return gated_conv.Shape(self.B, self.T, self.C, self.C, self.W, self.dilation)


SHAPES = {
    "quick": [Shape(2, 256, 64, 4), Shape(3, 177, 37, 3, dilation=2)],
    "standard": [
        Shape(32, 2048, 32, 4),
        Shape(8, 2048, 128, 4),
        Shape(4, 1024, 512, 4),
        Shape(5, 1021, 150, 5, dilation=4),
    ],
    "full": [
        *(Shape(65536 // T, T, C, 4) for T in (512, 4096) for C in (32, 128, 512, 1024)),
        *(Shape(16, 4096, 256, 3, dilation=d) for d in (1, 16, 256)),
    ],
}
# One step and two channels, a halo longer than the sequence, sizes beside and on those of the tiles, many taps; many
# channels in few steps, and many steps of few channels.
ODD = [
    Shape(1, 1, 2, 1),
    Shape(2, 9, 5, 4, dilation=7),
    Shape(1, 65, 33, 2),
    Shape(2, 30, 16, 3),
    Shape(2, 33, 3, 31),
    Shape(1, 12, 200, 2),
    Shape(1, 1031, 16, 2, dilation=64),
]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the gate away from saturation."""
    source = generator(device, seed)
    draw = partial(normal, dtype=dtype, device=device, source=source)
    C, W = shape.C, shape.W
    return {
        "x": draw((shape.B, shape.T, C)),
        "scale": draw((C,)),
        "shift": draw((C,), scale=0.5),
        "weight": draw((W, C, 2 * C), scale=(W * C) ** -0.5),
        "bias": draw((2 * C,), scale=0.5),
        "out_weight": draw((C, C), scale=C**-0.5),
        "out_bias": draw((C,), scale=0.5),
    }


def check(shape: Shape, tensors: dict[str, Any]) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError."""
    C = shape.C
    sizes = {"x": (shape.B, shape.T, C), "scale": (C,), "shift": (C,), "weight": (shape.W, C, 2 * C), "bias": (2 * C,)}
    check_tensors(shape, tensors, sizes | {"out_weight": (C, C), "out_bias": (C,)})


# Normalise x (B, T, C); convolve by the contract of gated_conv; multiply h (B, T, C) by W_o and add b_o and x.
Normalise = Callable[[Tensor, Tensor, Tensor], Tensor]
Mix = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _normalise_plain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise by the definition, in float32 at least: a variance needs more than 16 bits."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return (centred / (variance + EPSILON).sqrt() * scale + shift).to(x.dtype)


def _normalise_torch(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Call layer_norm. Its gradients of scale and shift, summed in 16 bits on a CPU, are left to other operations."""
    if x.device.type == "cpu" and x.element_size() == 2:
        return F.layer_norm(x, (x.shape[-1],), eps=EPSILON) * scale + shift
    return F.layer_norm(x, (x.shape[-1],), scale, shift, EPSILON)


def _mix_plain(h: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return x + (h @ weight + bias)


class _Mix(torch.autograd.Function):
    """x + h W_o + b_o in one launch: h and x (B, T, C), weight (C, C), bias (C); keeps h."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return product(h, weight[None], Walk(h.shape[1], taps=1), bias, x)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (h, weight) = gradients, ctx.saved_tensors
        here, dy = Walk(h.shape[1], taps=1), dy.contiguous()
        dh, _ = product(dy, weight.t().contiguous()[None], here)
        return dh, weight_gradient(h, dy, here)[0], dy.sum((0, 1)), dy


def _mix_triton(h: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return _Mix.apply(h, weight, bias, x)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Rows:
    """What a row is made of: a row of gated_conv, and functions for the normalisation and the linear layer."""

    convolution: str
    normalise: Normalise
    mix: Mix

    def convolve(self, shape: Shape, x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        run = gated_conv.IMPLEMENTATIONS[self.convolution].run
        return run(shape.inner, x=x, weight=tensors["weight"], bias=tensors["bias"])[0]

    def run(self, shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
        check(shape, tensors)
        normal_x = self.normalise(tensors["x"], tensors["scale"], tensors["shift"])
        h = self.convolve(shape, normal_x, tensors)
        return (self.mix(h, tensors["out_weight"], tensors["out_bias"], tensors["x"]),)

    @torch.no_grad()
    def parts(self, shape: Shape, tensors: dict[str, Tensor]) -> list[PartCall]:
        """Every part alone, on what the others have computed beforehand."""
        check(shape, tensors)
        if not shape.B:
            return []
        x = tensors["x"]
        normal_x = self.normalise(x, tensors["scale"], tensors["shift"])
        h = self.convolve(shape, normal_x, tensors)
        calls = {
            NORMALISATION: partial(self.normalise, x, tensors["scale"], tensors["shift"]),
            CONVOLUTION: partial(self.convolve, shape, normal_x, tensors),
            MIXING: partial(self.mix, h, tensors["out_weight"], tensors["out_bias"], x),
        }
        dtype = next(name for name, kind in DTYPES.items() if kind == x.dtype)
        costs = costs_of(shape, dtype, "forward")
        return [PartCall(name, torch.no_grad()(call), costs[name]) for name, call in calls.items()]


_PLAIN = _Rows("reference", _normalise_plain, _mix_plain)
_TORCH = _Rows("torch", _normalise_torch, _mix_plain)
_TRITON = _Rows("triton", _normalise_torch, _mix_triton)


def reference(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
    """Compute the block in plain PyTorch; returns y."""
    return _PLAIN.run(shape, **tensors)


def spot(shape: Shape, inputs: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick time steps as the kernel gated_conv does: all else happens at one step.

    Returns shape and inputs of each smaller problem, what to take out of the outputs of the whole problem, and out of
    those of the part.
    """
    found = []
    for smaller, part, of_whole, of_part in gated_conv.spot(shape.inner, inputs, seed):
        found.append((replace(shape, B=smaller.B, T=smaller.T), part, of_whole, of_part))
    return found


NORMALISATION, CONVOLUTION, MIXING = "normalisation", "gated convolution", "output product"


def _normalisation_operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    rows = shape.B * shape.T
    values = rows * shape.C
    forward = (
        *terms(
            "pointwise_flops",
            ("mean", values, "a sum over C, divided: C operations per step"),
            ("variance", 3 * values, "difference to the mean, square and sum, divided by C"),
            ("normalise", 3 * values, "divided by the root, times the scale, plus the shift"),
            ("epsilon", rows, "added to every variance"),
        ),
        *terms("special_ops", ("root", rows, "of every variance")),
    )
    backward = terms(
        "pointwise_flops",
        ("normalised again", 2 * values, "the input less its mean, times 1 / root"),
        (
            "dscale and dshift",
            max(0, 3 * values - 2 * shape.C),
            "gradients times normalised, both summed over all steps",
        ),
        ("dnormalised", values, "gradients times the scale"),
        ("sums", 3 * values, "of dnormalised, and of its products with the normalised, over C, divided"),
        ("dx", 4 * values, "less the mean, less normalised times the mean product, times 1 / root"),
    )
    return operations(direction, forward, backward)


def _mixing_operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    values = shape.B * shape.T * shape.C
    product = 2 * values * shape.C
    forward = (
        *terms("matmul_flops", ("product", product, "C multiply-adds per value")),
        *terms("pointwise_flops", ("bias", values, "one addition each"), ("residual", values, "the input added")),
    )
    backward = (
        *terms(
            "matmul_flops",
            ("dh", product, "gradients times the transposed W_o"),
            ("dW_o", product, "gated values times gradients, summed over time and batch"),
        ),
        *terms(
            "pointwise_flops",
            ("dbias", max(0, values - shape.C), "gradients summed over time and batch"),
            ("residual gradient", values, "what goes around the block added to dx"),
        ),
    )
    return operations(direction, forward, backward)


# What parts read and write, for each direction; the bytes that a forward pass keeps are an input of `backward`.
_NORMALISED = {
    "forward": (("x", "scale", "shift"), ("normalised",)),
    "backward": (("x", "scale", "mean and root", "dnormalised"), ("dx", "dscale", "dshift")),
    "both": (("x", "scale", "shift", "dnormalised"), ("normalised", "dx", "dscale", "dshift")),
}
_MIXED = {
    "forward": (("h", "out_weight", "out_bias", "x"), ("y",)),
    "backward": (("h", "out_weight", "dy"), ("dh", "dout_weight", "dout_bias")),
    "both": (("h", "out_weight", "out_bias", "x", "dy"), ("y", "dh", "dout_weight", "dout_bias")),
}


def _sizes(shape: Shape, size: int) -> dict[str, int]:
    state, C = size * shape.B * shape.T * shape.C, shape.C
    found = {name: state for name in ("x", "normalised", "h", "y")}
    found |= {name: size * C for name in ("scale", "shift", "out_bias")} | {"out_weight": size * C**2}
    found |= {f"d{name}": amount for name, amount in found.items()}
    # Two float32 values per step: the sums are float32 whatever the tensors are.
    return found | {"mean and root": 8 * shape.B * shape.T, "nothing": 0}


def costs_of(shape: Shape, dtype: str, direction: str) -> dict[str, Work]:
    """Cost of every part by its name, each with the tensors that it gets from the others among its inputs."""
    size, tokens = ELEMENT_BYTES[dtype], shape.B * shape.T
    sizes = _sizes(shape, size)
    moved = (direction, "mean and root", "written for the backward pass", "which reads them again")
    kept = (direction, "nothing", "beside its input", "which reads the input again")
    scales, matrix = 2 * shape.C, (shape.C + 1) * shape.C
    return {
        NORMALISATION: Work(
            terms=(*_normalisation_operations(shape, direction), *traffic(_NORMALISED, sizes, *moved)),
            weight_bytes=size * scales,
            saved_bytes=sizes["mean and root"],
            parameters=scales,
            tokens=tokens,
        ),
        CONVOLUTION: gated_conv.work(shape.inner, dtype, direction),
        MIXING: Work(
            terms=(*_mixing_operations(shape, direction), *traffic(_MIXED, sizes, *kept)),
            weight_bytes=size * matrix,
            parameters=matrix,
            tokens=tokens,
        ),
    }


# Compulsory bytes of a part that pass between parts or that another part has counted, by the label of their term.
_BETWEEN = {
    NORMALISATION: {"normalised", "dnormalised"},
    CONVOLUTION: {"x", "y", "dx", "dy"},
    MIXING: {"h", "dh", "x"},
}


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one block, of its gradients, or of both: the sum of its parts, with every tensor held in `dtype`.

    What passes between the parts is in the streamed bytes, and `saved_bytes` for the backward pass, but is not
    compulsory: a program may compute all parts of a piece of the sequence, and again what it did not keep.
    """
    costs = costs_of(shape, dtype, direction)
    between = ELEMENT_BYTES[dtype] * shape.B * shape.T * shape.C
    found: list[Term] = []
    for part, cost in costs.items():
        for term in cost.terms:
            once = term.quantity in ("read_bytes", "write_bytes")
            if term.quantity == "streamed_bytes" or (once and term.label in _BETWEEN[part]):
                continue
            found.append(term.model_copy(update={"label": f"{part}: {term.label}"}))
        found += terms("streamed_bytes", (part, cost.streamed_bytes, "its own traffic, with what passes between parts"))
    return Work(
        terms=tuple(found),
        weight_bytes=sum(cost.weight_bytes for cost in costs.values()),
        saved_bytes=2 * between + sum(cost.saved_bytes for cost in costs.values()),
        parameters=sum(cost.parameters for cost in costs.values()),
        tokens=shape.B * shape.T,
    )


# The row launches what the file of gated_conv lists and compiles; its wide ones stand for them here.
COMPILE = [
    *(case for case in gated_conv.COMPILE if case.representative and "bf16" in case.label),
    *product_cases("output product", bias=True, add=True, rare=True),
]


def _why_not(row: str, shape: Shape, dtype: str, device: str) -> str | None:
    return gated_conv.IMPLEMENTATIONS[row].supports(shape.inner, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not("compile", shape, dtype, device)


def _launches(row: str, others: int, shape: Shape, dtype: str, device: str) -> int:
    return others + gated_conv.IMPLEMENTATIONS[row].launches_for(shape.inner, dtype, device)


def _row(made_of: _Rows, others: int) -> Implementation:
    """Make a row; `others` are kernels beside those of the convolution."""
    row = made_of.convolution
    return Implementation(
        made_of.run,
        launches=partial(_launches, row, others),
        supports=partial(_why_not, row),
        grad=gated_conv.IMPLEMENTATIONS[row].grad,
        parts=made_of.parts,
    )


# Launches as far as known: the normalisation by its definition, or one kernel; the product, its bias, and the sum.
IMPLEMENTATIONS = {
    "reference": replace(_row(_PLAIN, 11), run=reference),
    "torch": _row(_TORCH, 4),
    "compile": Implementation(run_compiled(reference), launches=7, supports=_why_not_compile, grad=True),
    "triton": _row(_TRITON, 2),
}
