"""The cells of the recurrent kernels, their references and their Triton rows, for the tests of this family."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqroof.kernels import _recurrent, _recurrent_launch, gru, lstm, rnn
from seqroof.kernels import _recurrent_plan as planning
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_plan import Plan, Schedule
from seqroof.kernels._recurrent_tiles import Tile

# The schedules of the Triton rows.
SCHEDULES: dict[str, Schedule] = {f"triton_{name}": name for name in get_args(Schedule)}
CELLS: list[tuple[Any, Cell]] = [(lstm, lstm.CELL), (gru, gru.CELL), (rnn, rnn.TANH), (rnn, rnn.RELU)]
DEVICE_CELLS = {"lstm": lstm.DEVICE, "gru": gru.DEVICE} | {
    f"rnn_{name}": rnn.device_of(rnn.Shape(1, 1, 1, 1, relu=relu)) for relu, name in enumerate(("tanh", "relu"))
}
cells = pytest.mark.parametrize(("kernel", "cell"), CELLS, ids=[cell.name for _, cell in CELLS])


def doubles(cell: Cell, shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    tensors = _recurrent.inputs(cell, shape, "fp32", "cpu", seed)
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def run(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return _recurrent.reference(cell, shape, **tensors)


def run_row(row: str, cell: Cell, shape: Shape, tensors: dict[str, Any], **how: bool) -> tuple[torch.Tensor, ...]:
    """Outputs of one of the Triton rows."""
    return _recurrent_launch.recurrence(DEVICE_CELLS[cell.name], shape, SCHEDULES[row], **how, **tensors)


@contextlib.contextmanager
def planned(plan: Plan) -> Iterator[None]:
    """Launch by a plan of one's own."""
    usual = planning.plan_for
    planning.plan_for = lambda *_: plan
    try:
        yield
    finally:
        planning.plan_for = usual


def whole(H: int, **changes: Any) -> Plan:
    """One program per chain that takes all units and all steps, in one group of 16 sequences."""
    tile = Tile(units=32, batch=16, depth=16, chunks=-(-H // 16), flight=1)
    return replace(Plan(tile, tile, 1, 1, 1, 1, stepwise=False), **changes)


def close(got: Any, want: Any) -> None:
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


class Operators(TorchDispatchMode):
    """Counts operators that start work on a device: views start none."""

    NAMES = "t select split split_with_sizes slice view _unsafe_view transpose unbind squeeze unsqueeze expand detach"
    VIEWS = tuple(f"aten.{name}." for name in NAMES.split())

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not str(function).startswith(self.VIEWS)
        return function(*args, **(kwargs or {}))
