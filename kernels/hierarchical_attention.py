"""c = sum of w_i x_i over a window, w = softmax(s), s_i = q . tanh(V x_i + b): level by level, until one c remains

Hierarchical attention: windows of F vectors are summarised by a learned attention into one context vector each, the
contexts again in windows of F, and so on. After ceil(log_F T) levels a single vector has seen all T, where a recurrence
needs T steps.

B sequences, T vectors each, P numbers per vector, F vectors per window, L levels, n_0 = T and n_k = ceil(n_(k-1) / F)
vectors above level k; the last window of a level may be shorter, and T = 1 takes one level.
x (B, T, P), V (L, P, P), b (L, P), q (L, P) -> the contexts of every level, (B, n_1, P) to (B, n_L, P) with n_L = 1.
Column j of row i of V[l] multiplies number j of a vector for number i of V x. Nothing is causal.

Source: the score and the sum are those of Yang et al., Hierarchical Attention Networks for Document Classification,
NAACL 2016, where words are summarised to sentences and these to a document; here windows have one length instead.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work, terms
from ._cost import operations, traffic
from ._hierarchical_launch import WIDEST, compile_cases, hierarchy
from ._torch import (
    ELEMENT_BYTES,
    check_tensors,
    generator,
    normal,
    run_compiled,
    tf32_on_cpu,
    why_no_compiler,
    why_slow,
)
from ._triton import interpreted, why_no_triton


@dataclass(frozen=True)
class Shape:
    """Sizes of one hierarchy; `F` is the length of a window, and may exceed T."""

    B: int
    T: int
    P: int
    F: int = 100

    def __post_init__(self) -> None:
        for name, least in (("B", 0), ("T", 1), ("P", 1), ("F", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Vectors per sequence below and above every level, n_0 = T to n_L = 1; counted with integers."""
        found = [self.T, -(-self.T // self.F)]
        while found[-1] > 1:
            found.append(-(-found[-1] // self.F))
        return tuple(found)

    @property
    def levels(self) -> int:
        """Levels that must wait for one another: ceil(log_F T), and one for T = 1."""
        return len(self.lengths) - 1


SHAPES = {
    "quick": [
        Shape(2, 1031, 64),
        Shape(3, 250, 37, 7),
    ],
    # Width, window and length one at a time, around a sequence of two full levels of 100.
    "standard": [
        *(Shape(4, 10000, P) for P in (64, 128, 256)),
        *(Shape(4, 10000, 64, F) for F in (2, 10, 32)),
        *(Shape(1, T, 64) for T in (100, 316, 1000, 3162, 10000)),
        Shape(3, 1021, 80, 30),
    ],
    "full": [
        *(Shape(32, 10000, P) for P in (32, 64, 128, 256)),
        *(Shape(32, 10000, 128, F) for F in (2, 4, 10, 16, 32, 64, 128, 1000)),
        *(Shape(1, T, 128) for T in (100, 1000, 10000, 100000, 1000000)),
        *(Shape(B, 10000, 128) for B in (1, 4, 16, 64, 256)),
        Shape(8, 10000, 80),
    ],
}
# Exact powers of F and their neighbours, single vectors, windows longer than the sequence, and every width of a tile.
ODD = [
    Shape(1, 1, 1),
    Shape(2, 64, 32, 2),
    Shape(3, 101, 16, 10),
    Shape(1, 100, 128, 10),
    Shape(2, 37, 80, 64),
    Shape(1, 160, 256, 150),
    Shape(1, 1031, 64),
]
ODD_LONG = [Shape(B, T, P, F) for B, T in ((1, 1), (2, 65), (1, 331)) for P in (1, 32, 80, 256) for F in (2, 33, 100)]


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors: V keeps the variance of a vector, and q gives scores a variance of about one."""
    source = generator(device, seed)
    scale = shape.P**-0.5
    return {
        "x": normal((shape.B, shape.T, shape.P), dtype, device, source),
        "V": normal((shape.levels, shape.P, shape.P), dtype, device, source, scale=scale),
        "b": normal((shape.levels, shape.P), dtype, device, source, scale=0.5),
        "q": normal((shape.levels, shape.P), dtype, device, source, scale=1.5 * scale),
    }


def check(shape: Shape, **tensors: Any) -> None:
    """Refuse tensors whose sizes, dtypes or devices do not fit the shape and each other; raises ValueError."""
    sizes = {
        "x": (shape.B, shape.T, shape.P),
        "V": (shape.levels, shape.P, shape.P),
        "b": (shape.levels, shape.P),
        "q": (shape.levels, shape.P),
    }
    check_tensors(shape, tensors, sizes)


def _average(scores: Tensor, x: Tensor) -> Tensor:
    """Average windows x (B, n, F, P) by the softmax of their scores (B, n, F); returns (B, n, P)."""
    return (scores.softmax(-1).unsqueeze(-2) @ x).squeeze(-2)


def reference(shape: Shape, x, V, b, q) -> tuple[Tensor, ...]:
    """Compute every level in plain PyTorch, in the dtype of the tensors: the full windows, then the one left over."""
    check(shape, x=x, V=V, b=b, q=q)
    contexts = []
    for level in range(shape.levels):
        hidden = torch.tanh(x @ V[level].t() + b[level])
        scores = (hidden @ q[level].unsqueeze(-1)).squeeze(-1)
        full = x.shape[1] // shape.F
        parts = [(0, full, shape.F), (full * shape.F, 1, x.shape[1] - full * shape.F)]
        windows = [
            _average(
                scores[:, first : first + count * length].reshape(shape.B, count, length),
                x[:, first : first + count * length].reshape(shape.B, count, length, shape.P),
            )
            for first, count, length in parts
            if count * length
        ]
        x = torch.cat(windows, dim=1)
        contexts.append(x)
    return tuple(contexts)


def _run_torch(shape: Shape, x, V, b, q) -> tuple[Tensor, ...]:
    """Per level one product with the bias in it, one softmax over padded scores, and batched averages.

    Only the scores are padded: padding the vectors too would copy all of them to fill one window.
    """
    check(shape, x=x, V=V, b=b, q=q)
    contexts = []
    for level, (below, above) in enumerate(zip(shape.lengths, shape.lengths[1:])):
        scores = torch.tanh(functional.linear(x, V[level], b[level])) @ q[level]
        length = min(shape.F, below)
        scores = functional.pad(scores, (0, above * length - below), value=-math.inf)
        weights = scores.view(shape.B, above, length).softmax(-1)
        full = below // length
        rest = below - full * length
        inner = weights[:, :full].reshape(-1, 1, length) @ x[:, : full * length].reshape(-1, length, shape.P)
        parts = [inner.view(shape.B, full, shape.P)]
        if rest:
            parts.append(weights[:, full:, :rest] @ x[:, full * length :])
        x = torch.cat(parts, dim=1) if rest else parts[0]
        contexts.append(x)
    return tuple(contexts)


def _run_triton(shape: Shape, x, V, b, q) -> tuple[Tensor, ...]:
    """One launch per level."""
    check(shape, x=x, V=V, b=b, q=q)
    return hierarchy(shape.lengths, shape.F, False, x, V, b, q)


def _run_tree(shape: Shape, x, V, b, q) -> tuple[Tensor, ...]:
    """All levels in one launch."""
    check(shape, x=x, V=V, b=b, q=q)
    return hierarchy(shape.lengths, shape.F, True, x, V, b, q)


def _vectors(shape: Shape) -> tuple[int, int, int]:
    """Vectors that all levels read, contexts that they write, and those contexts that another level reads."""
    below, above = sum(shape.lengths[:-1]), sum(shape.lengths[1:])
    return shape.B * below, shape.B * above, shape.B * (below - shape.T)


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    vectors, windows, _ = _vectors(shape)
    return (
        *terms(
            "matmul_flops",
            ("affine", 2 * vectors * shape.P * shape.P, "V x: P dot products of length P per vector of every level"),
            ("scores", 2 * vectors * shape.P, "q . u: a dot product of length P per vector"),
            ("average", 2 * vectors * shape.P, "weights times x: P multiply-adds per vector"),
        ),
        *terms(
            "pointwise_flops",
            ("bias", vectors * shape.P, "one addition per number"),
            ("softmax", 3 * vectors, "maximum, difference to it and sum, one each per vector"),
            ("normalise", windows * shape.P, "the average divided by the sum of its weights"),
        ),
        *terms(
            "special_ops",
            ("tanh", vectors * shape.P, "u, one per number"),
            ("exponentials", vectors, "one per vector"),
        ),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    vectors, windows, inner = _vectors(shape)
    return (
        *terms(
            "matmul_flops",
            ("dx through V", 2 * vectors * shape.P * shape.P, "gradients of V x + b times V"),
            ("dV", 2 * vectors * shape.P * shape.P, "the same gradients times x, summed over vectors"),
            ("dweights", 2 * vectors * shape.P, "dc . x: a dot product of length P per vector"),
            ("dx through the average", 2 * vectors * shape.P, "weight times dc, added to dx"),
            ("dq", 2 * vectors * shape.P, "dscores times u, summed over vectors"),
            ("du", 2 * vectors * shape.P, "dscores times q"),
        ),
        *terms(
            "pointwise_flops",
            ("window sums", 2 * windows * shape.P, "dc times c, summed over P: the share of the normalisation"),
            ("weights again", vectors, "scores minus the saved logarithm of their window's sum"),
            ("dscores", 2 * vectors, "weights (dweights - window sum)"),
            ("dtanh", 3 * vectors * shape.P, "du (1 - u^2)"),
            ("db", max(0, vectors - shape.levels) * shape.P, "gradients summed over the vectors of a level"),
            ("dc", inner * shape.P, "the gradient given for a context, added to that from the level above"),
        ),
        *terms("special_ops", ("exponentials again", vectors, "one per vector")),
    )


# Per direction, what an implementation must read and write.
_TRAFFIC = {
    "forward": (("x", "V", "b", "q"), ("contexts",)),
    "backward": (("x", "V", "b", "q", "contexts", "saved", "dcontexts"), ("dx", "dV", "db", "dq")),
    "both": (("x", "V", "b", "q", "dcontexts"), ("contexts", "dx", "dV", "db", "dq")),
}


def _bytes_by_tensor(shape: Shape, element_bytes: int) -> dict[str, int]:
    vectors, windows, _ = _vectors(shape)
    elements = {
        "x": shape.B * shape.T * shape.P,
        "V": shape.levels * shape.P * shape.P,
        "b": shape.levels * shape.P,
        "q": shape.levels * shape.P,
        "contexts": windows * shape.P,
    }
    sizes = {name: element_bytes * count for name, count in elements.items()}
    # A score per vector and the logarithm of a sum per window, never in less than float32.
    saved = max(element_bytes, 4) * (vectors + windows)
    return sizes | {f"d{name}": size for name, size in sizes.items()} | {"saved": saved}


def _streamed(shape: Shape, direction: str, element_bytes: int, sizes: dict[str, int]) -> tuple[Term, ...]:
    """Bytes beyond the compulsory ones: what one level leaves in memory for the next."""
    inner = element_bytes * _vectors(shape)[2] * shape.P
    lines = {
        "forward": (("contexts again", inner, "the contexts of a level are read by the level above"),),
        "backward": (("dcontexts again", 2 * inner, "written by the level above, and read by the level below"),),
    }
    if direction == "both":
        return terms("streamed_bytes", *lines["forward"], *lines["backward"])
    once = sum(sizes[name] for names in _TRAFFIC[direction] for name in names)
    return terms("streamed_bytes", ("tensors", once, "each is read or written once"), *lines[direction])


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one hierarchy, of its gradients, or of both.

    Beside its inputs and the contexts the backward pass has scores and logarithms (`saved_bytes`). The u of every
    number is kept by some implementations and computed again by others, the Triton rows among them; neither is counted.
    """
    element_bytes = ELEMENT_BYTES[dtype]
    sizes = _bytes_by_tensor(shape, element_bytes)
    done = operations(direction, _operations_forward(shape), _operations_backward(shape))
    moved = traffic(
        _TRAFFIC,
        sizes,
        direction,
        "saved",
        "and writes scores and logarithms for the backward pass",
        "which reads them, the inputs and the contexts again",
    )
    weight_bytes = sizes["V"] + sizes["b"] + sizes["q"]
    return Work(
        terms=(
            *done,
            *moved,
            *_streamed(shape, direction, element_bytes, sizes),
        ),
        depth=shape.levels * (2 if direction == "both" else 1),  # up, and in a training step down again
        weight_bytes=weight_bytes,
        # What the level above reads at most: the contexts of the lowest level.
        state_bytes=element_bytes * shape.B * shape.lengths[1] * shape.P if shape.levels > 1 else 0,
        saved_bytes=sizes["saved"],
        parameters=weight_bytes // element_bytes,
        tokens=shape.B * shape.T,
    )


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


def _why_not_compile(shape: Shape, dtype: str, device: str) -> str | None:
    return why_no_compiler(shape, dtype, device) or _why_not_torch(shape, dtype, device)


def _why_not_triton(shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64" and not interpreted():
        return "the Triton kernels accumulate in float32; float64 is for the reference"
    if shape.P > WIDEST:
        return f"the Triton kernels take vectors of up to {WIDEST} numbers, not P={shape.P}"
    return why_no_triton(device) or tf32_on_cpu(dtype, device)


COMPILE = compile_cases()

# Launches as far as known; per level eagerly: the product, bias and tanh, the scores, then softmax and product of the
# full windows and of the one left over, and their concatenation.
IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        launches=lambda shape, dtype, device: 9 * shape.levels,
        supports=_why_not_torch,
        grad=True,
    ),
    "torch": Implementation(
        _run_torch,
        launches=lambda shape, dtype, device: 8 * shape.levels,
        supports=_why_not_torch,
        grad=True,
    ),
    "compile": Implementation(
        run_compiled(reference),
        launches=lambda shape, dtype, device: 4 * shape.levels,
        supports=_why_not_compile,
        grad=True,
    ),
    "triton": Implementation(
        _run_triton,
        launches=lambda shape, dtype, device: shape.levels,
        supports=_why_not_triton,
        grad=True,
    ),
    # The last program of a window goes on with its parent, without a barrier of the whole grid.
    # Beside the tree, the zeros of its counters.
    "triton_tree": Implementation(_run_tree, chain="inside", launches=2, supports=_why_not_triton, grad=True),
}
