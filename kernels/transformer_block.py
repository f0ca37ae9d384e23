"""y = h + W_down gelu(W_up n2(h) + b_up) + b_down with h = x + W_o attention(W_qkv n1(x) + b_qkv) + b_o

A complete decoder layer with the normalisation first: self-attention and a feed-forward network, each of which reads
a layer normalisation n(x) = (x - mean) / sqrt(variance + 1e-5) weight + bias of the stream and adds to it. This is
torch.nn.TransformerEncoderLayer(norm_first=True, activation="gelu") without dropout, so that it can be held against
it; gelu(u) = u/2 (1 + erf(u / sqrt 2)).

B sequences, T time steps, M model width, N query heads, G key/value heads (N is a multiple of G), P = M/N head
dimension, F width of the feed-forward network.
x (B, T, M), norm1_weight and norm1_bias (M), qkv_weight ((N + 2G) P, M) with the rows of q, then k, then v, qkv_bias
((N + 2G) P), out_weight (M, M), out_bias (M), norm2_weight and norm2_bias (M), up_weight (F, M), up_bias (F),
down_weight (M, F), down_bias (M) -> y (B, T, M). causal=1: no step sees a later one.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017; normalisation first: Xiong et al., On Layer
Normalization in the Transformer Architecture, ICML 2020; Hendrycks and Gimpel, GELU, arXiv 1606.08415, 2016.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import Implementation, PartCall
from ..roofline.work import Term, Work, terms
from . import _transformer_norm, attention
from ._cost import operations, traffic
from ._torch import (
    DTYPES,
    ELEMENT_BYTES,
    check_tensors,
    generator,
    normal,
    run_compiled,
    why_no_compiler,
    why_slow,
)
from ._triton import why_no_triton


@dataclass(frozen=True)
class Shape:
    """Sizes of one layer. G=0 stands for G=N and F=0 for F=4M; the stored shape has the real numbers."""

    B: int
    T: int
    M: int
    N: int
    G: int = 0
    F: int = 0
    causal: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "G", self.G or self.N)
        object.__setattr__(self, "F", self.F or 4 * self.M)
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("T", "M", "N", "G", "F"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.causal not in (0, 1):
            raise ValueError(f"causal must be 0 or 1, not {self.causal}")
        if self.M % self.N:
            raise ValueError(f"M must be a multiple of N, so that heads are equally wide; {self.M} is none of {self.N}")
        if self.N % self.G:
            raise ValueError(f"N must be a multiple of G, so that heads can share keys; {self.N} is none of {self.G}")

    @property
    def P(self) -> int:
        """Head dimension."""
        return self.M // self.N

    @property
    def projected(self) -> int:
        """Values of q, k and v together for one step."""
        return (self.N + 2 * self.G) * self.P

    @property
    def attention(self) -> attention.Shape:
        """The attention inside; B must be at least 1."""
        return attention.Shape(self.B, self.N, self.T, self.P, G=self.G, causal=self.causal)


SHAPES = {
    "quick": [
        Shape(2, 128, 256, 4),
        Shape(1, 97, 192, 6, G=2, F=320, causal=0),
    ],
    "standard": [
        *(Shape(8 // (T // 256), T, 512, 8) for T in (256, 1024, 2048)),
        Shape(1, 512, 1024, 8),
        Shape(1, 512, 1024, 8, G=2, F=2816),
        Shape(16, 32, 512, 8, causal=0),
    ],
    # 16k tokens of common models, from short to long sequences, and small batches.
    "full": [
        *(Shape(16384 // T, T, 2048, 16) for T in (512, 1024, 2048, 4096)),
        *(Shape(8, 2048, M, M // 64) for M in (512, 768, 1024)),
        Shape(4, 2048, 4096, 32, G=8, F=14336),
        *(Shape(B, 1024, 1024, 16) for B in (1, 4, 16)),
    ],
}
# One step, sizes beside those of tiles, shared heads, every head in use, many heads, and a long sequence of few values.
ODD = [
    Shape(1, 1, 16, 1, F=8),
    Shape(2, 37, 48, 3, F=50),
    Shape(1, 67, 132, 4, G=2, F=64, causal=0),
    Shape(3, 5, 260, 2, G=1, F=33),
    Shape(1, 7, 192, 6, G=2, F=24),
    Shape(1, 1031, 16, 1, F=8),
]


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Size of every input tensor by name, in the order of the docstring."""
    M, F_, projected = shape.M, shape.F, shape.projected
    return {
        "x": (shape.B, shape.T, M),
        "norm1_weight": (M,),
        "norm1_bias": (M,),
        "qkv_weight": (projected, M),
        "qkv_bias": (projected,),
        "out_weight": (M, M),
        "out_bias": (M,),
        "norm2_weight": (M,),
        "norm2_bias": (M,),
        "up_weight": (F_, M),
        "up_bias": (F_,),
        "down_weight": (M, F_),
        "down_bias": (M,),
    }


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in); those of the normalisations lie around one."""
    source = generator(device, seed)
    drawn = {}
    for name, size in sizes_of(shape).items():
        scale = size[1] ** -0.5 if len(size) == 2 else 1.0 if name == "x" else 0.2
        drawn[name] = normal(size, dtype, device, source, scale)
        if name in ("norm1_weight", "norm2_weight"):
            drawn[name] += 1
    return drawn


def check(shape: Shape, tensors: dict[str, Any]) -> None:
    """Refuse tensors that do not fit the shape; raises ValueError."""
    check_tensors(shape, tensors, sizes_of(shape))


@dataclass(frozen=True)
class _Pieces:
    """What the rows do in different ways.

    normalise : (x, weight, bias) -> n. add_normalise : (x, added, weight, bias) -> their sum and its n.
    attend : (shape, q, k, v) -> o, all (B, heads, T, P). activate : gelu.
    """

    normalise: Callable[[Tensor, Tensor, Tensor], Tensor]
    add_normalise: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    attend: Callable[[Shape, Tensor, Tensor, Tensor], Tensor]
    activate: Callable[[Tensor], Tensor]


def _linear(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, tensors[f"{name}_weight"], tensors[f"{name}_bias"])


def _project(shape: Shape, pieces: _Pieces, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Normalise x and give q, k and v (B, heads, T, P), as views of one product."""
    normal_x = pieces.normalise(tensors["x"], tensors["norm1_weight"], tensors["norm1_bias"])
    heads = _linear(tensors, "qkv", normal_x).view(shape.B, shape.T, -1, shape.P).transpose(1, 2)
    return heads.split((shape.N, shape.G, shape.G), dim=1)


