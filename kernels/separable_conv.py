"""y = g(w * x + b) V + v, a causal depthwise convolution, its gate g and a pointwise product; or y = g(w * x + b) alone

Separable convolution: every channel is convolved by itself (depthwise), then a matrix mixes the channels of each step
(pointwise). With O=0 the depthwise part alone, the short convolution of state-space models.

B batch, T time steps, C channels, W taps, `dilation` steps between taps, O outputs of the pointwise product.
x (B, T, C), weight (W, C), bias (C), pointwise (C, O), pointwise_bias (O) -> y (B, T, O), or (B, T, C) for O=0;
channels last. (w * x)[t] = sum over k of x[t - (W - 1 - k) dilation] weight[k], with zeros before the first step: the
last tap sees the present input, no output sees the future.
The gate of h = w * x + b: h itself; with silu=1 h sigmoid(h); with gate=1 h z sigmoid(z), where z (B, T, C) is a second
input.

Source: Chollet, Xception, CVPR 2017 (separable); Gu and Dao, Mamba, arXiv 2312.00752, 2023 (alone, with SiLU).
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.nn import functional as F

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work, terms
from ._conv_spot import causal_spot
from ._cost import operations, traffic
from ._depthwise import DEPTHWISE, SEPARABLE, SPREAD, THROUGH_GATE, Program, compile_cases, launch, tile_for, walk
from ._depthwise import aligned_to_16 as aligned
from ._separable_peers import peer_rows
from ._torch import (
    ELEMENT_BYTES,
    check_tensors,
    dtype_of,
    generator,
    normal,
    once_differentiable,
    run_compiled,
    tf32_on_cpu,
    why_no_compiler,
    why_slow,
)
from ._triton import interpreted, why_no_triton

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of one separable convolution. O=0 leaves the product out; `silu` and `gate` exclude each other."""

    B: int
    T: int
    C: int
    W: int
    O: int = 0
    dilation: int = 1
    silu: int = 0
    gate: int = 0

    def __post_init__(self) -> None:
        for size in fields(self):
            least = 0 if size.name in ("B", "O", "silu", "gate") else 1
            if getattr(self, size.name) < least:
                raise ValueError(f"{size.name} must be at least {least}, not {getattr(self, size.name)}")
        for option in ("silu", "gate"):
            if getattr(self, option) > 1:
                raise ValueError(f"{option} must be 0 or 1, not {getattr(self, option)}")
        if self.silu and self.gate:
            raise ValueError("silu=1 gates the convolution by itself and gate=1 by a second input: set one of them")

    @property
    def halo(self) -> int:
        """Steps before the present one that an output sees."""
        return (self.W - 1) * self.dilation

    @property
    def form(self) -> int:
        """The gate as one number: 0 none, 1 SiLU, 2 a second input."""
        return self.silu + 2 * self.gate


