"""The recurrent Triton kernels in Triton's interpreter: gradients, every way to cut a recurrence up, and properties.

That they agree with the references at odd sizes and in all dtypes is checked by test_interpreter. Here most is in
float64, in which two right ways to compute the same differ by rounding alone. Run as a script, this file is the child.
"""

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from interpreting import Checks, run_interpreted
from recurrences import CELLS, cells, close, doubles, planned, run, run_row, whole

from seqroof.kernels import _recurrent_cost, _triton, gru, lstm, rnn
from seqroof.kernels import _recurrent_padding as padding
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_plan import Plan
from seqroof.profiler.poison import poisoned_memory

COSTS = {"lstm": lstm.COST, "gru": gru.COST, "rnn_tanh": rnn.cost_of(rnn.Shape(1, 1, 1, 1))}
COSTS["rnn_relu"] = rnn.cost_of(rnn.Shape(1, 1, 1, 1, relu=1))
EVERY_CELL = [cell for _, cell in CELLS]
checks = Checks()

Tensors = dict[str, Any]
ROWS = ("triton_step", "triton_resident")


def with_gradients(run: Callable[[Tensors], Any], tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """Outputs, and the gradients of all inputs for fixed random gradients of the outputs."""
    given = {name: tensor.detach().requires_grad_(tensor.is_floating_point()) for name, tensor in tensors.items()}
    outputs = run(given)
    source = torch.Generator().manual_seed(3)
    above = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
    leaves = [tensor for tensor in given.values() if tensor.requires_grad]
    return *outputs, *torch.autograd.grad(outputs, leaves, above)


BAD = [
    ("weight_hh", lambda t: t[..., 1:], r"weight_hh has the size \(1, 1, \d+, 5\); \(1, 1, \d+, 6\) was expected"),
    ("weight_ih", lambda t: t[:, 1:], "weight_ih has the size"),
    ("bias", lambda t: t[..., 1:], "bias has the size"),
    ("x", lambda t: t[:, :, :4], r"x has the size \(9, 4, 4\); \(9, 4, 5\) was expected"),
    ("h_0", lambda t: t[:, :3], r"h_0 has the size \(1, 3, 6\); \(1, 4, 6\) was expected"),
    ("h_0", lambda t: t.float(), "h_0 is torch.float32 on cpu and x is torch.float64 on cpu; convert one"),
    ("weight_hh", lambda t: t.to("meta"), "weight_hh is torch.float64 on meta"),
    ("lengths", lambda t: None, "lengths is missing"),
    ("lengths", lambda t: t.to("meta"), "lengths is on meta and x on cpu; move it there"),
    ("lengths", lambda t: t + 9, "lengths must lie between 1 and T=9"),
]


# Both directions with rows of different lengths, and a stack, which the resident kernel runs as a wavefront.
TINY = [Shape(2, 3, 2, 3, D=2, ragged=1), Shape(2, 3, 2, 3, L=2)]


@checks.each(*((row, cell, shape) for row, shape in zip(ROWS, TINY) for cell in EVERY_CELL))
def gradients_are_those_of_differences(row: str, cell: Cell, shape: Shape) -> None:
    tensors = doubles(cell, shape)
    names = [name for name in tensors if name != "lengths"]

    # One vector in and one out: every pair of an input and an output would take runs of its own.
    def function(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([tensors[name].numel() for name in names])
        given = {name: part.view(tensors[name].shape) for name, part in zip(names, parts)}
        return torch.cat([output.flatten() for output in run_row(row, cell, shape, tensors | given)])

    flat = torch.cat([tensors[name].flatten() for name in names]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)


STACKS = [Shape(3, 5, 4, 6, L=2, D=2, dilation=2, ragged=1), Shape(3, 5, 4, 18, L=3)]


@checks.each(*((row, cell, shape) for row in ROWS for cell in EVERY_CELL for shape in STACKS))
def gates_computed_again_give_the_same_gradients(row: str, cell: Cell, shape: Shape) -> None:
    tensors = doubles(cell, shape)
    kept = with_gradients(lambda given: run_row(row, cell, shape, given), tensors)
    again = with_gradients(lambda given: run_row(row, cell, shape, given, recompute=True), tensors)
    close(again, kept)


@checks.each(*((row, cell, again) for row in ROWS for cell in EVERY_CELL for again in (False, True)))
def what_is_left_for_the_gradients_is_what_is_declared(row: str, cell: Cell, again: bool) -> None:
    """Bytes of all memory that the graph holds besides inputs, weights and the outputs."""
    for shape in (Shape(3, 5, 4, 18, L=3), Shape(3, 5, 4, 6, L=2, D=2)):
        tensors = doubles(cell, shape)
        given = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        y = run_row(row, cell, shape, given, recompute=again)[0]
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _held_by(y.grad_fn)}
        for tensor in given.values():
            held.pop(tensor.untyped_storage().data_ptr(), None)
        outputs = 8 * y.numel()
        lengths = 8 * shape.B  # how long every row is, in int64
        declared = _recurrent_cost.saved_bytes(COSTS[cell.name], shape, "fp64", again)
        assert sum(held.values()) - outputs - lengths == declared, (shape, held)


def _held_by(node: Any) -> Iterator[torch.Tensor]:
    """All tensors that the recurrence's node of a graph holds, with whatever stands between it and the output."""
    while not hasattr(node, "run"):
        node = node.next_functions[0][0]
    assert vars(node).keys() == {"run", "firsts"}  # no tensor beside those that autograd knows of
    yield from (tensor for tensor in node.saved_tensors if tensor is not None)


@checks.each(*((row, cell) for row in ROWS for cell in EVERY_CELL))
def outputs_that_are_overwritten_refuse_their_gradients(row: str, cell: Cell) -> None:
    """As those of torch.nn do: gradients need the outputs as they were."""
    for shape in (Shape(3, 4, 5, 6), Shape(3, 4, 5, 6, L=2, D=2, ragged=1), Shape(3, 4, 5, 6, L=2)):
        tensors = doubles(cell, shape)
        for name in ("x", "weight_hh", "y"):
            given = {key: value.clone().requires_grad_(value.is_floating_point()) for key, value in tensors.items()}
            y = run_row(row, cell, shape, given)[0]
            total = y.sum()
            with torch.no_grad():
                (y if name == "y" else given[name]).add_(1)
            try:
                torch.autograd.grad(total, given["weight_ih"])
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error), error
            else:
                assert (name, shape.ragged) == ("x", 1), f"{shape}: {name} was overwritten"  # a ragged x was copied


