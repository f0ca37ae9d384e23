"""What the recurrent kernels lstm, gru and rnn share in PyTorch: sizes, inputs, dilation, and the reference.

B batch, T time steps, I input size, H hidden size, L layers, D directions, d dilation, G gates, R biases of a cell.

x               (T, B, I)
h_0, c_0        (L D, d B, H)        row j B + b is sequence b in phase j; a step t has the phase t mod d
weight_ih       (D, G H, I)          first layer
weight_ih_upper (L - 1, D, G H, D H) the other layers, only if L > 1
weight_hh       (L, D, G H, H)
bias            (L, D, R H)          the two biases of torch summed, except the state's bias of gru's new gate
lengths         (B,) int64           only if ragged
-> y (T, B, D H), h_n and c_n as h_0 and c_0.

The semantics are those of torch.nn with time first. A row that is shorter than T has y = 0 after its end, its last
state is that of its last step, and its reverse direction begins there. With dilation d, h_t depends on h_{t-d}: the
steps of one phase form a sequence of their own, so a dilated layer is a plain layer over d B sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._torch import check_tensors, generator, normal, spread_lengths

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a recurrent layer or stack: L layers of H units in D directions over B sequences of T steps of I values.

    dilation : h_t depends on h_{t - dilation}.
    ragged : 1 when the rows have different lengths, those of `lengths_of`.
    """

    B: int
    T: int
    I: int
    H: int
    L: int = 1
    D: int = 1
    dilation: int = 1
    ragged: int = 0

    def __post_init__(self) -> None:
        if self.T < 1:
            raise ValueError(f"T must be at least 1, not {self.T}: a sequence without steps has no last state")
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("I", "H", "L", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.D not in (1, 2):
            raise ValueError(f"D must be 1 (forward) or 2 (both directions), not {self.D}")
        if self.ragged not in (0, 1):
            raise ValueError(f"ragged must be 0 (all rows have T steps) or 1, not {self.ragged}")

    @property
    def folded_steps(self) -> int:
        """Steps of the longest phase: those that wait for one another in one layer."""
        return -(-self.T // self.dilation)

    @property
    def folded_rows(self) -> int:
        """Sequences after folding: every phase of every row."""
        return self.dilation * self.B


def suites(shape: type[Shape]) -> dict[str, list[Any]]:
    """The suites `standard` and `full` of a recurrent kernel, in its own class of shapes."""
    return {
        "standard": [
            # Time grows with T, then time per step settles; the batch is free until its work exceeds that of one step.
            *(shape(1, T, 256, 256) for T in (16, 32, 64, 128, 256, 512, 1024)),
            *(shape(B, 64, 512, 512) for B in (1, 2, 4, 8, 16, 32, 64)),
            shape(16, 64, 256, 256, ragged=1),
            shape(4, 256, 128, 128, dilation=4),
            shape(4, 64, 256, 256, L=2),
            shape(4, 64, 256, 256, D=2),
        ],
        "full": [
            *(shape(B, 1024, H, H) for H in (256, 512, 768, 1024, 1536) for B in (1, 16, 64)),
            # A dilated layer as in forecasting of monthly series, a stack, and one with both directions.
            shape(64, 72, 40, 50, dilation=12),
            shape(16, 256, 512, 512, L=4),
            shape(16, 256, 512, 512, D=2),
            shape(64, 256, 512, 512, ragged=1),
        ],
    }


# B, T, I, H, L, D, dilation, ragged: every extreme of B 1 to 65, T 1 to 130, H 17 to 257, L 1 to 3 and D 1 to 2 once,
# small enough for Triton's interpreter; rows that are shorter than the dilation, and sizes of whole tiles.
ODD_SIZES = [
    (1, 130, 17, 17),
    (65, 5, 33, 24),
    (3, 2, 64, 257),
    (2, 1, 5, 32),
    (4, 9, 20, 18, 3),
    (3, 7, 19, 40, 1, 2),
    (2, 6, 37, 21, 2, 2),
    (5, 11, 13, 20, 1, 1, 3),
    (4, 12, 16, 32, 1, 1, 1, 1),
    (3, 10, 7, 19, 2, 2, 3, 1),
    (2, 2, 9, 33, 1, 1, 3),
    (16, 4, 128, 128),
]
# The full product of the extremes; few steps where batch and hidden size are both large.
LONG_SIZES = [
    (B, min(T, 9) if (B, H) == (65, 257) else T, 33, H, L, D)
    for B in (1, 65)
    for T in (1, 130)
    for H in (17, 257)
    for L in (1, 3)
    for D in (1, 2)
]


@dataclass(frozen=True)
class Cell:
    """What tells one recurrent cell from another.

    name : that of torch._VF: lstm, gru, rnn_tanh or rnn_relu.
    gates : G, affine transformations of the input, H rows each.
    biases : R, biases of H values each.
    states : 1 for h, 2 for h and c.
    update : `update(gx, gh, h, c) -> (h, c)`. gx (..., G H) is the input product with its bias, gh (..., G H) the state
        product, with gru's bias of the state added to its last gate; c is None in cells with one state.
    module : the class in torch.nn.
    """

    name: str
    gates: int
    biases: int
    states: int
    update: Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]
    module: Any


def lengths_of(shape: Shape) -> tuple[int, ...]:
    """Steps of every row: T for all, or, when ragged, evenly from T down to T/B in a fixed order that is not sorted."""
    return spread_lengths(shape.T, shape.B) if shape.ragged else (shape.T,) * shape.B


def padding_waste(shape: Shape) -> float:
    """Share of the B T steps that lie after the end of their row, 0 without padding."""
    steps = shape.B * shape.T
    return 1 - sum(lengths_of(shape)) / steps if steps else 0.0


def sizes_of(cell: Cell, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Size of every input tensor by name, in the order of the contract."""
    rows = cell.gates * shape.H
    state = (shape.L * shape.D, shape.folded_rows, shape.H)
    sizes: dict[str, tuple[int, ...]] = {"x": (shape.T, shape.B, shape.I), "h_0": state}
    if cell.states == 2:
        sizes["c_0"] = state
    sizes["weight_ih"] = (shape.D, rows, shape.I)
    if shape.L > 1:
        sizes["weight_ih_upper"] = (shape.L - 1, shape.D, rows, shape.D * shape.H)
    sizes["weight_hh"] = (shape.L, shape.D, rows, shape.H)
    sizes["bias"] = (shape.L, shape.D, cell.biases * shape.H)
    if shape.ragged:
        sizes["lengths"] = (shape.B,)
    return sizes


def inputs(cell: Cell, shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps the gates away from saturation."""
    source = generator(device, seed)
    scales = {
        "x": 1.0,
        "weight_ih": (shape.I + shape.H) ** -0.5,
        "weight_ih_upper": (shape.D * shape.H + shape.H) ** -0.5,
        "weight_hh": (shape.I + shape.H) ** -0.5,
    }
    drawn = {
        # States and biases are about as large as the products that they are added to.
        name: normal(size, dtype, device, source, scales.get(name, 0.5))
        for name, size in sizes_of(cell, shape).items()
        if name != "lengths"
    }
    if shape.ragged:
        drawn["lengths"] = torch.tensor(lengths_of(shape), dtype=torch.int64, device=device)
    return drawn


def fold(shape: Shape, x: Tensor) -> Tensor:
    """Turn x (T, B, I) into (T/d, d B, I), with zeros after its end where d does not divide T."""
    if shape.dilation == 1:
        return x
    missing = shape.folded_steps * shape.dilation - shape.T
    padded = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
    return padded.reshape(shape.folded_steps, shape.folded_rows, x.shape[2])


def unfold(shape: Shape, y: Tensor) -> Tensor:
    """Undo `fold`: (T/d, d B, C) becomes (T, B, C). A cut that takes all would copy its gradient."""
    if shape.dilation == 1:
        return y
    padded = y.reshape(shape.folded_steps * shape.dilation, shape.B, y.shape[2])
    return padded if len(padded) == shape.T else padded[: shape.T]


def folded_lengths(shape: Shape, lengths: Tensor | None, device: Any) -> Tensor | None:
    """Steps of every folded row (d B), or None where all have the same number.

    A phase that begins after the end of its row has none.
    """
    if lengths is None:
        if shape.T % shape.dilation == 0:
            return None
        lengths = torch.full((shape.B,), shape.T, device=device)
    phase = torch.arange(shape.dilation, device=device)[:, None]
    return ((lengths - phase + shape.dilation - 1) // shape.dilation).reshape(-1)


def check(cell: Cell, shape: Shape, tensors: dict[str, Tensor | None]) -> None:
    """Refuse tensors that do not fit the shape or each other; raises ValueError. Initial states may be None: zeros.

    Lengths are looked at on the CPU only, for elsewhere that would stop the queue, and not while torch.compile traces.
    """
    sizes = sizes_of(cell, shape)
    for name in ("h_0", "c_0"):
        if tensors.get(name) is None:
            sizes.pop(name, None)
    check_tensors(shape, tensors, sizes)
    lengths = tensors.get("lengths")
    if lengths is None:
        return
    if lengths.dtype != torch.int64:
        raise ValueError(f"lengths has the dtype {lengths.dtype}; torch.int64 was expected.")
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return
    if not bool(((lengths >= 1) & (lengths <= shape.T)).all()):
        raise ValueError(f"lengths must lie between 1 and T={shape.T}; found {lengths.min()} to {lengths.max()}.")


def reference(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    """Compute the stack step by step in plain PyTorch, in the dtype of the tensors; returns y, h_n and perhaps c_n.

    Every step multiplies its input and the state, so that both weights are read again at every step.
    """
    check(cell, shape, tensors)
    x = fold(shape, tensors["x"])
    lengths = folded_lengths(shape, tensors.get("lengths"), x.device)
    valid = None if lengths is None else (torch.arange(len(x), device=x.device)[:, None] < lengths)[..., None]
    # What lies after the end of a row must not reach its gradients, not even as 0 times infinity.
    x = x if valid is None else torch.where(valid, x, 0)
    weights = weights_of(cell, shape, tensors)
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(shape.L):
        ahead = []
        for direction in range(shape.D):
            chain = layer * shape.D + direction
            given = [tensors.get(name) for name in ("h_0", "c_0")[: cell.states]]
            states = [x.new_zeros(shape.folded_rows, shape.H) if start is None else start[chain] for start in given]
            y, last = _layer(cell, weights[chain], states, x, valid, backwards=direction == 1)
            ahead.append(y)
            finals.append(last)
        x = torch.cat(ahead, dim=2)
    return unfold(shape, x), *(torch.stack(state) for state in zip(*finals))


# Weights of one layer in one direction: weight_ih, weight_hh, the bias of the input and that of the state.
Weights = tuple[Tensor, Tensor, Tensor, Tensor | None]


def _layer(
    cell: Cell, weights: Weights, states: list[Tensor], x: Tensor, valid: Tensor | None, backwards: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one layer in one direction over x (T/d, d B, inputs); returns y and the states after the last step."""
    weight_ih, weight_hh, input_bias, state_bias = weights
    h, c = states if cell.states == 2 else (states[0], None)
    outputs: list[Tensor] = [h] * len(x)
    for t in reversed(range(len(x))) if backwards else range(len(x)):
        gx = F.linear(x[t], weight_ih, input_bias)
        new_h, new_c = cell.update(gx, F.linear(h, weight_hh, state_bias), h, c)
        if valid is None:
            h, c, outputs[t] = new_h, new_c, new_h
        else:
            outputs[t] = torch.where(valid[t], new_h, 0)
            h = torch.where(valid[t], new_h, h)
            c = None if c is None else torch.where(valid[t], new_c, c)
    return torch.stack(outputs), (h,) if c is None else (h, c)


def weights_of(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Weights]:
    """The weights of every direction of every layer, as views whose gradients make one tensor per stack.

    Only gru has a bias of the state, in its last gate; it is filled up with zeros to all gates.
    """
    weight_ih = _each(tensors["weight_ih"], 1)
    if shape.L > 1:
        weight_ih += _each(tensors["weight_ih_upper"], 2)
    bias, rows = tensors["bias"], cell.gates * shape.H
    state_bias: list[Tensor | None] = [None] * (shape.L * shape.D)
    if cell.biases > cell.gates:
        bias, of_state = bias.split([rows, bias.shape[2] - rows], dim=2)
        state_bias = [*_each(F.pad(of_state, (rows - of_state.shape[2], 0)), 2)]
    return list(zip(weight_ih, _each(tensors["weight_hh"], 2), _each(bias, 2), state_bias, strict=True))


def _each(stack: Tensor, axes: int) -> list[Tensor]:
    """What is stacked along the first axes, without a gradient of the whole stack for each; a single one is a view."""
    if stack.shape[:axes].numel() == 1:
        return [stack.view(stack.shape[axes:])]
    return list(stack.flatten(0, axes - 1).unbind(0))


def spot(shape: Shape, tensors: Tensors, seed: int) -> list[Any]:
    """Pick random rows and the last one: rows are independent, so theirs is a smaller problem.

    Returns shape and inputs of the part, what to take out of the outputs of the whole problem, and out of the part's.
    """
    rows = torch.randperm(shape.B, generator=generator("cpu", seed))[: min(shape.B, 16)]
    rows[-1:] = shape.B - 1

    def of_state(state: Tensor) -> Tensor:
        return state.unflatten(1, (shape.dilation, shape.B))[:, :, rows].flatten(1, 2)

    take = {"x": lambda x: x[:, rows], "h_0": of_state, "c_0": of_state, "lengths": lambda lengths: lengths[rows]}
    part = {name: take[name](tensor) if name in take else tensor for name, tensor in tensors.items()}
    smaller = replace(shape, B=len(rows))
    return [
        (smaller, part, lambda outputs: (outputs[0][:, rows], *map(of_state, outputs[1:])), lambda outputs: outputs)
    ]
