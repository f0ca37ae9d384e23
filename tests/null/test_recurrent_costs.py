"""Costs of recurrent layers: hand counts, worked values, PyTorch's operation counter, and the graph of their steps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import _catalog
from seqroof.kernels._recurrent import Shape, lengths_of
from seqroof.kernels._recurrent_cost import CellCost, depth, depth_by_layer, saved_bytes, wavefront_bytes, work

# Totals of the three cells, with gates, biases, states, saved and revisited values in front.
LSTM = CellCost(
    4, 4, 2, 4, 2, (("update", 8, "by hand"),), (("gates", 5, "by hand"),), (("gradients", 22, "by hand"),),
    (("cell output", 1, "by hand"),),
)  # fmt: skip
GRU = CellCost(
    3, 4, 1, 4, 1, (("update", 9, "by hand"),), (("gates", 3, "by hand"),), (("gradients", 17, "by hand"),)
)  # fmt: skip
RNN = CellCost(
    1, 1, 1, 0, 1, (("bias", 1, "by hand"),), (("tanh", 1, "by hand"),), (("gradient", 3, "by hand"),)
)  # fmt: skip
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
DIRECTIONS = ("forward", "backward", "both")
OPERATIONS = ("matmul_flops", "pointwise_flops", "special_ops")
BYTES = ("read_bytes", "write_bytes", "streamed_bytes", "hoisted_bytes")
SHAPES = [
    Shape(1, 1, 1, 1),
    Shape(3, 5, 7, 2),
    Shape(2, 6, 3, 5, L=3),
    Shape(2, 4, 3, 5, D=2),
    Shape(3, 7, 4, 5, L=2, D=2),
    Shape(2, 7, 3, 4, L=2, dilation=3),
    Shape(4, 9, 3, 4, L=2, D=2, dilation=2, ragged=1),
]

cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
any_cell = st.sampled_from(list(CELLS.values()))
small = st.integers(1, 9)
any_shape = st.builds(
    Shape, small, small, small, small, st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(0, 1)
)


def _tensors(cell: CellCost, shape: Shape, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    """Empty inputs and outputs of a layer, as the contract of the kernels sizes them."""
    gates, biases = cell.gates * shape.H, cell.biases * shape.H
    state = (shape.L * shape.D, shape.dilation * shape.B, shape.H)
    sizes: dict[str, tuple[int, ...]] = {
        "x": (shape.T, shape.B, shape.I),
        "h_0": state,
        "c_0": state,
        "weight_ih": (shape.D, gates, shape.I),
        "weight_ih_upper": (shape.L - 1, shape.D, gates, shape.D * shape.H),
        "weight_hh": (shape.L, shape.D, gates, shape.H),
        "bias": (shape.L, shape.D, biases),
    }
    results = {"y": (shape.T, shape.B, shape.D * shape.H), "h_n": state, "c_n": state}
    made = [
        {name: torch.empty(size, dtype=dtype, device="meta") for name, size in group.items()}
        for group in (sizes, results)
    ]
    for group in made if cell.states == 1 else ():
        group.pop("c_0", None)
        group.pop("c_n", None)
    return made[0], made[1]


@cache
def _step() -> Any:
    return _catalog.load("lstm_step").module


@cells
@shapes
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_compulsory_bytes_are_those_of_the_tensors(cell: CellCost, shape: Shape, dtype: str) -> None:
    given, results = _tensors(cell, shape, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    cost = work(cell, shape, dtype, "forward")
    padding = (shape.T * shape.B - sum(lengths_of(shape))) * shape.I * given["x"].itemsize
    lengths = 8 * shape.B * shape.ragged
    assert cost.read_bytes == sum(tensor.nbytes for tensor in given.values()) - padding + lengths
    assert cost.write_bytes == sum(tensor.nbytes for tensor in results.values())
    weights = [tensor.numel() for name, tensor in given.items() if name.startswith(("weight", "bias"))]
    assert cost.parameters == sum(weights)


def _loop(shape: Shape, gates: int, x: Any, weights: dict[str, Any]) -> Any:
    """All products of a stack, step by step; what the cell makes of its gates costs no product."""
    for layer in range(shape.L):
        ahead = []
        for direction in range(shape.D):
            weight_ih = weights["weight_ih"] if layer == 0 else weights["weight_ih_upper"][layer - 1]
            h = x.new_zeros(shape.B, shape.H).requires_grad_()
            steps = []
            for t in range(shape.T):
                total = F.linear(x[t], weight_ih[direction]) + F.linear(h, weights["weight_hh"][layer, direction])
                h = total.view(shape.B, gates, shape.H).sum(1)
                steps.append(h)
            ahead.append(torch.stack(steps))
        x = torch.cat(ahead, dim=2)
    return x


@cells
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.dilation == 1 and not shape.ragged], ids=str)
def test_products_are_those_of_the_flop_counter(cell: CellCost, shape: Shape) -> None:
    given, _ = _tensors(cell, shape, torch.float32)
    for tensor in given.values():
        tensor.requires_grad_()
    counter = FlopCounterMode(display=False)
    with counter:
        y = _loop(shape, cell.gates, given.pop("x"), given)
    forward = counter.get_total_flops()
    assert work(cell, shape, "fp32", "forward").matmul_flops == forward
    with counter:
        y.sum().backward()
    assert work(cell, shape, "fp32", "backward").matmul_flops == counter.get_total_flops()


# Exact integers in 16 bit, from the definitions: matmul_flops, compulsory_bytes, streamed_bytes.
@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, (8589934592, 18890752, 8599371776)), (32, (274877906944, 84156416, 8761901056))],
)
def test_worked_values(batch: int, expected: tuple[int, int, int]) -> None:
    cost = work(LSTM, Shape(batch, 512, 1024, 1024), "bf16", "forward")
    assert (cost.matmul_flops, cost.compulsory_bytes, cost.streamed_bytes) == expected
    assert cost.depth == 512
    assert cost.exchange_bytes == 2 * batch * 1024
    assert cost.recurrent_bytes == 8 * 1024**2


@given(small, small, small, small, st.sampled_from(["fp32", "bf16"]))
def test_streaming_costs_as_much_as_single_steps(B: int, T: int, I: int, H: int, dtype: str) -> None:
    step = _step().work(_step().Shape(B, I, H), dtype, "forward")
    cost = work(LSTM, Shape(B, T, I, H), dtype, "forward")
    assert cost.streamed_bytes == T * step.compulsory_bytes
    assert cost.matmul_flops == T * step.matmul_flops
    assert (cost.weight_bytes, cost.state_bytes) == (step.weight_bytes, step.state_bytes)
    assert cost.parameters == step.parameters


# B=2, T=3, I=5, H=1 in fp32. Weights: G gates of 5 + 1; tokens: 6.
FORWARD = {
    # 4 x 6 x 2 x 6 products of 4 gates; 8 operations and 5 functions per unit; kept: 4 gates and c.
    "lstm": {"matmul_flops": 288, "pointwise_flops": 48, "special_ops": 30, "saved_bytes": 4 * (24 + 6)},
    "gru": {"matmul_flops": 216, "pointwise_flops": 54, "special_ops": 18, "saved_bytes": 4 * 24},
    "rnn": {"matmul_flops": 72, "pointwise_flops": 6, "special_ops": 6, "saved_bytes": 0},
}
FORWARD_BYTES = {
    # Read: weights, biases, x 30, states 2 each. Written: y 6, states 2 each.
    # Streamed: 3 x parameters, x 30, states of 6 tokens read and written.
    # Hoisted: W_ih and its biases, x 30, gate inputs of 6 tokens written and read, 3 x W_hh (and gru's 1), states.
    "lstm": ((28 + 30 + 4), (6 + 4), (84 + 30 + 24), (20 + 4 + 30 + 48 + 12 + 24)),
    "gru": ((22 + 30 + 2), (6 + 2), (66 + 30 + 12), (15 + 3 + 30 + 36 + 3 * 4 + 12)),
    "rnn": ((7 + 30 + 2), (6 + 2), (21 + 30 + 12), (5 + 1 + 30 + 12 + 3 + 12)),
}
BACKWARD = {
    # Per token 22 (17, 3) operations and one to add dy; summing 6 tokens' biases takes 5 additions per bias.
    "lstm": {"matmul_flops": 576, "pointwise_flops": 6 * 23 + 20, "special_ops": 6},
    "gru": {"matmul_flops": 432, "pointwise_flops": 6 * 18 + 20, "special_ops": 0},
    "rnn": {"matmul_flops": 144, "pointwise_flops": 6 * 4 + 5, "special_ops": 0},
}
BACKWARD_BYTES = {
    # Read: weights, x 30, initial states, y 6, kept gates and cells, dy 6, gradients of the last states.
    # Written: gradients of the parameters, of x and of the initial states.
    # Streamed: 3 x weights, dx 30, dy 6, state gradients twice, kept and revisited values, gate gradients twice,
    # x and states for the weight gradients 36, which are written once. Hoisted: W_ih once instead of 3 times.
    "lstm": ((24 + 30 + 4 + 6 + 24 + 6 + 6 + 4), (28 + 30 + 4), (72 + 30 + 6 + 24 + 36 + 48 + 36 + 28), 40),
    "gru": ((18 + 30 + 2 + 6 + 24 + 6 + 2), (22 + 30 + 2), (54 + 30 + 6 + 12 + 30 + 48 + 36 + 22), 30),
    "rnn": ((6 + 30 + 2 + 6 + 6 + 2), (7 + 30 + 2), (18 + 30 + 6 + 12 + 6 + 12 + 36 + 7), 10),
}


@pytest.mark.parametrize("name", CELLS)
def test_forward_counted_by_hand(name: str) -> None:
    cost = work(CELLS[name], Shape(2, 3, 5, 1), "fp32", "forward")
    assert {quantity: getattr(cost, quantity) for quantity in FORWARD[name]} == FORWARD[name]
    assert tuple(getattr(cost, quantity) // 4 for quantity in BYTES) == FORWARD_BYTES[name]
    assert (cost.depth, cost.tokens, cost.exchange_bytes) == (3, 6, 4 * 2)


@pytest.mark.parametrize("name", CELLS)
def test_backward_counted_by_hand(name: str) -> None:
    cost = work(CELLS[name], Shape(2, 3, 5, 1), "fp32", "backward")
    assert {quantity: getattr(cost, quantity) for quantity in BACKWARD[name]} == BACKWARD[name]
    read, written, streamed, hoisting_saves = BACKWARD_BYTES[name]
    expected = (read, written, streamed, streamed - hoisting_saves)
    assert tuple(getattr(cost, quantity) // 4 for quantity in BYTES) == expected


def test_a_stack_in_both_directions_counted_by_hand() -> None:
    """rnn, B=1, T=2, I=3, H=1, L=2, D=2: per direction 3 + 1 weights below and 2 + 1 above, and a bias each."""
    cost = work(RNN, Shape(1, 2, 3, 1, L=2, D=2), "fp32", "forward")
    assert cost.matmul_flops == 2 * 2 * 2 * (4 + 3)
    assert cost.parameters == 2 * (4 + 3 + 2)
    # x 2 x 3 and four initial states; y 2 x 2 and four last states.
    assert (cost.read_bytes, cost.write_bytes) == (4 * (18 + 6 + 4), 4 * (4 + 4))
    # Two steps read 18 parameters; both directions read 2 x 3 and 2 x 2 inputs; 8 states are read and written.
    assert cost.streamed_bytes == 4 * (36 + 12 + 8 + 16)
    # 10 input weights and 4 biases once, inputs once, 8 gate inputs written and read, 4 recurrent weights per step.
    assert cost.hoisted_bytes == 4 * (14 + 6 + 4 + 16 + 8 + 16)
    # The widest layer in one direction: 3 + 1 weights and a bias; the states of one layer in one direction.
    assert (cost.weight_bytes, cost.recurrent_bytes, cost.state_bytes) == (4 * 5, 4, 4)
    # The first layer's outputs are neither input nor output.
    assert cost.saved_bytes == 4 * 4


def test_short_rows_are_not_charged_for_their_padding() -> None:
    """rnn, B=3, T=6, I=2, H=4: rows of 6, 4 and 2 steps, so 6 of 18 tokens are padding."""
    shape = Shape(3, 6, 2, 4, ragged=1)
    assert sorted(lengths_of(shape)) == [2, 4, 6]
    cost, dense = (work(RNN, each, "bf16", "forward") for each in (shape, replace(shape, ragged=0)))
    assert (cost.tokens, cost.depth) == (12, 6)
    assert all(3 * getattr(cost, quantity) == 2 * getattr(dense, quantity) for quantity in OPERATIONS)
    assert cost.read_bytes == dense.read_bytes - 2 * 6 * 2 + 8 * 3
    assert cost.write_bytes == dense.write_bytes
    # Padding saves reading x and both accesses of the states; its zeros of y are written nevertheless.
    assert cost.streamed_bytes == dense.streamed_bytes - 2 * 6 * (2 + 4 + 4) + 2 * 6 * 4 + 8 * 3


def _longest_chain(shape: Shape) -> int:
    """The longest path through the graph of all steps: each waits for its state and for the layer below."""
    after: dict[tuple[int, int, int], int] = {}
    for layer in range(shape.L):
        for direction in range(shape.D):
            for t in reversed(range(shape.T)) if direction else range(shape.T):
                before = t + shape.dilation if direction else t - shape.dilation
                below = [after.get((layer - 1, side, t), 0) for side in range(shape.D)]
                after[layer, direction, t] = 1 + max(after.get((layer, direction, before), 0), *below)
    return max(after.values())


@given(any_shape)
def test_the_depth_is_the_longest_chain_of_steps(shape: Shape) -> None:
    assert depth(shape) == depth(shape, "backward") == _longest_chain(shape)
    assert depth(shape, "both") == 2 * depth(shape)
    one_layer = _longest_chain(replace(shape, L=1))
    assert depth_by_layer(shape) == shape.L * one_layer
    assert depth_by_layer(shape, "both") == 2 * shape.L * one_layer


@given(any_cell, any_shape, st.sampled_from(DIRECTIONS))
def test_the_chain_exchanges_every_hidden_value_once(cell: CellCost, shape: Shape, direction: str) -> None:
    cost = work(cell, shape, "fp32", direction)
    passes = 2 if direction == "both" else 1
    values = passes * 4 * cost.tokens * shape.L * shape.D * shape.H
    assert values - cost.depth < cost.depth * cost.exchange_bytes <= values


@given(any_cell, any_shape, st.booleans())
def test_a_training_step_is_forward_and_backward(cell: CellCost, shape: Shape, recompute: bool) -> None:
    forward, backward, both = (work(cell, shape, "bf16", each, recompute) for each in DIRECTIONS)
    for quantity in OPERATIONS:
        assert getattr(both, quantity) == getattr(forward, quantity) + getattr(backward, quantity), quantity
    again = forward.matmul_flops if recompute and cell.saved else 0
    assert backward.matmul_flops == 2 * forward.matmul_flops + again
    gates = 0 if recompute else 2 * cell.saved * both.tokens * shape.L * shape.D * shape.H
    for quantity in ("streamed_bytes", "hoisted_bytes"):
        assert getattr(both, quantity) == getattr(forward, quantity) + getattr(backward, quantity) + gates, quantity
    assert forward.compulsory_bytes < both.compulsory_bytes
    # Steps do not touch the states of a phase that begins after the end of its row.
    assert both.compulsory_bytes < both.streamed_bytes or shape.dilation > min(lengths_of(shape))
    assert both.tokens == forward.tokens == backward.tokens


@pytest.mark.parametrize(("name", "pointwise", "special"), [("lstm", 4, 4), ("gru", 6, 3), ("rnn", 0, 0)])
def test_recomputing_counted_by_hand(name: str, pointwise: int, special: int) -> None:
    """The sizes above. A bias each and two operations for gru's state inside the new gate; a function per gate."""
    kept, again = (work(CELLS[name], Shape(2, 3, 5, 1), "fp32", "backward", each) for each in (False, True))
    assert again.pointwise_flops - kept.pointwise_flops == 6 * pointwise
    assert again.special_ops - kept.special_ops == 6 * special
    gates, biases, weights = (24, 4, 6 * CELLS[name].gates) if name != "rnn" else (0, 0, 0)
    assert again.read_bytes - kept.read_bytes == 4 * (biases - gates)
    # Inputs 30, states 6, weights and biases are read again, and the gates are written.
    more = gates + 36 + weights + biases if gates else 0
    assert again.streamed_bytes - kept.streamed_bytes == again.hoisted_bytes - kept.hoisted_bytes == 4 * more