@checks.each(*((row, cell, again) for row in ROWS for cell in EVERY_CELL for again in (False, True)))
def what_the_gradients_need_can_be_kept_elsewhere(row: str, cell: Cell, again: bool) -> None:
    """Hooks see all of it: memory, checkpoints and offloading go by them."""
    shape = Shape(3, 5, 4, 18, L=3)
    tensors = doubles(cell, shape)
    plain = with_gradients(lambda given: run_row(row, cell, shape, given, recompute=again), tensors)
    inputs = {tensor.data_ptr() for tensor in tensors.values()}
    there: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []

    def put(tensor: torch.Tensor) -> int:
        there.append(tensor)
        kept.append(tensor.detach().clone())
        return len(kept) - 1

    def moved(given: Tensors) -> tuple[torch.Tensor, ...]:
        with torch.autograd.graph.saved_tensors_hooks(put, lambda place: kept[place]):
            outputs = run_row(row, cell, shape, given, recompute=again)
        for tensor in there:
            if tensor.is_floating_point() and tensor.data_ptr() not in inputs:
                tensor.detach().fill_(math.nan)  # what is kept here must not be read there
        return outputs

    close(with_gradients(moved, tensors)[1 + cell.states :], plain[1 + cell.states :])
    assert sum(tensor.nbytes for tensor in kept) >= _recurrent_cost.saved_bytes(COSTS[cell.name], shape, "fp64", again)