SHAPES = {
    "quick": [
        Shape(2, 1024, 256, 4, silu=1),
        Shape(3, 333, 37, 5, O=51, dilation=2, silu=1),
        Shape(1, 500, 96, 3, gate=1),
    ],
    # Alone: the short convolutions of state-space models and a long filter. With the product: few channels, where
    # memory binds, and many, where the product does.
    "standard": [
        *(Shape(1, 4096, C, 4, silu=1) for C in (1024, 2048, 4096)),
        Shape(4, 2048, 1024, 4),
        Shape(4, 2048, 1024, 4, gate=1),
        Shape(4, 2048, 512, 31, silu=1),
        Shape(32, 2048, 64, 4, O=64, silu=1),
        Shape(16, 2048, 256, 3, O=256),
        Shape(8, 1024, 512, 31, O=512, silu=1),
        Shape(4, 1000, 800, 5, O=800, dilation=4),
    ],
    "full": [
        *(Shape(8, 4096, C, W, silu=1) for C in (256, 1024, 2048, 4096) for W in (2, 3, 4)),
        *(Shape(8, 4096, 1024, W) for W in (1, 2, 4, 8, 16, 31)),
        *(Shape(8, 4096, 1024, 4, dilation=d) for d in (1, 2, 4, 16, 64, 1024)),
        *(Shape(1, T, 2048, 4, silu=1) for T in (128, 1024, 16384, 131072)),
        *(Shape(8, 4096, C, 4, gate=1) for C in (1024, 4096)),
        *(Shape(32, 4096, C, 4, O=C, silu=1) for C in (16, 32, 64, 128, 256, 512, 1024)),
        Shape(16, 4096, 256, 31, O=256, silu=1),
    ],
}
# Sizes at and around the edges of the Triton tiles, a halo longer than the sequence included.
ODD = [
    Shape(1, 1, 1, 1),
    Shape(2, 67, 144, 4, silu=1),
    Shape(1, 9, 5, 4, O=3, dilation=64, gate=1),
    Shape(1, 1031, 17, 3, O=33, dilation=5, silu=1),
    Shape(1, 70, 48, 31, O=144),
    Shape(1, 130, 200, 5, gate=1),
    Shape(1, 33, 32, 2, O=200, gate=1),
]
ODD_LONG = [
    Shape(2, T, C, W, O=O, dilation=d, silu=silu, gate=gate)
    for T in (1, 31, 131)
    for C, O in ((1, 0), (48, 0), (150, 0), (33, 17), (64, 272))
    for W, d in ((1, 1), (4, 1), (5, 3), (31, 2), (3, 64))
    for silu, gate in ((0, 0), (1, 0), (0, 1))
]


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The sizes of all inputs by name."""
    sizes: dict[str, tuple[int, ...]] = {
        "x": (shape.B, shape.T, shape.C),
        "weight": (shape.W, shape.C),
        "bias": (shape.C,),
    }
    if shape.gate:
        sizes["z"] = sizes["x"]
    if shape.O:
        sizes |= {"pointwise": (shape.C, shape.O), "pointwise_bias": (shape.O,)}
    return sizes


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the values near one."""
    source = generator(device, seed)
    scale = {"weight": shape.W**-0.5, "bias": 0.5, "pointwise": shape.C**-0.5, "pointwise_bias": 0.5}
    return {
        name: normal(size, dtype, device, source, scale=scale.get(name, 1.0)) for name, size in _sizes(shape).items()
    }