@given(any_cell, any_shape)
def test_recomputing_trades_memory_for_products(cell: CellCost, shape: Shape) -> None:
    kept, again = (work(cell, shape, "bf16", "backward", recompute) for recompute in (False, True))
    gates = 2 * cell.saved * kept.tokens * shape.L * shape.D * shape.H
    assert kept.saved_bytes - again.saved_bytes == gates
    assert again.saved_bytes == saved_bytes(cell, shape, "bf16", recompute=True)
    forward = work(cell, shape, "bf16", "forward")
    for quantity in OPERATIONS:
        extra = getattr(again, quantity) - getattr(kept, quantity)
        assert extra <= getattr(forward, quantity)
        assert (extra > 0) == bool(cell.saved), quantity


@given(any_cell, any_shape, st.sampled_from(["B", "T", "I", "H", "L", "D"]), st.sampled_from(DIRECTIONS))
def test_more_of_anything_costs_no_less(cell: CellCost, shape: Shape, size: str, direction: str) -> None:
    shape = replace(shape, D=1) if size == "D" else shape
    larger = replace(shape, **{size: getattr(shape, size) + 1})
    less, more = (work(cell, each, "bf16", direction) for each in (shape, larger))
    for quantity in (*OPERATIONS, *BYTES, "depth", "weight_bytes", "recurrent_bytes", "state_bytes", "saved_bytes"):
        assert getattr(less, quantity) <= getattr(more, quantity), quantity