def several(plan: Plan, **changes: int) -> Plan:
    """The same with tiles of another form, one launch per step."""
    forward, backward = (replace(tile, **changes) for tile in (plan.forward, plan.backward))
    return replace(plan, forward=forward, backward=backward, stepwise=True)


def same_by_plans(cell: Cell, shape: Shape, *plans: Plan) -> None:
    """Outputs and gradients by all of the plans are those of the reference."""
    tensors = doubles(cell, shape)
    want = with_gradients(lambda given: run(cell, shape, given), tensors)
    for plan in plans:
        with planned(plan):
            close(with_gradients(lambda given: run_row("triton_resident", cell, shape, given), tensors), want)


@checks.each(*((cell,) for cell in EVERY_CELL))
def one_launch_is_one_launch_per_step(cell: Cell) -> None:
    shape = Shape(5, 4, 3, 20, D=2, ragged=1)
    one = whole(20, directions=2)
    kept = (
        several(one, units=16),
        several(one, units=4),
        several(one, depth=32, chunks=1),
        several(one, depth=8, chunks=3, flight=2),
    )
    streamed = several(one, units=8, chunks=0)
    streamed_at_once = replace(one, forward=replace(one.forward, chunks=0), backward=replace(one.backward, chunks=0))
    same_by_plans(cell, shape, one, *kept, streamed, streamed_at_once)


@checks.each(*((cell,) for cell in EVERY_CELL))
def a_wavefront_is_one_layer_after_the_other(cell: Cell) -> None:
    shape = Shape(3, 4, 5, 20, L=4)
    by_layer = whole(20)
    # All layers, three and one, and two and two; layers of one launch wait for one another, so step by step.
    waves = [several(replace(by_layer, layers=layers), units=units) for layers, units in ((4, 32), (3, 8), (2, 16))]
    same_by_plans(cell, shape, by_layer, *waves)


@checks.each(*((cell,) for cell in EVERY_CELL))
def tiles_of_sequences_in_turn_are_tiles_side_by_side(cell: Cell) -> None:
    shape = Shape(37, 3, 3, 16, ragged=1)  # three tiles of 16 sequences, the last not full
    three = whole(16, groups=3, backward_groups=3)
    in_turn = [replace(three, groups=groups, backward_groups=groups) for groups in (1, 2)]
    same_by_plans(cell, shape, three, *in_turn, *(several(plan, units=8) for plan in in_turn))


@checks.each(*((cell,) for cell in EVERY_CELL))
def directions_in_turn_are_directions_side_by_side(cell: Cell) -> None:
    shape = Shape(3, 4, 5, 6, L=2, D=2, ragged=1)
    same_by_plans(cell, shape, whole(6, directions=2), whole(6), several(whole(6), units=4))


@checks.each(*((cell,) for cell in EVERY_CELL))
def units_that_are_filled_up_change_nothing(cell: Cell) -> None:
    """As the launcher does with large hidden sizes that are no multiples of 16."""
    usual, padding.MOST_UNALIGNED = padding.MOST_UNALIGNED, 16
    try:
        assert [padding.filled_up(H) for H in (15, 16, 17, 32, 33)] == [15, 16, 32, 32, 48]
        for shape in (Shape(3, 4, 5, 19, L=2, D=2, ragged=1), Shape(3, 4, 5, 19, L=2)):
            tensors = doubles(cell, shape)
            want = with_gradients(lambda given, shape=shape: run(cell, shape, given), tensors)
            close(with_gradients(lambda given, s=shape: run_row("triton_resident", cell, s, given), tensors), want)
    finally:
        padding.MOST_UNALIGNED = usual


@checks.each(*((row, cell) for row in ROWS for cell in EVERY_CELL))
def a_call_leaves_nothing_behind_for_the_next(row: str, cell: Cell) -> None:
    """Neither counters nor unwritten memory, which is filled with NaN here; a graph can be gone through twice."""
    shape = Shape(18, 3, 4, 17, L=2, ragged=1)
    tensors = doubles(cell, shape)
    with poisoned_memory():
        first, second = (with_gradients(lambda given: run_row(row, cell, shape, given), tensors) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))
    close(first, with_gradients(lambda given: run(cell, shape, given), tensors))
    leaves = {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in tensors.items()}
    outputs = run_row(row, cell, shape, leaves)
    targets = [tensor for tensor in leaves.values() if tensor.requires_grad]
    once, again = (torch.autograd.grad(outputs[0].sum(), targets, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again))