def _join(shape: Shape, o: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """What attention adds to the stream, from o (B, N, T, P)."""
    return _linear(tensors, "out", o.transpose(1, 2).reshape(shape.B, shape.T, shape.M))


def _feed_forward(pieces: _Pieces, x: Tensor, added: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """y from x and what attention adds to it."""
    h, normal_h = pieces.add_normalise(x, added, tensors["norm2_weight"], tensors["norm2_bias"])
    return h + _linear(tensors, "down", pieces.activate(_linear(tensors, "up", normal_h)))


def _layer(pieces: _Pieces, shape: Shape, tensors: dict[str, Tensor]) -> tuple[Tensor]:
    check(shape, tensors)
    if not shape.B:
        # An empty result that depends on all inputs, so that all gradients are zero.
        return (tensors["x"] + torch.stack([tensor.sum() for tensor in tensors.values()]).sum(),)
    added = _join(shape, pieces.attend(shape, *_project(shape, pieces, tensors)), tensors)
    return (_feed_forward(pieces, tensors["x"], added, tensors),)


def _plain_normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + _transformer_norm.EPSILON) * weight + bias


def _plain_add_normalise(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    h = x + added
    return h, _plain_normalise(h, weight, bias)


def _plain_attend(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention.reference(shape.attention, q, k, v)[0]


def _plain_gelu(u: Tensor) -> Tensor:
    return u / 2 * (1 + torch.erf(u / math.sqrt(2)))


_PLAIN = _Pieces(_plain_normalise, _plain_add_normalise, _plain_attend, _plain_gelu)


def reference(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
    """Compute the layer in plain PyTorch with all scores in memory, in the dtype of the tensors; returns y."""
    return _layer(_PLAIN, shape, tensors)


def _torch_normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, _transformer_norm.EPSILON)


def _torch_add_normalise(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    h = x + added
    return h, _torch_normalise(h, weight, bias)


def _torch_attend(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shared = shape.G < shape.N
    return F.scaled_dot_product_attention(q, k, v, is_causal=bool(shape.causal), enable_gqa=shared)


# Of 256 tokens, in one thread, the largest error was four times plain PyTorch's; of 128 it neared what is allowed.
LONGEST_SUM = 64

_TORCH = _Pieces(_torch_normalise, _torch_add_normalise, _torch_attend, F.gelu)


def _run_torch(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
    """Call nn.functional: layer_norm, linear, scaled_dot_product_attention with a backend of its choice, gelu."""
    return _layer(_TORCH, shape, tensors)


def _triton_attend(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention.IMPLEMENTATIONS["triton"].run(shape.attention, q=q, k=k, v=v)[0]


_TRITON = _Pieces(_transformer_norm.normalise, _transformer_norm.add_normalise, _triton_attend, F.gelu)


def _run_triton(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
    """Attention and normalisations by Triton kernels, products and gelu by PyTorch: fusing gelu would save no bytes."""
    return _layer(_TRITON, shape, tensors)


def spot(shape: Shape, tensors: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick a random sequence and the last one: sequences are independent, so each is a smaller problem.

    Returns shape and inputs of each, what to take out of the outputs of the whole problem, and out of the part's.
    """
    random = int(torch.randint(shape.B, (), generator=generator("cpu", seed)))
    smaller = replace(shape, B=1)
    return [
        (
            smaller,
            tensors | {"x": tensors["x"][one]},
            lambda outputs, one=one: (outputs[0][one],),
            lambda outputs: outputs,
        )
        for one in (slice(n, n + 1) for n in (random, shape.B - 1))
    ]


def _norm_operations(rows: int, M: int) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """One layer normalisation of (rows, M), forward and backward."""
    forward = (
        *terms(
            "pointwise_flops",
            ("norm", 4 * rows * M, "mean, difference to it, its square and their sum"),
            ("norm scale", 3 * rows * M, "times 1/std and weight, plus bias"),
        ),
        *terms("special_ops", ("norm", rows, "root of the variance, one per step")),
    )
    backward = terms(
        "pointwise_flops",
        ("norm again", 2 * rows * M, "(x - mean) / std, recomputed"),
        ("norm gradient", 8 * rows * M, "times weight, two means over M, two differences, two products, 1/std"),
        ("dnorm weight and bias", rows * M + 2 * max(0, rows - 1) * M, "a product, and two sums over all steps"),
    )
    return forward, backward


def _linear_operations(name: str, rows: int, inward: int, outward: int) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """One product with a weight (outward, inward) for all rows, with its bias, forward and backward."""
    product = 2 * rows * inward * outward
    forward = (
        *terms("matmul_flops", (name, product, f"{inward} multiply-adds per output")),
        *terms("pointwise_flops", (f"{name} bias", rows * outward, "one addition per output")),
    )
    backward = (
        *terms(
            "matmul_flops",
            (f"{name}, input", product, "transposed weight times the gradient of the output"),
            (f"{name}, weight", product, "outer products of gradients and inputs, summed over all steps"),
        ),
        *terms("pointwise_flops", (f"{name}, bias", max(0, rows - 1) * outward, "gradients summed over all steps")),
    )
    return forward, backward


def _stream_operations(rows: int, M: int) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    forward = terms("pointwise_flops", ("stream", rows * M, "the result is added to what went in"))
    return forward, terms("pointwise_flops", ("dstream", rows * M, "two gradients of what went in are added"))


def _gelu_operations(values: int) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    forward = (
        *terms("pointwise_flops", ("gelu", 4 * values, "u / sqrt 2, plus one, half, times u")),
        *terms("special_ops", ("gelu", values, "erf")),
    )
    backward = (
        *terms("pointwise_flops", ("dgelu", 8 * values, "3 for the distribution, 4 with its density, times gradient")),
        *terms("special_ops", ("dgelu", 2 * values, "erf and exp")),
    )
    return forward, backward


def _part_operations(shape: Shape, part: str, direction: str) -> tuple[Term, ...]:
    rows, M, F_ = shape.B * shape.T, shape.M, shape.F
    norm, stream = _norm_operations(rows, M), _stream_operations(rows, M)
    if part == "projections":
        q_k_v, out = _linear_operations("q, k, v", rows, M, shape.projected), _linear_operations("output", rows, M, M)
        pieces = (norm, q_k_v, out)
    else:
        up, down = _linear_operations("up", rows, M, F_), _linear_operations("down", rows, F_, M)
        pieces = (stream, norm, up, _gelu_operations(rows * F_), down, stream)
    forward, backward = (tuple(term for piece in pieces for term in piece[half]) for half in (0, 1))
    return operations(direction, forward, backward)


_PROJECTING = ("norm1_weight", "norm1_bias", "qkv_weight", "qkv_bias", "out_weight", "out_bias")
_FEEDING = ("norm2_weight", "norm2_bias", "up_weight", "up_bias", "down_weight", "down_bias")


def _elements(shape: Shape) -> dict[str, int]:
    """Elements of every tensor that passes into, between and out of the parts."""
    stream = shape.B * shape.T * shape.M
    sizes = {name: math.prod(size) for name, size in sizes_of(shape).items()}
    return sizes | {
        "q, k, v": shape.B * shape.T * shape.projected,
        "o": stream,
        "added": stream,
        "y": stream,
        "up": shape.B * shape.T * shape.F,
    }


def _part_work(shape: Shape, dtype: str, part: str, direction: str) -> Work:
    """Cost of the projections around attention, with their norm, or of the feed-forward network with its own."""
    size, elements = ELEMENT_BYTES[dtype], _elements(shape)
    sizes = {name: size * count for name, count in elements.items()}
    # Mean and 1/std of every row, never in less than float32.
    statistics = 2 * shape.B * shape.T * max(size, 4)
    if part == "projections":
        given, made, weights, kept = ("x", "o"), ("q, k, v", "added"), _PROJECTING, statistics
    else:
        given, made, weights, kept = ("x", "added"), ("y",), _FEEDING, statistics + sizes["up"]
    sizes |= {f"d{name}": amount for name, amount in sizes.items()} | {"kept": kept}
    gradients = tuple(f"d{name}" for name in (*given, *weights))
    above = tuple(f"d{name}" for name in made)
    moved = {
        "forward": ((*given, *weights), made),
        "backward": ((*given, *weights, "kept", *above), gradients),
        "both": ((*given, *weights, *above), (*made, *gradients)),
    }
    weight_bytes = sum(sizes[name] for name in weights)
    return Work(
        terms=(
            *_part_operations(shape, part, direction),
            *traffic(moved, sizes, direction, "kept", "written for the backward pass", "which reads them again"),
        ),
        weight_bytes=weight_bytes,
        saved_bytes=kept,
        parameters=weight_bytes // size,
        tokens=shape.B * shape.T,
    )


def costs_of(shape: Shape, dtype: str, direction: str) -> dict[str, Work]:
    """Cost of every part by its name, each with what it gets from the others among its inputs; B at least 1."""
    return {
        "attention": attention.work(shape.attention, dtype, direction),
        "projections": _part_work(shape, dtype, "projections", direction),
        "feed-forward": _part_work(shape, dtype, "feed-forward", direction),
    }


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one layer, of its gradients, or of both: the operations of its parts, every tensor held in `dtype`.

    What passes between the parts is not compulsory. The forward pass leaves q, k, v, o, h and the values before gelu,
    with the statistics of both norms and the logarithms of attention (`saved_bytes`); norms and gelu are recomputed.
    """
    if not shape.B:
        operations(direction, (), ())  # refuses an unknown direction
        return Work(terms=(), tokens=0)
    parts = costs_of(shape, dtype, direction)
    done = [
        term.model_copy(update={"label": f"{part}: {term.label}"})
        for part, cost in parts.items()
        for term in cost.terms
        if not term.quantity.endswith("_bytes")
    ]
    size = ELEMENT_BYTES[dtype]
    sizes = {name: size * count for name, count in _elements(shape).items()}
    between = sizes["q, k, v"] + sizes["o"] + sizes["added"]
    kept = between + sum(cost.saved_bytes for cost in parts.values())
    sizes |= {f"d{name}": amount for name, amount in sizes.items()} | {"kept": kept}
    given = tuple(sizes_of(shape))
    gradients = tuple(f"d{name}" for name in given)
    moved = {
        "forward": (given, ("y",)),
        "backward": ((*given, "kept", "dy"), gradients),
        "both": ((*given, "dy"), ("y", *gradients)),
    }
    return Work(
        terms=(
            *done,
            *traffic(moved, sizes, direction, "kept", "written for the backward pass", "which reads them again"),
        ),
        weight_bytes=sum(cost.weight_bytes for cost in parts.values()),
        saved_bytes=kept,
        recomputed_flops=parts["attention"].recomputed_flops,
        recomputed_ops=parts["attention"].recomputed_ops,
        parameters=sum(cost.parameters for cost in parts.values()),
        tokens=shape.B * shape.T,
    )


def _parts(pieces: _Pieces, shape: Shape, tensors: dict[str, Tensor]) -> list[PartCall]:
    """Attention, the products around it and the feed-forward network alone, on what the others have computed."""
    check(shape, tensors)
    if not shape.B:
        return []
    q, k, v = _project(shape, pieces, tensors)
    o = pieces.attend(shape, q, k, v)
    added = _join(shape, o, tensors)

    def project() -> None:
        _project(shape, pieces, tensors)
        _join(shape, o, tensors)

    calls: dict[str, Callable[[], object]] = {
        "attention": partial(pieces.attend, shape, q, k, v),
        "projections": project,
        "feed-forward": partial(_feed_forward, pieces, tensors["x"], added, tensors),
    }
    dtype = next(name for name, kind in DTYPES.items() if kind == added.dtype)
    costs = costs_of(shape, dtype, "forward")
    return [PartCall(name, call, costs[name]) for name, call in calls.items()]


def _why_slow(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    slow = _why_slow(shape, dtype, device)
    if slow is None and device == "cpu" and dtype == "fp16" and shape.B * shape.T > LONGEST_SUM:
        return (
            "on a CPU PyTorch's layer_norm sums the gradients of its parameters in float16, one token after the other: "
            f"beyond {LONGEST_SUM} tokens they are several times less exact than plain PyTorch's; take bf16 or fp32"
        )
    return slow


def _why_not_attention(row: str, shape: Shape, dtype: str, device: str) -> str | None:
    refused = attention.IMPLEMENTATIONS[row].supports(shape.attention, dtype, device) if shape.B else None
    return f"attention: {refused}" if refused else None


def _why_not_reference(shape: Shape, dtype: str, device: str) -> str | None:
    return _why_not_attention("reference", shape, dtype, device) or _why_slow(shape, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_slow(shape, dtype, device)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    return (
        _transformer_norm.why_not_width(shape.M)
        or why_no_triton(device)
        or _why_not_attention("triton", shape, dtype, device)
    )


# Launches as far as known; by nn.functional: two norms, two sums, four products, gelu, attention, its copy.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: 28 + (9 if shape.causal else 4),
        supports=_why_not_reference,
        grad=True,
        parts=partial(_parts, _PLAIN),
    ),
    "torch": Implementation(
        _run_torch,
        launches=11,
        supports=_why_not_torch,
        grad=True,
        parts=partial(_parts, _TORCH),
    ),
    "compile": Implementation(run_compiled(_run_torch), launches=9, supports=_why_not_compile, grad=True),
    "triton": Implementation(
        _run_triton,
        launches=10,
        supports=_why_not_triton,
        grad=attention.IMPLEMENTATIONS["triton"].grad,
        parts=partial(_parts, _TRITON),
    ),
}

# Beside these the row launches what the file of attention lists and compiles.
COMPILE = _transformer_norm.COMPILE