def check(shape: Shape, tensors: dict[str, Any]) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError with a sentence."""
    check_tensors(shape, tensors, _sizes(shape))


def _convolve(shape: Shape, x, weight, bias) -> torch.Tensor:
    """Convolve every channel with F.conv1d, which wants channels first: views and one padded copy; (B, T, C)."""
    padded = F.pad(x, (0, 0, shape.halo, 0)).transpose(1, 2)
    convolved = F.conv1d(padded, weight.t().unsqueeze(1), bias, dilation=shape.dilation, groups=shape.C)
    return convolved.transpose(1, 2)


def reference(
    shape: Shape, x, weight, bias, z: Any = None, pointwise: Any = None, pointwise_bias: Any = None
) -> tuple[torch.Tensor]:
    """Compute the separable convolution in plain PyTorch, in the dtype of the tensors; returns y."""
    h = _convolve(shape, x, weight, bias)
    if shape.silu:
        h = h * torch.sigmoid(h)
    if shape.gate:
        h = h * (z * torch.sigmoid(z))
    return (h @ pointwise + pointwise_bias if shape.O else h,)


def _run_torch(
    shape: Shape, x, weight, bias, z: Any = None, pointwise: Any = None, pointwise_bias: Any = None
) -> tuple[torch.Tensor]:
    """Call conv1d, silu and linear. Without a product the result is a view in whatever layout conv1d prefers."""
    h = _convolve(shape, x, weight, bias)
    if shape.silu:
        h = F.silu(h)
    if z is not None:
        h = h * F.silu(z)
    return (h if pointwise is None else F.linear(h, pointwise.t(), pointwise_bias),)


def spot(shape: Shape, inputs: Tensors, seed: int) -> list[Any]:
    """Pick runs of time steps, each with what it sees before it."""
    return causal_spot(shape, inputs, seed, shape.halo, ("x", "z"))


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    steps = shape.B * shape.T
    channels, outputs = steps * shape.C, steps * shape.O
    gates = {
        0: (),
        1: (("silu", channels, "the convolution times its sigmoid"),),
        2: (("gate", 2 * channels, "z times its sigmoid, times the convolution"),),
    }
    of_product = "C multiply-adds per output"
    return (
        *terms("matmul_flops", ("depthwise", 2 * channels * shape.W, "W taps per channel, taps on padding included")),
        *(terms("matmul_flops", ("pointwise", 2 * outputs * shape.C, of_product)) if shape.O else ()),
        *terms("pointwise_flops", ("bias", channels, "one addition per channel"), *gates[shape.form]),
        *(terms("pointwise_flops", ("pointwise bias", outputs, "one addition per output")) if shape.O else ()),
        *(terms("special_ops", ("sigmoid", channels, "one per channel")) if shape.form else ()),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    """What of the forward pass is needed, the convolution and its sigmoid, is kept or computed again, and not counted.

    So the cost bounds both kinds of implementation from below.
    """
    steps = shape.B * shape.T
    channels, outputs = steps * shape.C, steps * shape.O
    later = max(0, steps - 1)
    gates = {
        0: (),
        1: (("through the gate", 5 * channels, "the gradient times s (1 + h (1 - s))"),),
        2: (
            ("through the gate", 2 * channels, "the gradient times z s"),
            ("dz", 6 * channels, "the gradient times h s (1 + z (1 - s))"),
        ),
    }
    product = 2 * outputs * shape.C
    of_product = (
        ("dh", product, "gradients of the outputs times the transposed matrix"),
        ("dpointwise", product, "gated convolution times gradients, summed over time and batch"),
    )
    return (
        *terms(
            "matmul_flops",
            ("dx", 2 * channels * shape.W, "gradients of the convolution convolved with the flipped taps"),
            ("dweight", 2 * channels * shape.W, "inputs times gradients, summed over time and batch"),
            *(of_product if shape.O else ()),
        ),
        *terms(
            "pointwise_flops",
            *gates[shape.form],
            ("dbias", later * shape.C, "gradients of the convolution summed over time and batch"),
            *((("dpointwise_bias", later * shape.O, "gradients of the outputs summed likewise"),) if shape.O else ()),
        ),
    )


def _traffic(shape: Shape) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Per direction, what an implementation must read and write. The bias bears on gradients through the gate alone."""
    given = tuple(_sizes(shape))
    gradients = tuple(f"d{name}" for name in given)
    unused = {"pointwise_bias"} | (set() if shape.form or shape.O else {"bias"})
    needed = tuple(name for name in given if name not in unused)
    return {
        "forward": (given, ("y",)),
        "backward": ((*needed, "dy"), gradients),
        "both": ((*given, "dy"), ("y", *gradients)),
    }


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one separable convolution, of its gradients, or of both, with every tensor held in `dtype`.

    The forward pass has to leave nothing but its inputs for the backward pass.
    """
    element_bytes = ELEMENT_BYTES[dtype]
    steps = shape.B * shape.T
    elements = {name: torch.Size(size).numel() for name, size in _sizes(shape).items()}
    elements["y"] = steps * (shape.O or shape.C)
    sizes = {name: element_bytes * count for name, count in elements.items()}
    sizes |= {f"d{name}": size for name, size in sizes.items()} | {"nothing": 0}
    weights = [sizes[name] for name in _sizes(shape) if name not in ("x", "z")]
    return Work(
        terms=(
            *operations(direction, _operations_forward(shape), _operations_backward(shape)),
            *traffic(
                _traffic(shape),
                sizes,
                direction,
                "nothing",
                "is kept: the backward pass computes the convolution again",
                "which reads the inputs and the weights again",
            ),
        ),
        weight_bytes=sum(weights),
        parameters=sum(weights) // element_bytes,
        tokens=steps,
    )


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


COMPILE = compile_cases()


def _start(program: Program, shape: Shape, *tensors: torch.Tensor) -> None:
    """Launch a program over all tiles of the shape, unless there is nothing to do."""
    if shape.B:
        launch(program, tensors, dtype_of(tensors[0]), _numbers(shape), shape.form, interpreted())


def _numbers(shape: Shape) -> dict[str, int]:
    return {name: getattr(shape, name) for name in ("B", "T", "C", "O", "dilation")} | {"taps": shape.W}


def _depthwise(shape: Shape, x, weight, bias, z) -> torch.Tensor:
    """Launch the depthwise part with its gate: (B, T, C)."""
    h = torch.empty_like(x)
    _start(DEPTHWISE, shape, x, weight, bias, x if z is None else z, h)
    return h


def _depthwise_gradients(shape: Shape, above, x, weight, bias, z) -> tuple[torch.Tensor | None, ...]:
    """Gradients of x, weight, bias and z from that of the gated convolution.

    The taps' sums come from every tile by itself and are added in a fixed order: no atomics, the same result each time.
    """
    dh, dz = above, None if z is None else torch.empty_like(z)
    if shape.form:
        dh = torch.empty_like(x)
        _start(THROUGH_GATE, shape, x, weight, bias, x if z is None else z, above, dh, dh if dz is None else dz)
    dx = torch.empty_like(x)
    accumulator = torch.float64 if x.dtype == torch.float64 else torch.float32
    partial = torch.empty(_tiles(shape, x, weight, dh, dx), shape.W + 1, shape.C, dtype=accumulator, device=x.device)
    _start(SPREAD, shape, x, weight, dh, dx, partial)
    sums = partial.sum(0).to(x.dtype)
    return dx, sums[:-1], sums[-1], dz


def _tiles(shape: Shape, *tensors: torch.Tensor) -> int:
    """Tiles along time and batch that the backward pass has, each with a share of the taps' sums."""
    # A fresh tensor is aligned, so the sums' address does not bear on the choice of the tile.
    wide = aligned(SPREAD, tensors, _numbers(shape))
    tile = tile_for(SPREAD, dtype_of(tensors[0]), tensors[0].element_size(), shape.C, shape.O, wide)
    return shape.B * -(-walk(shape.T, shape.dilation)[1] // tile.segments)


class _Separable(torch.autograd.Function):
    """Depthwise, gate and product in one launch; only the inputs are kept, the gradients compute the rest again."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, x, weight, bias, z, pointwise, pointwise_bias) -> torch.Tensor:
        ctx.shape = shape
        ctx.save_for_backward(x, weight, bias, z, pointwise)
        if pointwise is None:
            return _depthwise(shape, x, weight, bias, z)
        y = x.new_empty(shape.B, shape.T, shape.O)
        _start(SEPARABLE, shape, x, weight, bias, x if z is None else z, pointwise, pointwise_bias, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, z, pointwise = ctx.saved_tensors
        above = gradients[0].contiguous()
        dpointwise = dpointwise_bias = None
        if pointwise is not None:
            h = _depthwise(ctx.shape, x, weight, bias, z)
            dpointwise = h.flatten(0, 1).t() @ above.flatten(0, 1)
            dpointwise_bias = above.sum((0, 1))
            above = above @ pointwise.t()
        return None, *_depthwise_gradients(ctx.shape, above, x, weight, bias, z), dpointwise, dpointwise_bias


def _run_triton(shape: Shape, **tensors: torch.Tensor) -> tuple[torch.Tensor]:
    """Launch the fused kernel. Tensors that are not dense are copied first."""
    check(shape, tensors)
    dense = (tensors.get(name) for name in ("x", "weight", "bias", "z", "pointwise", "pointwise_bias"))
    return (_Separable.apply(shape, *(None if tensor is None else tensor.contiguous() for tensor in dense)),)


def _run_unfused(shape: Shape, **tensors: torch.Tensor) -> tuple[torch.Tensor]:
    """Launch the depthwise kernel, then PyTorch's product: what fusing the two saves."""
    check(shape, tensors)
    alone = {name: tensor for name, tensor in tensors.items() if not name.startswith("pointwise")}
    (h,) = _run_triton(replace(shape, O=0), **alone)
    return (F.linear(h, tensors["pointwise"].t(), tensors["pointwise_bias"]),)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64" and not interpreted():
        return "the Triton kernel accumulates in float32; float64 is for the reference"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


def _why_not_unfused(shape: Shape, dtype: str, device: str) -> str | None:
    return _why_not_triton(shape, dtype, device) if shape.O else "without a product there is nothing to take apart"


def _eager_launches(shape: Shape, gate: int) -> int:
    """The padding, the convolution and its bias, `gate` operations of the gate, and the product with its bias."""
    return 3 + gate + 2 * (shape.O > 0)


# Launches as far as known.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: _eager_launches(shape, (0, 2, 3)[shape.form]),
        supports=_why_not_torch,
        grad=True,
    ),
    "torch": Implementation(
        _run_torch,
        launches=lambda shape, dtype, device: _eager_launches(shape, shape.form) - (shape.O > 0),
        supports=_why_not_torch,
        grad=True,
    ),
    "compile": Implementation(run_compiled(reference), launches=4, supports=_why_not_compile, grad=True),
    "triton": Implementation(_run_triton, supports=_why_not_triton, grad=True),
    "triton_unfused": Implementation(_run_unfused, launches=2, supports=_why_not_unfused, grad=True),
    **peer_rows(),
}
