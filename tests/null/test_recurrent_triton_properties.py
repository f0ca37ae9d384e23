"""The Triton rows and torch's have the properties of the references: causality, independence, composition, carrying.

The properties are those of test_recurrent_properties, with few examples of every cell. Run as a script, this file is
the child whose kernels are interpreted.
"""

import importlib
import sys
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
import recurrences
import torch
from interpreting import Checks, run_interpreted
from recurrences import CELLS, SCHEDULES, run_row

from seqroof.kernels import _triton
from seqroof.kernels._recurrent import Cell, Shape, inputs
from seqroof.kernels._recurrent_rows import why_not_torch
from seqroof.kernels._recurrent_vendor import run_torch

ROWS = ("torch", *SCHEDULES)
PROPERTIES = [
    "test_a_later_input_does_not_change_earlier_outputs",
    "test_a_row_does_not_change_another",
    "test_states_carry_from_one_half_to_the_next",
    "test_the_second_direction_is_the_first_on_the_reversed_sequence",
    "test_a_stack_is_one_layer_after_the_other",
    "test_ragged_rows_are_rows_by_themselves",
]
# Of a cell; the first has the smallest sizes. The interpreter takes up to a second for one.
EXAMPLES = {"torch": 5, "triton_step": 2, "triton_streamed": 2, "triton_resident": 2}
checks = Checks()


def run_any(row: str, cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    if row == "torch":
        hypothesis.assume(why_not_torch(shape, "fp64", "cpu") is None)
        return run_torch(cell, shape, **tensors)
    return run_row(row, cell, shape, tensors)


def properties(row: str, cell: Cell) -> Any:
    """The references' properties for one cell, with the runs of a row in place of the references, and few examples."""
    given = hypothesis.settings
    few = {"max_examples": EXAMPLES[row], "derandomize": True, "database": None, "deadline": None}
    quiet = {"suppress_health_check": list(hypothesis.HealthCheck)}
    hypothesis.settings = lambda **_: given(**few, **quiet)
    recurrences.CELLS = [pair for pair in CELLS if pair[1] is cell]  # what the module draws cells from
    try:
        sys.modules.pop("test_recurrent_properties", None)
        module = importlib.import_module("test_recurrent_properties")
    finally:
        hypothesis.settings, recurrences.CELLS = given, CELLS
    module.run = lambda cell, shape, tensors: run_any(row, cell, shape, tensors)
    return module


@checks.each(*((row, cell, name) for row in ROWS for _, cell in CELLS for name in PROPERTIES))
def has_the_property(row: str, cell: Cell, name: str) -> None:
    # Sizes of its own for every cell, the same in each run.
    hypothesis.seed(cell.name)(getattr(properties(row, cell), name))()


STACKS = [("triton_step", 1), ("triton_resident", 1), ("triton_resident", 2)]


@checks.each(*((row, cell, L) for row, L in STACKS for _, cell in CELLS))
def states_carry_exactly(row: str, cell: Cell, L: int) -> None:
    """In fp32 too. PyTorch sums the input product in an order of its own, so x and its weights have few bits here."""
    shape = Shape(3, 7, 5, 18, L=L)
    tensors = inputs(cell, shape, "fp32", "cpu", 0)
    for name in ("x", "weight_ih"):
        tensors[name] = (tensors[name].clamp(-4, 4) * 64).round() / 64
    whole = run_row(row, cell, shape, tensors)
    first = run_row(row, cell, replace(shape, T=4), tensors | {"x": tensors["x"][:4]})
    carried = dict(zip(("h_0", "c_0"), first[1:]))
    second = run_row(row, cell, replace(shape, T=3), tensors | {"x": tensors["x"][4:]} | carried)
    assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
    assert all(torch.equal(half, state) for half, state in zip(second[1:], whole[1:]))


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
