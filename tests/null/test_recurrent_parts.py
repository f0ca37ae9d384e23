"""The parts of lstm, gru and rnn: what they cost beside the whole, and that running them alone computes the whole."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import gru, lstm, rnn
from seqroof.kernels._recurrent import Shape, folded_lengths, unfold
from seqroof.kernels._recurrent_cost import CellCost, part_works, work
from seqroof.roofline.work import Work

KERNELS = {"lstm": lstm, "gru": gru, "rnn": rnn}
COSTS = {"lstm": lstm.COST, "gru": gru.COST, "rnn": rnn.cost_of(rnn.Shape(1, 1, 1, 1))}
NAMES = ["input product", "recurrence"]
# One layer; a stack; both directions; dilation that does not divide the steps, in rows of different lengths.
SIZES = [(3, 3, 5, 18), (2, 2, 5, 17, 3), (2, 2, 7, 16, 2, 2), (2, 5, 4, 16, 2, 1, 2, 1)]

kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
any_cost = st.sampled_from(list(COSTS.values()))
small = st.integers(1, 9)
any_shape = st.builds(
    Shape, small, small, small, small, st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(0, 1)
)


@given(any_cost, any_shape, st.integers(1, 3))
def test_the_parts_do_what_the_whole_does(cell: CellCost, shape: Shape, layers: int) -> None:
    whole = work(cell, shape, "bf16", "forward")
    product, steps = part_works(cell, shape, "bf16", layers if shape.D == 1 else 1).values()
    for quantity in ("matmul_flops", "pointwise_flops", "special_ops", "parameters", "exchange_bytes"):
        assert getattr(product, quantity) + getattr(steps, quantity) == getattr(whole, quantity), quantity
    assert (product.depth, steps.depth) == (1, whole.depth)
    assert product.tokens == steps.tokens == whole.tokens
    assert steps.hoisted_bytes == steps.streamed_bytes
    assert steps.recurrent_bytes == whole.recurrent_bytes <= steps.weight_bytes <= whole.weight_bytes
    if layers == 1 or shape.D == 2 or shape.L == 1:
        assert product.compulsory_bytes + steps.streamed_bytes == whole.hoisted_bytes
    # What the phases hand to one another is read and written beside what the whole must move.
    assert product.compulsory_bytes + steps.compulsory_bytes >= whole.compulsory_bytes


def moved(cost: Work) -> tuple[int, ...]:
    return tuple(amount // 4 for amount in (cost.read_bytes, cost.write_bytes, cost.streamed_bytes))


def test_parts_counted_by_hand() -> None:
    """gru, B=2, T=3, I=5, H=1, L=2 in fp32: 6 tokens, 3 gates and a bias more; weights 3 x 5 + 3, then 3 + 3."""
    shape = Shape(2, 3, 5, 1, L=2)
    product, steps = part_works(gru.COST, shape, "fp32").values()
    assert (product.matmul_flops, steps.matmul_flops) == (2 * 6 * (15 + 3), 2 * 6 * (3 + 3))
    # Inputs of 5 and 1 values, weights of both layers; 3 gate inputs per token and layer.
    assert moved(product) == ((30 + 6) + (15 + 3), 36, (30 + 6) + (15 + 3) + 36)
    # Gate inputs, W_hh, biases and states are read; y, the layer between and states written. In 3 steps W_hh and one
    # bias of each layer are read again, and a state per token and layer is read and written.
    assert moved(steps) == (36 + 6 + 8 + 4, 6 + 6 + 4, 36 + 6 + 3 * (6 + 2) + 24)
    product, steps = part_works(gru.COST, shape, "fp32", layers=2).values()
    assert (product.matmul_flops, steps.matmul_flops) == (2 * 6 * 15, 2 * 6 * (3 + 3 + 3))
    assert moved(product) == (30 + 15, 18, 30 + 15 + 18)
    # The upper layer reads its input, 1 value per token, and its 3 input weights in every step.
    assert moved(steps) == (18 + 6 + 3 + 8 + 4, 6 + 4, 18 + 6 + 3 * (6 + 3 + 2) + 6 + 24)


@kernels
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_input_product_of_torch_costs_what_it_declares(kernel: Any, sizes: tuple[int, ...]) -> None:
    shape = kernel.Shape(*sizes)
    parts = kernel.IMPLEMENTATIONS["torch"].parts(shape, kernel.inputs(shape, "bf16", "cpu", 0))
    assert [part.name for part in parts] == NAMES[:1]
    with FlopCounterMode(display=False) as counter:
        parts[0].run()
    assert counter.get_total_flops() == parts[0].work.matmul_flops
    assert parts[0].work.depth == 1


@kernels
def test_the_input_product_of_torch_is_that_of_its_layers(kernel: Any) -> None:
    shape = kernel.Shape(*SIZES[3])
    tensors = kernel.inputs(shape, "fp32", "cpu", 0)
    below, above = kernel.IMPLEMENTATIONS["torch"].parts(shape, tensors)[0].run()
    assert below.shape[0] == int(tensors["lengths"].sum()) == above.shape[0]
    one = {name: tensors[name][:1] for name in ("weight_hh", "bias", "h_0", "c_0") if name in tensors}
    rest = {name: tensors[name] for name in ("x", "weight_ih", "lengths")}
    outputs = kernel.reference(kernel.Shape(*SIZES[3][:4], 1, *SIZES[3][5:]), **rest, **one)[0]
    padded = F.pad(outputs, (0, 0, 0, 0, 0, 1)).view(3, 4, -1)
    lengths = folded_lengths(shape, tensors["lengths"], "cpu")
    valid = torch.cat([padded[t, row][None] for t in range(3) for row in range(4) if t < lengths[row]])
    torch.testing.assert_close(above, F.linear(valid, tensors["weight_ih_upper"][0, 0]), rtol=1e-4, atol=1e-5)


@kernels
def test_no_sequences_have_no_parts(kernel: Any) -> None:
    shape = kernel.Shape(0, 3, 4, 5)
    for row in ("torch", "triton_step", "triton_resident"):
        assert kernel.IMPLEMENTATIONS[row].parts(shape, kernel.inputs(shape, "fp32", "cpu", 0)) == []


def _compare(kernel: Any, row: str, sizes: tuple[int, ...]) -> None:
    """In the interpreter: the product is the input product, and the steps, run again, give the output of the row."""
    shape = kernel.Shape(*sizes)
    tensors = kernel.inputs(shape, "fp32", "cpu", 0)
    product, steps = kernel.IMPLEMENTATIONS[row].parts(shape, tensors)
    assert [product.name, steps.name] == NAMES
    with FlopCounterMode(display=False) as counter:
        products = product.run()
    assert isinstance(products, list)
    lowest = tensors["weight_ih"].flatten(0, 1)
    assert products[0].shape == (shape.folded_steps * shape.folded_rows, len(lowest))
    if not shape.ragged:  # what is padded is multiplied too, and costs nothing
        torch.testing.assert_close(products[0], F.linear(tensors["x"], lowest).flatten(0, 1))
        assert counter.get_total_flops() == product.work.matmul_flops
    y = steps.run()
    assert isinstance(y, torch.Tensor)
    assert torch.equal(unfold(shape, y), kernel.IMPLEMENTATIONS[row].run(shape, **tensors)[0])


# The launcher is the same for all cells: the others stand for what their costs and device functions could spoil.
COMPARED = [("lstm", row, sizes) for row in ("triton_step", "triton_resident") for sizes in SIZES]
COMPARED += [("gru", "triton_resident", SIZES[0]), ("rnn", "triton_resident", SIZES[0])]


def test_the_parts_of_the_triton_rows_compute_the_whole() -> None:
    command = [sys.executable, str(Path(__file__).resolve())]
    child = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.splitlines() == [str(case) for case in COMPARED]


if __name__ == "__main__":
    for case in COMPARED:
        _compare(KERNELS[case[0]], *case[1:])
        print(case)
