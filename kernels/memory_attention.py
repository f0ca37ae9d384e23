"""w = sharpen(shift(interpolate(softmax(beta cos(key, m_i))))), r = sum w_i m_i, m_i <- m_i (1 - w_i erase) + w_i add

The addressed memory of a neural Turing machine: at every step one head compares its key with all rows of a memory,
turns the likeness into weights, reads the weighted sum of the rows and writes to them with the same weights.

B batch, T time steps, M rows of P values; C = 3P + 6 control values.
memory (B, M, P), weights (B, M), controls (T, B, C) -> r (T, B, P), memory (B, M, P), weights (B, M), the last two as
the last step leaves them. A step takes, in this order,

  key (P)         as it is, compared by cos(k, m) = k . m / (max(|k|, eps) max(|m|, eps)) with eps = 1e-6
  erase (P)       sigmoid: the share of a row that is forgotten where the weight is one
  add (P)         tanh
  strength (1)    beta = softplus: content weights c_i = softmax over i of beta cos(k, m_i)
  gate (1)        g = sigmoid: v = g c + (1 - g) w, with the weights w of the step before
  shift (3)       s = softmax, for -1, 0, +1: u_i = s_-1 v_{i+1} + s_0 v_i + s_+1 v_{i-1}, rows in a circle
  sharpening (1)  gamma = 1 + softplus: w_i = u_i^gamma / sum over j of u_j^gamma

The read comes before the write. Initial weights are not negative and do not all vanish; those of `inputs` sum to one.

Source: Graves, Wayne and Danihelka, Neural Turing Machines, arXiv 1410.5401, 2014.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import Implementation
from ..roofline.work import Term, Work, terms
from ._cost import operations
from ._memory_launch import COMPILE, EPSILON, Call, run, tile_for
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

__all__ = ["COMPILE", "IMPLEMENTATIONS", "ODD", "ODD_LONG", "SHAPES", "Shape", "inputs", "reference", "spot", "work"]

SHIFTS = 3  # -1, 0 and +1 row
# Values of a step besides key, erase and add: strength, gate, shifts, sharpening.
_SCALARS = SHIFTS + 3
# Means of the drawn strengths and sharpening values. Powers are then 1.02 to 1.7: with 1.2 to 2.9, as around zero, a
# rounding grows several hundredfold in some chains of 32 steps, and two right implementations differ by any factor.
# Keys find some rows rather than others, and what is written there is as large as what is, so that it shows in 16 bits.
_STRONG, _MILD, _MEMORY = 4.0, -2.0, 0.5


@dataclass(frozen=True)
class Shape:
    """Sizes: B memories of M rows of P values, T steps."""

    B: int
    T: int
    M: int
    P: int

    def __post_init__(self) -> None:
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        if self.T < 1:
            raise ValueError(f"T must be at least 1, not {self.T}: without a step nothing is read")
        for name in ("M", "P"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def controls(self) -> int:
        """Control values of one step and batch row."""
        return 3 * self.P + _SCALARS


SHAPES = {
    "quick": [Shape(2, 2, 37, 20), Shape(4, 16, 128, 64)],
    # Time grows with T; the batch is free until it fills the machine; then a memory too large for one program.
    "standard": [
        *(Shape(1, T, 128, 64) for T in (16, 64, 256)),
        *(Shape(B, 64, 128, 64) for B in (4, 16, 64)),
        Shape(16, 64, 128, 20),
        Shape(16, 8, 128, 64),
        *(Shape(B, 32, 1024, 64) for B in (1, 8)),
    ],
    "full": [
        *(Shape(B, 256, M, 64) for M in (128, 256, 1024, 2048) for B in (1, 16, 132)),
        *(Shape(132, 128, 128, P) for P in (16, 32, 128)),
        Shape(1056, 64, 128, 64),
        Shape(528, 64, 1000, 60),
    ],
}
# Every extreme of T 1 to 64, M 1 to 257, P 1 to 80 and B 1 to 3, and rows whose neighbours on both sides are the same
# or themselves. The step row's gradients of a longer chain are left to the long run.
ODD = [
    Shape(1, 64, 3, 1),
    Shape(3, 2, 1, 32),
    Shape(2, 3, 2, 5),
    Shape(2, 4, 257, 7),
    Shape(1, 3, 40, 80),
    Shape(2, 5, 65, 64),
    Shape(1, 1, 128, 33),
]
ODD_LONG = [
    *(Shape(B, T, M, P) for B in (1, 3) for T in (1, 9) for M in (1, 3, 64, 257) for P in (1, 32, 64)),
    Shape(2, 130, 5, 4),
    Shape(1, 2, 1025, 32),
    Shape(1, 2, 130, 128),
]


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Size of every input by name."""
    return {
        "memory": (shape.B, shape.M, shape.P),
        "weights": (shape.B, shape.M),
        "controls": (shape.T, shape.B, shape.controls),
    }


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. The initial weights are a softmax, so that they sum to one; keys prefer some rows."""
    source = generator(device, seed)
    drawn = {name: normal(size, "fp32", device, source) for name, size in sizes_of(shape).items()}
    drawn["memory"] *= _MEMORY
    drawn["controls"][..., -_SCALARS] += _STRONG
    drawn["controls"][..., -1] += _MILD
    drawn["weights"] = torch.softmax(drawn["weights"], dim=1)
    kind = normal((0,), dtype, device, source).dtype
    return {name: tensor.to(kind) for name, tensor in drawn.items()}


SENSITIVE = True  # where it is written depends on what was written: sharpening amplifies a rounding step after step


def check(shape: Shape, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that do not fit the shape, or each other; raises ValueError."""
    check_tensors(shape, tensors, sizes_of(shape))


