"""h_t = (1 - z) n + z h_(t-1), n = tanh(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn))

A stack of layers of gated recurrent units over whole sequences, in one or both directions; r and z are the sigmoids
of W_ir x_t + W_hr h_(t-1) + b_r and of the same with z.

B batch, T time steps, I input size, H hidden size, L layers, D directions, `dilation` d: h_t depends on h_(t-d).
x (T, B, I), h_0 (L D, d B, H), weight_ih (D, 3H, I), weight_ih_upper (L-1, D, 3H, D H) if L > 1,
weight_hh (L, D, 3H, H), bias (L, D, 4H), lengths (B) if ragged -> y (T, B, D H), h_n as h_0.
The rows of the weights are the gates r, z, n in this order, H rows each, as in torch.nn.GRU. Its two biases are summed
for r and z; n keeps both, that of the input and, behind it, that of the state. Row j B + b of the states is sequence b
at the steps t with t mod d = j.

Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation,
EMNLP 2014, in the variant of cuDNN and torch.nn.GRU, where r multiplies the product with the state and not the state;
dilation is that of Chang et al., Dilated Recurrent Neural Networks, NIPS 2017.
"""

# precision notes: the largest error of y, whose values reach about 1, against float64 within the first T steps;
# B=4, I=64, H=64, inputs rounded to the dtype beforehand.
# triton_resident runs in Triton's interpreter, which cuts values to bf16 where a GPU rounds.
#       reference                   torch                       triton_resident
#     T fp32     fp16     bf16      fp32     fp16     bf16      fp32     fp16     bf16
#     1 1.8e-07  7.7e-04  5.7e-03   1.8e-07  7.7e-04  5.7e-03   1.7e-07  3.0e-04  5.0e-03
#   100 4.8e-07  1.4e-03  8.7e-03   4.8e-07  1.4e-03  8.7e-03   5.4e-07  5.9e-04  1.3e-02
#  1000 5.8e-07  1.9e-03  1.2e-02   5.8e-07  1.9e-03  1.2e-02   -        -        -
# 10000 5.8e-07  1.9e-03  1.5e-02   5.8e-07  1.9e-03  1.5e-02   -        -        -
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
from ._triton import tl, triton  # noqa: F401 - the interpreter looks for `tl` beside every device function

GATES = 3

SHAPES = {
    "quick": [Shape(3, 17, 37, 50, ragged=1), Shape(1, 128, 256, 256)],
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


def _update(gx: torch.Tensor, gh: torch.Tensor, h: torch.Tensor, c: Any) -> tuple[torch.Tensor, None]:
    """Turn the products of input and state, both (..., 3H), and the old state into (h, None)."""
    r_input, z_input, n_input = gx.chunk(GATES, dim=-1)
    r_state, z_state, n_state = gh.chunk(GATES, dim=-1)
    z = torch.sigmoid(z_input + z_state)
    n = torch.tanh(n_input + torch.sigmoid(r_input + r_state) * n_state)
    return n + z * (h - n), None


CELL = Cell("gru", gates=GATES, biases=GATES + 1, states=1, update=_update, module=nn.GRU)


def reference(
    shape: Shape, x, weight_ih, weight_hh, bias, h_0=None, weight_ih_upper=None, lengths=None
) -> tuple[torch.Tensor, ...]:
    """Compute the stack step by step in plain PyTorch; returns y and h_n. A state that is None begins at zero."""
    given = {"x": x, "h_0": h_0, "weight_ih": weight_ih, "weight_ih_upper": weight_ih_upper}
    return _recurrent.reference(CELL, shape, **given, weight_hh=weight_hh, bias=bias, lengths=lengths)


COST = CellCost(
    gates=GATES,
    biases=GATES + 1,
    states=1,
    saved=GATES + 1,
    revisited=1,
    pointwise=(
        ("bias", GATES + 1, "one addition per gate, and one to the state's part of n"),
        ("reset", 2, "r times the state's part of n, added to the input's"),
        ("hidden state", 3, "n + z (h - n)"),
    ),
    special=(("gates", GATES, "two sigmoids and a tanh"),),
    backward_pointwise=(
        ("dn", 2, "dh' (1 - z)"),
        ("dz", 2, "dh' (h - n)"),
        ("dh", 2, "dh' z, added to what comes through the product"),
        ("tanh gradient", 3, "times 1 - n^2"),
        ("dr and the state's part of n", 2, "the gradient of n times that part, and times r"),
        ("sigmoid gradients", 6, "times s (1 - s) for the gates r and z: three operations each"),
    ),
)


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients, or of both, with every tensor but `lengths` held in `dtype`."""
    return _recurrent_cost.work(COST, shape, dtype, direction)


@triton.jit
def _forward(r, z, n_input, n_state, h, carry):
    """Values before the nonlinearities, the input's and the state's part of n apart, and the old state, each
    (units, sequences) -> h, nothing else that is carried, and what is saved."""
    r = sigmoid(r)
    z = sigmoid(z)
    n = tanh(n_input + r * n_state)
    return n + z * (h - n), carry, r, z, n, n_state


@triton.jit
def _backward(dh, dcarry, r, z, n, n_state, h, h_before):
    """Gradient of h, the saved values, h and the one before -> gradients of the four values before the nonlinearities,
    and of the h before beyond what comes through the weights."""
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dz = dh * (h_before - n) * z * (1.0 - z)
    dr = dn * n_state * r * (1.0 - r)
    return dr, dz, dn, dn * r, dh * z, dcarry


def _activate(gx: torch.Tensor, gh: torch.Tensor) -> torch.Tensor:
    """What `_forward` saves, (..., 4H), from the products of all steps."""
    r_input, z_input, n_input = gx.chunk(GATES, dim=-1)
    r_state, z_state, n_state = gh.chunk(GATES, dim=-1)
    r, z = torch.sigmoid(r_input + r_state), torch.sigmoid(z_input + z_state)
    return torch.cat((r, z, torch.tanh(n_input + r * n_state), n_state), dim=-1)


DEVICE = DeviceCell(CELL, _forward, _backward, _activate)

# A step starts two products, three functions of the gates, two multiplications and five additions.
IMPLEMENTATIONS = rows(lambda shape: CELL, reference, 12, lambda shape: DEVICE, lambda shape: COST)

COMPILE = compile_cases(DEVICE, "one tile")
