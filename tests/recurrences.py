"""The cells of the recurrent kernels and their references, for the tests of this family."""

from typing import Any, get_args

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqroof.kernels import _recurrent, gru, lstm, rnn
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_plan import Schedule

# The schedules of the Triton rows.
SCHEDULES: dict[str, Schedule] = {f"triton_{name}": name for name in get_args(Schedule)}
CELLS: list[tuple[Any, Cell]] = [(lstm, lstm.CELL), (gru, gru.CELL), (rnn, rnn.TANH), (rnn, rnn.RELU)]
cells = pytest.mark.parametrize(("kernel", "cell"), CELLS, ids=[cell.name for _, cell in CELLS])


def doubles(cell: Cell, shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    tensors = _recurrent.inputs(cell, shape, "fp32", "cpu", seed)
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def run(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return _recurrent.reference(cell, shape, **tensors)


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
