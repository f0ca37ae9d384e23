"""What can be checked of other people's kernels without them: how weights and states are laid out, and refusals.

Each layout goes through the equations that the package documents, written out here step by step, and must give what
our reference gives.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from recurrences import close, doubles
from torch import Tensor

from seqroof.kernels import _recurrent_peers, gru, lstm, rnn
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_peers import (
    MODULES,
    flashrnn_layout,
    from_flashrnn,
    from_torchrl,
    haste_layout,
    peer_rows,
    torchrl_layout,
)
from seqroof.scripts import gpu_pieces

SHAPE = Shape(3, 5, 7, 4)
TWO_CELLS = pytest.mark.parametrize(("kernel", "cell"), [(lstm, lstm.CELL), (gru, gru.CELL)], ids=["lstm", "gru"])


def expected(kernel: Any, cell: Cell) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    tensors = doubles(cell, SHAPE)
    return tensors, kernel.reference(SHAPE, **tensors)


def test_flashrnn_layout() -> None:
    """Gates i, f, z, o from Wx + R h + b, head by head; results are (states, B, T, heads, units)."""
    tensors, want = expected(lstm, lstm.CELL)
    wx, recurrent, bias, states = flashrnn_layout(lstm.CELL, SHAPE, tensors)
    assert wx.shape == (3, 5, 4, 1, 4) and recurrent.shape == (4, 1, 4, 4) and states.shape == (2, 3, 1, 1, 4)
    h, c = states[:, :, 0]
    steps = []
    for t in range(SHAPE.T):
        i, f, z, o = (wx[:, t] + torch.einsum("gndp,bnp->bgnd", recurrent, h) + bias).unbind(1)
        c = f.sigmoid() * c + i.sigmoid() * z.tanh()
        h = o.sigmoid() * c.tanh()
        steps.append(torch.stack((h, c)))
    close(from_flashrnn(torch.stack(steps, dim=2), steps[-1][:, :, None]), want)


@TWO_CELLS
def test_torchrl_layout(kernel: Any, cell: Cell) -> None:
    """The tensors in torch's order of gates with both biases, batch first; states reset where the mask says."""
    tensors, want = expected(kernel, cell)
    x, *states, weight_ih, weight_hh, bias_ih, bias_hh, resets = torchrl_layout(cell, SHAPE, tensors)
    assert x.shape == (3, 5, 7) and resets.shape == (3, 5) and not resets.any()
    assert all(state.shape == (3, 5, 4) for state in states) and len(states) == cell.states
    module = cell.module(SHAPE.I, SHAPE.H, batch_first=True, dtype=torch.float64)
    for parameter, value in zip(module.parameters(), (weight_ih, weight_hh, bias_ih, bias_hh), strict=True):
        parameter.data = value
    first = tuple(state[:, 0][None] for state in states)
    with torch.no_grad():
        y, last = module(x, first if cell.states == 2 else first[0])
    finals = [state[0] for state in (last if cell.states == 2 else (last,))]
    all_steps = [y] * cell.states
    close(from_torchrl(cell, (*all_steps, *finals)), want)


def test_haste_lstm_layout() -> None:
    """Weights as (inputs, 4 H) in the order i, g, f, o."""
    tensors, want = expected(lstm, lstm.CELL)
    parameters, (h, c) = haste_layout(lstm.CELL, SHAPE, tensors)
    assert {name: tuple(value.shape) for name, value in parameters.items()} == {
        "kernel": (7, 16),
        "recurrent_kernel": (4, 16),
        "bias": (16,),
    }
    h, c, steps = h[0], c[0], []
    for x in tensors["x"]:
        sums = x @ parameters["kernel"] + h @ parameters["recurrent_kernel"] + parameters["bias"]
        i, g, f, o = sums.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        steps.append(h)
    close((torch.stack(steps), h[None], c[None]), want)