def reference(shape: Shape, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute all steps in plain PyTorch, in the dtype of the tensors; returns r, memory and weights.

    The largest weight is divided out before the power, so that no power of all weights underflows; it cancels.
    """
    check(shape, {"memory": memory, "weights": weights, "controls": controls})
    reads = []
    for control in controls:
        key, erase, add, strength, gate, shift, sharpening = control.split((*[shape.P] * 3, 1, 1, SHIFTS, 1), dim=1)
        unit = key / torch.linalg.vector_norm(key, dim=1, keepdim=True).clamp(min=EPSILON)
        norm = torch.linalg.vector_norm(memory, dim=2).clamp(min=EPSILON)
        cosine = torch.bmm(memory, unit[:, :, None])[:, :, 0] / norm
        content = torch.softmax(F.softplus(strength) * cosine, dim=1)
        gate = torch.sigmoid(gate)
        mixed = gate * content + (1 - gate) * weights
        shift = torch.softmax(shift, dim=1)
        turned = reduce(torch.add, (shift[:, i : i + 1] * torch.roll(mixed, i - 1, dims=1) for i in range(SHIFTS)))
        powered = (turned / turned.amax(1, keepdim=True).detach()) ** (1 + F.softplus(sharpening))
        weights = powered / powered.sum(1, keepdim=True)
        reads.append(torch.bmm(weights[:, None], memory)[:, 0])
        share = weights[:, :, None]
        memory = memory * (1 - share * torch.sigmoid(erase)[:, None]) + share * torch.tanh(add)[:, None]
    return torch.stack(reads), memory, weights


def _run_torch(shape: Shape, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do what no memory is needed for at once for all steps, and the rest with as few passes as operators allow."""
    check(shape, {"memory": memory, "weights": weights, "controls": controls})
    key, erase, add, strength, gate, shift, sharpening = controls.split((*[shape.P] * 3, 1, 1, SHIFTS, 1), dim=2)
    unit = F.normalize(key, dim=2, eps=EPSILON)[..., None]
    erase, add, gate = torch.sigmoid(erase)[:, :, None], torch.tanh(add)[:, :, None], torch.sigmoid(gate)
    strength, power = F.softplus(strength), 1 + F.softplus(sharpening)
    # Row i takes s_+1 from the row before it and s_-1 from the one after.
    shift = torch.softmax(shift, dim=2).flip(2)[..., None]
    reads = []
    for t in range(shape.T):
        cosine = torch.bmm(memory, unit[t])[:, :, 0] / torch.linalg.vector_norm(memory, dim=2).clamp(min=EPSILON)
        mixed = torch.lerp(weights, torch.softmax(strength[t] * cosine, dim=1), gate[t])
        circle = torch.cat((mixed[:, -1:], mixed, mixed[:, :1]), dim=1)
        turned = torch.bmm(circle.unfold(1, SHIFTS, 1), shift[t])[:, :, 0]
        powered = (turned / turned.amax(1, keepdim=True).detach()) ** power[t]
        weights = powered / powered.sum(1, keepdim=True)
        reads.append(torch.bmm(weights[:, None], memory)[:, 0])
        memory = torch.addcmul(memory, weights[:, :, None], add[t] - erase[t] * memory)
    return torch.stack(reads), memory, weights


def spot(shape: Shape, tensors: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick random batch rows and the last one: their memories are independent, so theirs is a smaller problem.

    Returns shape and inputs of the part, what to take out of the outputs of the whole problem, and out of the part's.
    """
    # Four memories of the largest size in `full` are half a million values, 4 MB in float64.
    rows = torch.randperm(shape.B, generator=generator("cpu", seed))[: min(shape.B, 4)]
    rows[-1:] = shape.B - 1
    part = {name: tensor[:, rows] if name == "controls" else tensor[rows] for name, tensor in tensors.items()}
    return [
        (
            replace(shape, B=len(rows)),
            part,
            lambda outputs: (outputs[0][:, rows], outputs[1][rows], outputs[2][rows]),
            lambda outputs: outputs,
        )
    ]


def _operations_forward(shape: Shape) -> tuple[Term, ...]:
    """Count a softmax as four operations per value: maximum, difference, sum and division."""
    steps = shape.T * shape.B
    rows, columns, cells = steps * shape.M, steps * shape.P, steps * shape.M * shape.P
    return (
        *terms(
            "matmul_flops",
            ("similarity", 2 * cells, "the dot product of the key with every row"),
            ("read", 2 * cells, "the weighted sum of the rows"),
        ),
        *terms(
            "pointwise_flops",
            ("norms of the rows", 2 * cells, "squares and their sum: the write of every step changes them"),
            ("write", 5 * cells, "m (1 - w erase) + w add"),
            ("cosine", 2 * rows, "norm at least eps, and the division by it"),
            ("content weights", 5 * rows, "strength times cosine, softmax"),
            ("interpolation", 3 * rows, "w + g (c - w)"),
            ("shift", 5 * rows, "three products and two sums"),
            ("sharpening", 5 * rows, "gamma times the logarithm, softmax of that"),
            ("key", 3 * columns, "its squares, their sum, and the division by the norm"),
            ("controls", 16 * steps, "key's norm at least eps, softplus 1, 1 + softplus 2, softmax of 3 shifts 12"),
        ),
        *terms(
            "special_ops",
            ("norms of the rows", rows, "a root each"),
            ("content weights", rows, "an exponential each"),
            ("sharpening", 2 * rows, "a logarithm and an exponential each"),
            ("erase and add", 2 * columns, "sigmoid and tanh"),
            ("controls", 9 * steps, "key's root, two softplus of 2, gate, three exponentials of the shift"),
        ),
    )


def _operations_backward(shape: Shape) -> tuple[Term, ...]:
    """Count what is left to do with the memories, weights and cosines of all steps at hand."""
    steps = shape.T * shape.B
    rows, columns, cells = steps * shape.M, steps * shape.P, steps * shape.M * shape.P
    return (
        *terms(
            "matmul_flops",
            ("dw of the read", 2 * cells, "every row times dr"),
            ("dmemory of the read", 2 * cells, "weights times dr"),
            ("dmemory of the similarity", 2 * cells, "gradients of the cosines times the key"),
            ("dkey", 2 * cells, "gradients of the cosines times the rows"),
        ),
        *terms(
            "pointwise_flops",
            ("norms again", 2 * cells, "squares and their sum"),
            ("dw of the write", 4 * cells, "dm' (add - erase m), summed over a row"),
            ("dadd", 2 * cells, "w dm', summed over the rows"),
            ("derase", 2 * cells, "w dm' m, summed over the rows"),
            ("dmemory of the write", 3 * cells, "dm' (1 - w erase)"),
            ("dmemory of the norm", 2 * cells, "m times the share of its norm, added"),
            ("addressing again", 14 * rows, "norm at least eps 1, content 5, interpolation 3, shift 5"),
            ("dw", 2 * rows, "sum of what comes from read, write and the later step"),
            ("sharpening", 8 * rows, "dz = w (dw - sum w dw) 4, dgamma 2, du = dz gamma / u 2"),
            ("shift", 11 * rows, "the shift the other way 5, gradients of three shifts 6"),
            ("interpolation", 5 * rows, "dgate 3, gradients of the earlier and of the content weights 2"),
            ("content weights", 7 * rows, "softmax 4, dstrength 2, dcosine 1"),
            ("cosine", 5 * rows, "by the norm 1, share of the norm 2, share of the key's norm 2"),
            ("key", 6 * columns, "norm and division again 3, gradient of the division 3"),
            ("erase and add", 6 * columns, "times s (1 - s) and 1 - a^2"),
            ("controls", 34 * steps, "again 16; 1 - g 1, strength 1, sharpening 1, gate 3, shift 12"),
        ),
        *terms(
            "special_ops",
            ("norms again", rows, "a root each"),
            ("addressing again", 2 * rows, "exponential of the content weights, logarithm of the shifted ones"),
            ("erase and add", 2 * columns, "sigmoid and tanh again"),
            ("controls", 11 * steps, "again 9, sigmoids as gradients of two softplus"),
        ),
    )


# What the forward pass leaves: cosines and weights of all steps are sums, kept in float32 (float64 in that dtype).
_SUM_BYTES = {"fp64": 8}


def _sizes(shape: Shape, dtype: str) -> dict[str, int]:
    """Bytes of every tensor by name."""
    rows = shape.B * shape.M
    elements = {
        "memory": rows * shape.P,
        "weights": rows,
        "controls": shape.T * shape.B * shape.controls,
        "r": shape.T * shape.B * shape.P,
        "memories": (shape.T - 1) * rows * shape.P,
    }
    sizes = {name: ELEMENT_BYTES[dtype] * count for name, count in elements.items()}
    return sizes | {"addresses": _SUM_BYTES.get(dtype, 4) * (2 * shape.T + 1) * rows}


_READ = (("memory", "before the first step"), ("weights", "before the first step"), ("controls", "of all steps"))
_WRITTEN = (("r", "of all steps"), ("memory", "after the last step"), ("weights", "after the last step"))
_SAVED = (
    ("memories", "between the steps, left by the forward pass"),
    ("addresses", "weights before and after every step and the cosines, left by the forward pass"),
)


def _compulsory(sizes: dict[str, int], direction: str) -> tuple[Term, ...]:
    """Every tensor once. What the forward pass leaves is no input of a training step, which may compute it again."""

    def lines(names: tuple[tuple[str, str], ...], mark: str = "") -> list[tuple[str, int, str]]:
        return [(mark + name, sizes[name], reason) for name, reason in names]

    given = lines(_READ) + ([] if direction == "forward" else lines(_WRITTEN, "d"))
    given += lines(_SAVED) if direction == "backward" else []
    results = ([] if direction == "backward" else lines(_WRITTEN)) + (
        [] if direction == "forward" else lines(_READ, "d")
    )
    return (*terms("read_bytes", *given), *terms("write_bytes", *results))


def _streamed(shape: Shape, sizes: dict[str, int], direction: str) -> tuple[Term, ...]:
    """Bytes moved when every step finds the memory where it left it: in DRAM or the shared cache."""
    steps = shape.T
    forward = (
        ("memory", 3 * steps * sizes["memory"], "read to address it, read and written with the weights, every step"),
        ("weights", 2 * steps * sizes["weights"], "read and written by every step"),
        ("controls and r", sizes["controls"] + sizes["r"], "read once and written once"),
    )
    backward = (
        ("memory again", 2 * steps * sizes["memory"], "read for the weights' gradients and for its own, every step"),
        ("dmemory", 3 * steps * sizes["memory"], "read twice and written once by every step"),
        ("dweights", 2 * steps * sizes["weights"], "read and written by every step"),
        ("addresses", sizes["addresses"], "weights and cosines of all steps, read once"),
        ("gradients of controls and r", 2 * sizes["controls"] + sizes["r"], "controls and dr read, dcontrols written"),
    )
    saved = (("saved", sizes["memories"] + sizes["addresses"], "written for the backward pass"),)
    return terms(
        "streamed_bytes",
        *{"forward": forward, "backward": backward, "both": (*forward, *saved, *backward)}[direction],
    )


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of all steps, of their gradients, or of both, with every tensor held in `dtype`. No batch costs nothing.

    There are no trained weights: what every step needs again is the memory and its weights (`state_bytes`). The
    backward pass has the memories between the steps, and weights and cosines of all of them (`saved_bytes`).
    """
    done = operations(direction, _operations_forward(shape), _operations_backward(shape))
    sizes = _sizes(shape, dtype)
    state = sizes["memory"] + sizes["weights"]
    passes = 2 if direction == "both" else 1
    return Work(
        terms=(*done, *_compulsory(sizes, direction), *_streamed(shape, sizes, direction)),
        depth=passes * shape.T if shape.B else 1,
        recurrent_bytes=state // max(1, shape.B),  # memories do not meet: one at a time is enough on chip
        state_bytes=state,
        saved_bytes=sizes["memories"] + sizes["addresses"],
        tokens=shape.T * shape.B,
    )


# float16 products of a CPU run at about 1 GFLOP/s: beyond this a call takes longer than a second.
_SLOW_FLOPS = 1e9


def _why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    return why_slow(work(shape, dtype, "forward").matmul_flops, dtype, device)


# An unrolled loop compiles in proportion to its length: on two busy cores one step took 17 s and six took 33 s.
_UNROLLED_STEPS = 8


def _why_no_unrolling(shape: Shape, dtype: str, device: str) -> str | None:
    if shape.T > _UNROLLED_STEPS:
        return (
            f"torch.compile unrolls the loop; sequences of at most {_UNROLLED_STEPS} steps are compiled, not {shape.T}"
        )
    return why_no_compiler(shape, dtype, device)


def _run_triton(resident: bool) -> Callable[..., Any]:
    """Give the `run` of a Triton row; it raises ValueError with a sentence for sizes that it does not take."""

    def compute(shape: Shape, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check(shape, {"memory": memory, "weights": weights, "controls": controls})
        if not shape.B:
            return _nothing(shape, memory, weights, controls)
        tile = tile_for(shape.M, shape.P, resident)
        if isinstance(tile, str):
            raise ValueError(tile + ".")
        save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (memory, weights, controls))
        return run(Call(shape.T, shape.B, shape.M, shape.P, tile, resident, save), memory, weights, controls)

    return compute


def _nothing(shape: Shape, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the results for no batch: empty tensors that depend on all inputs, so that all gradients are zero."""
    nothing = memory.sum() + weights.sum() + controls.sum()
    return memory.new_zeros(shape.T, 0, shape.P) + nothing, memory + nothing, weights + nothing


def _why_not_triton(resident: bool, shape: Shape, dtype: str, device: str) -> str | None:
    if dtype == "fp64" and not interpreted():
        return "the Triton kernels add up in float32; float64 is for the reference"
    refused = why_no_triton(device) or tf32_on_cpu(dtype, device)
    tile = tile_for(shape.M, shape.P, resident)
    return refused or (tile if isinstance(tile, str) else None)


def _launches_around(shape: Shape, dtype: str) -> int:
    """What the Triton rows launch around their steps: conversions of the weights, and rows filled up and cut again.

    Between equal types the weights are copied by the driver, which is no launch.
    """
    return 2 * (dtype in ("fp16", "bf16")) + 3 * (shape.P % 16 > 0)


IMPLEMENTATIONS = {
    "reference": Implementation(
        reference,
        # Operators of a step, and the stacking of what was read.
        launches=lambda shape, dtype, device: 40 * shape.T + 1,
        supports=_why_not_torch,
        grad=True,
    ),
    "torch": Implementation(
        _run_torch,
        # Operators for all steps, and those of every step.
        launches=lambda shape, dtype, device: 12 + 17 * shape.T,
        supports=_why_not_torch,
        grad=True,
    ),
    "compile": Implementation(
        run_compiled(reference),
        # Two products that are not fused, and what lies between them.
        launches=lambda shape, dtype, device: 5 * shape.T,
        supports=_why_no_unrolling,
        grad=True,
    ),
    "triton_step": Implementation(
        _run_triton(resident=False),
        weights="reread",
        chain="launch",
        # Beside the steps the sum of what the parts read, and its conversion and cut.
        launches=lambda shape, dtype, device: (
            2 * shape.T + 1 + (dtype in ("fp16", "bf16")) + (shape.P % 16 > 0) + _launches_around(shape, dtype)
        ),
        supports=partial(_why_not_triton, False),
        depth=lambda shape, dtype, device, direction: (4 if direction == "both" else 2) * shape.T,
        grad=True,
    ),
    "triton_resident": Implementation(
        _run_triton(resident=True),
        weights="kept",
        chain="inside",
        launches=lambda shape, dtype, device: 1 + _launches_around(shape, dtype),
        supports=partial(_why_not_triton, True),
        grad=True,
    ),
}