@given(any_cell, small, small, small, small, st.integers(1, 4))
def test_rows_and_layers_add_up(cell: CellCost, B: int, T: int, H: int, other: int, layers: int) -> None:
    """Operations of two batches, and of layers of equal size, are the sum of those of the parts."""
    one, two, together = (work(cell, Shape(rows, T, H, H), "bf16", "forward") for rows in (B, other, B + other))
    stack = work(cell, Shape(B, T, H, H, L=layers), "bf16", "forward")
    for quantity in OPERATIONS:
        assert getattr(one, quantity) + getattr(two, quantity) == getattr(together, quantity)
        assert layers * getattr(one, quantity) == getattr(stack, quantity)
    assert stack.streamed_bytes == layers * one.streamed_bytes
    assert stack.hoisted_bytes == layers * one.hoisted_bytes


@given(any_cell, any_shape, st.sampled_from(DIRECTIONS), st.booleans())
def test_every_term_says_why_and_counts_something(
    cell: CellCost, shape: Shape, direction: str, recompute: bool
) -> None:
    for term in work(cell, shape, "bf16", direction, recompute).terms:
        assert term.label and term.reason, term
        assert term.amount or term.label in ("dbias", "hidden states"), term


@cells
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_sequences_cost_nothing(cell: CellCost, direction: str) -> None:
    for shape in (Shape(0, 5, 4, 3, L=2, D=2), Shape(0, 5, 4, 3, ragged=1)):
        cost = work(cell, shape, "fp32", direction)
        quantities = (*OPERATIONS, *BYTES, "exchange_bytes", "state_bytes", "saved_bytes", "tokens")
        assert [getattr(cost, quantity) for quantity in quantities] == [0] * len(quantities)
        assert cost.depth == 1


@cells
def test_an_unknown_direction_is_refused(cell: CellCost) -> None:
    with pytest.raises(ValueError, match="sideways"):
        work(cell, SHAPES[0], "bf16", "sideways")


def test_a_wavefront_holds_all_layers_but_the_first_input_weights() -> None:
    """fp16 lstm of H=512: 4 x 512 x 512 values per matrix, four recurrent ones and three of upper layers."""
    assert wavefront_bytes(LSTM, Shape(16, 8, 100, 512, L=4), "fp16") == 7 * 2 * 4 * 512**2
    one = Shape(16, 8, 100, 512)
    assert wavefront_bytes(LSTM, one, "fp16") == work(LSTM, one, "fp16", "forward").recurrent_bytes