def test_haste_gru_layout() -> None:
    """Weights as (inputs, 3 H) in the order z, r, n, with a bias of the input and one of the state."""
    tensors, want = expected(gru, gru.CELL)
    parameters, h = haste_layout(gru.CELL, SHAPE, tensors)
    h, steps = h[0], []
    for x in tensors["x"]:
        of_input = (x @ parameters["kernel"] + parameters["bias"]).chunk(3, dim=1)
        of_state = (h @ parameters["recurrent_kernel"] + parameters["recurrent_bias"]).chunk(3, dim=1)
        z, r = (of_input[0] + of_state[0]).sigmoid(), (of_input[1] + of_state[1]).sigmoid()
        h = z * h + (1 - z) * (of_input[2] + r * of_state[2]).tanh()
        steps.append(h)
    close((torch.stack(steps), h[None]), want)


@TWO_CELLS
def test_layouts_pass_gradients_on(kernel: Any, cell: Cell) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(cell, SHAPE).items()}
    parameters, _ = haste_layout(cell, SHAPE, tensors)
    flat = torch.cat([value.flatten() for value in (*parameters.values(), *torchrl_layout(cell, SHAPE, tensors)[:-1])])
    assert all(gradient.any() for gradient in torch.autograd.grad(flat.sum(), list(tensors.values())))


def test_a_package_that_is_not_installed_makes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peer_rows(lambda shape: lstm.CELL) == {}


@pytest.mark.parametrize("kernel", [lstm, gru, rnn], ids=["lstm", "gru", "rnn"])
def test_rows_are_there_where_their_package_is(kernel: Any) -> None:
    there = {row for row, package in MODULES.items() if importlib.util.find_spec(package)}
    assert set(MODULES) & set(kernel.IMPLEMENTATIONS) == there


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """All rows, as if every package were installed: refusing needs none of them."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    return lambda cell: peer_rows(lambda shape: cell)


@pytest.mark.parametrize(
    ("row", "cell", "shape", "dtype", "device", "reason"),
    [
        ("flashrnn", gru.CELL, Shape(8, 4, 64, 64), "bf16", "cuda", "computes lstm, not gru"),
        ("flashrnn", lstm.CELL, Shape(8, 4, 64, 48), "bf16", "cuda", "a multiple of 32, not 48"),
        ("flashrnn", lstm.CELL, Shape(8, 4, 64, 64), "tf32", "cuda", "not for tf32"),
        ("torchrl", rnn.TANH, Shape(8, 4, 64, 64), "fp32", "cuda", "not rnn_tanh"),
        ("torchrl", lstm.CELL, Shape(8, 4, 64, 64), "bf16", "cuda", "float32 data, not bf16"),
        ("haste", gru.CELL, Shape(8, 4, 64, 64), "fp16", "cuda", "not in fp16"),
        ("haste", lstm.CELL, Shape(8, 4, 64, 64), "fp32", "cpu", "need an NVIDIA GPU"),
        ("haste", lstm.CELL, Shape(8, 4, 64, 64, L=2), "fp32", "cuda", "one layer in one direction"),
        ("torchrl", gru.CELL, Shape(8, 4, 64, 64, ragged=1), "fp32", "cuda", "rows of one length"),
        ("flashrnn", lstm.CELL, Shape(0, 4, 64, 64), "bf16", "cuda", "empty batches"),
    ],
)
def test_refusals_have_a_reason(
    rows: Any, row: str, cell: Cell, shape: Shape, dtype: str, device: str, reason: str
) -> None:
    assert reason in rows(cell)[row].supports(shape, dtype, device)


@pytest.mark.skipif(importlib.util.find_spec("torchrl") is not None, reason="torchrl is installed here")
def test_torchrl_without_its_private_module_is_refused(rows: Any) -> None:
    _recurrent_peers._torchrl_function.cache_clear()
    reason = rows(lstm.CELL)["torchrl"].supports(Shape(8, 4, 64, 64), "fp32", "cuda")
    assert "cannot be imported" in reason


def test_what_haste_computes_is_accepted(rows: Any) -> None:
    assert rows(lstm.CELL)["haste"].supports(Shape(8, 4, 64, 64), "fp32", "cuda") is None


def test_the_gpu_suite_asks_for_the_same_packages() -> None:
    assert gpu_pieces.PEERS == MODULES