SPOILED = [
    *itertools.product(("x", "h_0", "weight_hh"), (math.nan, math.inf)),
    *[("x", -math.inf), ("weight_ih", math.inf), ("bias", math.nan)],
]


@checks.each(*((row, cell, *case) for row in ROWS for cell in EVERY_CELL for case in SPOILED))
def what_is_not_finite_spreads_as_in_torch(row: str, cell: Cell, name: str, value: float) -> None:
    # By the kernel that keeps its weights, the second is a wavefront.
    for shape in (Shape(3, 4, 5, 6, D=2, ragged=1), Shape(3, 3, 5, 6, L=2))[: 1 + (row == "triton_resident")]:
        tensors = doubles(cell, shape)
        tensors[name][..., 0, 2] = value
        for index, (got, want) in enumerate(zip(run_row(row, cell, shape, tensors), run(cell, shape, tensors))):
            assert torch.equal(kinds(got), kinds(want)), f"output {index} of {shape}"


@checks.each((0,), (1,))
def an_infinite_state_below_stays_out_of_the_gate_without_it(seed: int) -> None:
    """gru's last gate takes the layer below and the state apart; zero times infinity would be NaN in the other part."""
    shape = Shape(3, 3, 5, 6, L=2)
    tensors = doubles(gru.CELL, shape, seed)
    tensors["h_0"][0, 0, 2] = math.inf
    tensors["weight_hh"][0, 0, :, 2] = 1.0  # opens all gates of the layer below: its unit stays infinite
    want = run(gru.CELL, shape, tensors)
    assert want[1][0, 0].isinf().sum() == 1 and want[0][:, 0].isfinite().all()
    close(run_row("triton_resident", gru.CELL, shape, tensors), want)


def kinds(tensor: torch.Tensor) -> torch.Tensor:
    """0 where a value is finite, 1 and 2 at infinities, 3 at NaN."""
    return (tensor == math.inf) * 1 + (tensor == -math.inf) * 2 + tensor.isnan() * 3


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


@cells
@pytest.mark.parametrize(("name", "spoil", "sentence"), BAD)
@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_refused(kernel: Any, cell: Cell, name: str, spoil: Any, sentence: str, row: str) -> None:
    shape = kernel.Shape(4, 9, 5, 6, ragged=1)
    tensors: Tensors = doubles(cell, shape)
    tensors[name] = spoil(tensors.get(name))
    with pytest.raises(ValueError, match=sentence):
        kernel.IMPLEMENTATIONS[row].run(shape, **tensors)


@cells
def test_gradients_of_a_forward_row_are_refused(kernel: Any, cell: Cell) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(cell, kernel.Shape(2, 3, 4, 5)).items()}
    with pytest.raises(ValueError, match="computes no gradients; take 'step' or 'resident'"):
        kernel.IMPLEMENTATIONS["triton_streamed"].run(kernel.Shape(2, 3, 4, 5), **tensors)


@cells
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("ragged", [0, 1])
def test_no_sequences_give_empty_outputs_and_gradients_of_zero(kernel: Any, cell: Cell, row: str, ragged: int) -> None:
    shape = kernel.Shape(0, 5, 4, 3, L=2, D=2, dilation=2, ragged=ragged)
    tensors = doubles(cell, shape)
    outputs = with_gradients(lambda given: kernel.IMPLEMENTATIONS[row].run(shape, **given), tensors)
    sizes = [tuple(output.shape) for output in outputs[: 1 + cell.states]]
    assert sizes == [(5, 0, 6), *[(4, 0, 3)] * cell.states]
    leaves = [tensor for name, tensor in tensors.items() if name != "lengths"]
    for gradient, leaf in zip(outputs[1 + cell.states :], leaves, strict=True):
        assert gradient.shape == leaf.shape and not gradient.any()


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
