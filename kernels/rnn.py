"""h_t = tanh(W_ih x_t + W_hh h_(t-1) + b), or max(0, ...) instead of tanh with relu=1

A stack of plain recurrent layers over whole sequences, in one or both directions.

B batch, T time steps, I input size, H hidden size, L layers, D directions, `dilation` d: h_t depends on h_(t-d).
x (T, B, I), h_0 (L D, d B, H), weight_ih (D, H, I), weight_ih_upper (L-1, D, H, D H) if L > 1,
weight_hh (L, D, H, H), bias (L, D, H), lengths (B) if ragged -> y (T, B, D H), h_n as h_0.
The weights are those of torch.nn.RNN; its two biases are summed into one. Row j B + b of the states is sequence b at
the steps t with t mod d = j.

Source: Elman, Finding Structure in Time, Cognitive Science 14(2), 1990; dilation is that of Chang et al., Dilated
Recurrent Neural Networks, NIPS 2017.
"""

# precision notes: the largest error of y, whose values reach about 1, against float64 within the first T steps;
# B=4, I=64, H=64, inputs rounded to the dtype beforehand.
# triton_resident runs in Triton's interpreter, which cuts values to bf16 where a GPU rounds.
#       reference                   torch                       triton_resident
#     T fp32     fp16     bf16      fp32     fp16     bf16      fp32     fp16     bf16
#     1 3.0e-07  4.6e-04  4.2e-03   3.0e-07  4.6e-04  4.2e-03   2.8e-07  3.9e-04  5.0e-03
#   100 6.5e-07  1.1e-03  7.8e-03   6.5e-07  1.1e-03  7.8e-03   6.4e-07  9.6e-04  8.4e-03
#  1000 8.4e-07  1.2e-03  8.7e-03   8.4e-07  1.2e-03  8.7e-03   -        -        -
# 10000 1.0e-06  1.2e-03  9.6e-03   1.0e-06  1.2e-03  9.6e-03   -        -        -
# Written by python -m seqroof.scripts.precision_notes, 2026-11-21, torch 2.13.0+cpu, triton 3.9.0.
# end of precision notes

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..roofline.work import Work
from . import _recurrent, _recurrent_cost
from ._device import tanh
from ._recurrent import LONG_SIZES, ODD_SIZES, Cell, suites
from ._recurrent_compile import compile_cases
from ._recurrent_cost import CellCost
from ._recurrent_rows import rows
from ._recurrent_tiles import DeviceCell
from ._triton import tl, triton

GATES = 1


@dataclass(frozen=True)
class Shape(_recurrent.Shape):
    """The sizes that all recurrent kernels have; relu is 1 for max(0, x) in place of tanh."""

    relu: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relu not in (0, 1):
            raise ValueError(f"relu must be 0 (tanh) or 1, not {self.relu}")


SHAPES = {
    "quick": [Shape(3, 17, 37, 50, dilation=3, relu=1), Shape(1, 128, 256, 256)],
    **suites(Shape),
}
# Each extreme of the sizes once, and all of their combinations.
ODD = [Shape(*sizes, relu=index % 2) for index, sizes in enumerate(ODD_SIZES)]
ODD_LONG = [Shape(*sizes, relu=relu) for sizes in LONG_SIZES for relu in (0, 1)]

spot = _recurrent.spot
padding_waste = _recurrent.padding_waste
SENSITIVE = True  # the gradient of ReLU jumps


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw random tensors of the sizes at the top of the file."""
    return _recurrent.inputs(cell_of(shape), shape, dtype, device, seed)


def _update_tanh(gx: torch.Tensor, gh: torch.Tensor, h: torch.Tensor, c: Any) -> tuple[torch.Tensor, None]:
    """Turn the products of input and state, both (..., H), into (h, None)."""
    return torch.tanh(gx + gh), None


def _update_relu(gx: torch.Tensor, gh: torch.Tensor, h: torch.Tensor, c: Any) -> tuple[torch.Tensor, None]:
    """The same with max(0, x); torch.relu keeps NaN."""
    return torch.relu(gx + gh), None


TANH = Cell("rnn_tanh", gates=GATES, biases=GATES, states=1, update=_update_tanh, module=nn.RNN)
RELU = Cell("rnn_relu", gates=GATES, biases=GATES, states=1, update=_update_relu, module=nn.RNN)


def cell_of(shape: Shape) -> Cell:
    """The cell with the nonlinearity of this shape."""
    return RELU if shape.relu else TANH


def reference(
    shape: Shape, x, weight_ih, weight_hh, bias, h_0=None, weight_ih_upper=None, lengths=None
) -> tuple[torch.Tensor, ...]:
    """Compute the stack step by step in plain PyTorch; returns y and h_n. A state that is None begins at zero."""
    given = {"x": x, "h_0": h_0, "weight_ih": weight_ih, "weight_ih_upper": weight_ih_upper}
    return _recurrent.reference(cell_of(shape), shape, **given, weight_hh=weight_hh, bias=bias, lengths=lengths)


_COST_TANH = CellCost(
    gates=GATES,
    biases=GATES,
    states=1,
    saved=0,
    revisited=1,
    pointwise=(("bias", 1, "one addition"),),
    special=(("hidden state", 1, "tanh"),),
    backward_pointwise=(("tanh gradient", 3, "times 1 - h'^2"),),
)
_COST_RELU = replace(
    _COST_TANH,
    pointwise=(("bias", 1, "one addition"), ("hidden state", 1, "one maximum")),
    special=(),
    backward_pointwise=(("relu gradient", 1, "kept where h' > 0"),),
)


def cost_of(shape: Shape) -> CellCost:
    """The cost of the cell with the nonlinearity of this shape."""
    return _COST_RELU if shape.relu else _COST_TANH


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients, or of both, with every tensor but `lengths` held in `dtype`."""
    return _recurrent_cost.work(cost_of(shape), shape, dtype, direction)


@triton.jit
def _forward_tanh(total, _1, _2, _3, h, carry):
    """The sum of the products, (units, sequences) -> h; nothing else is carried or saved."""
    h = tanh(total)
    return h, carry, h, h, h, h


@triton.jit
def _forward_relu(total, _1, _2, _3, h, carry):
    """The same with max(0, x), which keeps NaN."""
    h = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return h, carry, h, h, h, h


@triton.jit
def _backward_tanh(dh, dcarry, _0, _1, _2, _3, h, h_before):
    """Gradient of h, and h -> the gradient of the sum; nothing reaches the h before but through the weights."""
    d = dh * (1.0 - h * h)
    return d, d, d, d, tl.zeros_like(dh), dcarry


@triton.jit
def _backward_relu(dh, dcarry, _0, _1, _2, _3, h, h_before):
    """The same for max(0, x); where h is NaN the gradient passes, as in PyTorch."""
    d = tl.where(h <= 0.0, 0.0, dh)
    return d, d, d, d, tl.zeros_like(dh), dcarry


_DEVICES = (DeviceCell(TANH, _forward_tanh, _backward_tanh), DeviceCell(RELU, _forward_relu, _backward_relu))


def device_of(shape: Shape) -> DeviceCell:
    """The device functions with the nonlinearity of this shape."""
    return _DEVICES[shape.relu]


# A step starts two products, their sum and the nonlinearity.
IMPLEMENTATIONS = rows(cell_of, reference, 4, device_of, cost_of)

COMPILE = [*compile_cases(_DEVICES[0], "one tile"), *compile_cases(_DEVICES[1], "middle")]
