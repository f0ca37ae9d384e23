"""c_t = s(f) c_(t-1) + s(i) tanh(g), h_t = s(o) tanh(c_t), with (i, f, g, o) = W_ih x_t + W_hh h_(t-1) + bias

A stack of long short-term memory layers over whole sequences, in one or both directions; s is the sigmoid.

B batch, T time steps, I input size, H hidden size, L layers, D directions, `dilation` d: h_t depends on h_(t-d).
x (T, B, I), h_0 and c_0 (L D, d B, H), weight_ih (D, 4H, I), weight_ih_upper (L-1, D, 4H, D H) if L > 1,
weight_hh (L, D, 4H, H), bias (L, D, 4H), lengths (B) if ragged -> y (T, B, D H), h_n and c_n as h_0 and c_0.
The rows of the weights are the gates i, f, g, o in this order, H rows each, as in torch.nn.LSTM; its two biases are
summed into one. Row j B + b of the states is sequence b at the steps t with t mod d = j.

Source: Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997; the forget gate is that of
Gers, Schmidhuber and Cummins, Learning to Forget, Neural Computation 12(10), 2000; dilation is that of Chang et al.,
Dilated Recurrent Neural Networks, NIPS 2017.
"""

# precision notes: the largest error of y, whose values reach about 1, against float64 within the first T steps;
# B=4, I=64, H=64, inputs rounded to the dtype beforehand.
# triton_resident runs in Triton's interpreter, which cuts values to bf16 where a GPU rounds.
#       reference                   torch                       triton_resident
#     T fp32     fp16     bf16      fp32     fp16     bf16      fp32     fp16     bf16
#     1 1.3e-07  6.2e-04  1.7e-03   1.7e-07  6.2e-04  1.5e-03   1.3e-07  1.3e-04  4.3e-03
#   100 3.0e-07  8.7e-04  6.7e-03   3.0e-07  8.7e-04  2.8e-03   3.2e-07  3.0e-04  5.0e-03
#  1000 3.2e-07  9.8e-04  7.2e-03   5.0e-07  9.8e-04  3.1e-03   -        -        -
# 10000 4.0e-07  1.1e-03  1.0e-02   5.4e-07  1.1e-03  3.6e-03   -        -        -
# Written by python -m seqroof.scripts.precision_notes, 2026-11-21, torch 2.13.0+cpu, triton 3.9.0.
# end of precision notes

from typing import Any

import torch
from torch import nn

from ..roofline.work import Work
from . import _recurrent, _recurrent_cost
from ._device import sigmoid, tanh
from ._recurrent import LONG_SIZES, ODD_SIZES, Cell, Shape, suites
from ._recurrent_compile import compile_cases
from ._recurrent_cost import CellCost
from ._recurrent_rows import rows
from ._recurrent_tiles import DeviceCell
from ._triton import tl, triton

GATES = 4

SHAPES = {
    "quick": [Shape(3, 17, 37, 50, L=2, D=2), Shape(1, 128, 256, 256), Shape(16, 64, 256, 256)],
    **suites(Shape),
}
# Each extreme of the sizes once, and all of their combinations.
ODD = [Shape(*sizes) for sizes in ODD_SIZES]
ODD_LONG = [Shape(*sizes) for sizes in LONG_SIZES]

spot = _recurrent.spot
padding_waste = _recurrent.padding_waste


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw random tensors of the sizes at the top of the file."""
    return _recurrent.inputs(CELL, shape, dtype, device, seed)


def _update(gx: torch.Tensor, gh: torch.Tensor, h: torch.Tensor, c: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn the products of input and state, both (..., 4H), and the old cell state into (h, c)."""
    i, f, g, o = (gx + gh).chunk(GATES, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


CELL = Cell("lstm", gates=GATES, biases=GATES, states=2, update=_update, module=nn.LSTM)


def reference(
    shape: Shape, x, weight_ih, weight_hh, bias, h_0=None, c_0=None, weight_ih_upper=None, lengths=None
) -> tuple[torch.Tensor, ...]:
    """Compute the stack step by step in plain PyTorch; returns y, h_n and c_n. States that are None begin at zero."""
    given = {"x": x, "h_0": h_0, "c_0": c_0, "weight_ih": weight_ih, "weight_ih_upper": weight_ih_upper}
    return _recurrent.reference(CELL, shape, **given, weight_hh=weight_hh, bias=bias, lengths=lengths)


COST = CellCost(
    gates=GATES,
    biases=GATES,
    states=2,
    saved=GATES,
    revisited=2,
    pointwise=(
        ("bias", GATES, "one addition per gate"),
        ("cell state", 3, "f c + i g: two products and a sum"),
        ("hidden state", 1, "o tanh(c')"),
    ),
    special=(("gates", GATES, "three sigmoids and a tanh"), ("cell output", 1, "tanh(c')")),
    backward_pointwise=(
        ("do", 1, "dh' tanh(c')"),
        ("dc'", 5, "dc' + dh' o (1 - tanh(c')^2)"),
        ("di, df, dg, dc", 4, "dc' times g, c, i and f"),
        ("sigmoid gradients", 9, "times s (1 - s) for the gates i, f and o: three operations each"),
        ("tanh gradient", 3, "times 1 - g^2"),
    ),
    backward_special=(("cell output", 1, "tanh(c') again: cheaper than keeping it"),),
)


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients, or of both, with every tensor but `lengths` held in `dtype`."""
    return _recurrent_cost.work(COST, shape, dtype, direction)


@triton.jit
def _forward(i, f, g, o, h, c):
    """Gates before their nonlinearities and the old state, each (units, sequences) -> h, c, and what is saved."""
    i = sigmoid(i)
    f = sigmoid(f)
    g = tanh(g)
    o = sigmoid(o)
    c = f * c + i * g
    return o * tanh(c), c, i, f, g, o


@triton.jit
def _backward(dh, dc, i, f, g, o, c, c_before):
    """Gradients of h and c, the saved gates, c and the one before -> those of the gates before their nonlinearities, of
    the h before beyond what comes through the weights, and of the c before."""
    output = tanh(c)
    dc += dh * o * (1.0 - output * output)
    di = dc * g * i * (1.0 - i)
    df = dc * c_before * f * (1.0 - f)
    dg = dc * i * (1.0 - g * g)
    do = dh * output * o * (1.0 - o)
    return di, df, dg, do, tl.zeros_like(dh), dc * f


def _activate(gx: torch.Tensor, gh: torch.Tensor) -> torch.Tensor:
    """The gates that `_forward` saves, (..., 4H), from the products of all steps."""
    i, f, g, o = (gx + gh).chunk(GATES, dim=-1)
    return torch.cat((torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)), dim=-1)


DEVICE = DeviceCell(CELL, _forward, _backward, _activate)

# A step starts two products, their sum, five functions of the gates and c, three multiplications and an addition.
IMPLEMENTATIONS = rows(lambda shape: CELL, reference, 12, lambda shape: DEVICE, lambda shape: COST, onednn=True)

COMPILE = compile_cases(DEVICE, "all sizes")
