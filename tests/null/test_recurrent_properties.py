"""Properties of the references of lstm, gru and rnn: causality, independence, composition, carried states."""

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrences import CELLS, close, doubles, run

from seqroof.kernels._recurrent import Cell, Shape, lengths_of

any_cell = st.sampled_from([cell for _, cell in CELLS])
sizes = st.integers(1, 5)
layers = st.builds(Shape, sizes, st.integers(2, 7), sizes, sizes, dilation=st.integers(1, 3), ragged=st.integers(0, 1))
any_stack = st.builds(
    Shape, sizes, st.integers(1, 6), sizes, sizes, st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)
)
few = settings(max_examples=40, deadline=None)


@few
@given(any_cell, layers, st.integers(1, 2), st.data())
def test_a_later_input_does_not_change_earlier_outputs(cell: Cell, shape: Shape, L: int, data: Any) -> None:
    shape = replace(shape, L=L)
    t = data.draw(st.integers(1, shape.T - 1))
    tensors = doubles(cell, shape)
    before = run(cell, shape, tensors)[0]
    after = run(cell, shape, tensors | {"x": torch.cat([tensors["x"][:t], tensors["x"][t:] + 1])})[0]
    assert torch.equal(before[:t], after[:t])
    assert not torch.equal(before[t:], after[t:]) or cell.name == "rnn_relu" or shape.ragged


@few
@given(any_cell, any_stack, st.data())
def test_a_row_does_not_change_another(cell: Cell, shape: Shape, data: Any) -> None:
    row = data.draw(st.integers(0, shape.B - 1))
    tensors = doubles(cell, shape)
    changed = tensors["x"].clone()
    changed[:, row] += 1
    others = [b for b in range(shape.B) if b != row]
    folded = [phase * shape.B + b for phase in range(shape.dilation) for b in others]
    before, after = run(cell, shape, tensors), run(cell, shape, tensors | {"x": changed})
    assert torch.equal(before[0][:, others], after[0][:, others])
    assert all(torch.equal(one[:, folded], other[:, folded]) for one, other in zip(before[1:], after[1:]))


@few
@given(any_cell, st.builds(Shape, sizes, st.integers(2, 7), sizes, sizes, L=st.integers(1, 3)), st.data())
def test_states_carry_from_one_half_to_the_next(cell: Cell, shape: Shape, data: Any) -> None:
    t = data.draw(st.integers(1, shape.T - 1))
    tensors = doubles(cell, shape)
    first = run(cell, replace(shape, T=t), tensors | {"x": tensors["x"][:t]})
    carried = dict(zip(("h_0", "c_0"), first[1:]))
    second = run(cell, replace(shape, T=shape.T - t), tensors | {"x": tensors["x"][t:]} | carried)
    close((torch.cat([first[0], second[0]]), *second[1:]), run(cell, shape, tensors))


@few
@given(any_cell, st.builds(Shape, sizes, st.integers(1, 7), sizes, sizes, D=st.just(2)))
def test_the_second_direction_is_the_first_on_the_reversed_sequence(cell: Cell, shape: Shape) -> None:
    tensors = doubles(cell, shape)
    y, *finals = run(cell, shape, tensors)
    second = {name: tensor if name == "x" else tensor[..., 1:2, :, :] for name, tensor in tensors.items()}
    second |= {"x": tensors["x"].flip(0), "bias": tensors["bias"][:, 1:2]}
    alone = run(cell, replace(shape, D=1), second)
    close((y[..., shape.H :].flip(0), *(state[1:] for state in finals)), alone)


@few
@given(any_cell, any_stack.filter(lambda shape: shape.L == 2))
def test_a_stack_is_one_layer_after_the_other(cell: Cell, shape: Shape) -> None:
    tensors = doubles(cell, shape)
    D = shape.D
    halves = [
        {name: tensors[name][i * D : i * D + D] for name in ("h_0", "c_0")[: cell.states]}
        | {name: tensors[name][i : i + 1] for name in ("weight_hh", "bias")}
        for i in range(2)
    ]
    one = replace(shape, L=1)
    lower = run(cell, one, {"x": tensors["x"], "weight_ih": tensors["weight_ih"], **halves[0]})
    two = replace(one, I=D * shape.H)
    upper = run(cell, two, {"x": lower[0], "weight_ih": tensors["weight_ih_upper"][0], **halves[1]})
    want = (upper[0], *(torch.cat(pair) for pair in zip(lower[1:], upper[1:])))
    close(run(cell, shape, tensors), want)


@few
@given(any_cell, any_stack)
def test_ragged_rows_are_rows_by_themselves(cell: Cell, shape: Shape) -> None:
    shape = replace(shape, ragged=1)
    tensors = doubles(cell, shape)
    y, *finals = run(cell, shape, tensors)
    for b, length in enumerate(lengths_of(shape)):
        alone = replace(shape, B=1, T=length, ragged=0)
        rows = [phase * shape.B + b for phase in range(shape.dilation)]
        part = {name: tensor for name, tensor in tensors.items() if name != "lengths"}
        part |= {name: tensors[name][:, rows] for name in ("h_0", "c_0")[: cell.states]}
        got, *states = run(cell, alone, part | {"x": tensors["x"][:length, b : b + 1]})
        close((y[:length, b : b + 1], *(state[:, rows] for state in finals)), (got, *states))
        assert not y[length:, b].any()
