"""The weights that torch.nn's operator gets: without gradients of whole stacks, and in one buffer where it wants that.

The buffer of CUDA is made here on a CPU, where it changes nothing but the way of the weights.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrences import Operators, cells, close, doubles, run

from seqroof.kernels import _recurrent_vendor, lstm
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_vendor import run_torch, to_module

SHAPES = [Shape(2, 3, 4, 5), Shape(3, 4, 5, 6, D=2), Shape(2, 4, 3, 5, L=3), Shape(3, 5, 4, 6, L=2, D=2, ragged=1)]
both_ways = pytest.mark.parametrize("buffer", [False, True], ids=["apart", "one buffer"], indirect=True)
one_buffer = pytest.mark.parametrize("buffer", [True], ids=["one buffer"], indirect=True)


@pytest.fixture
def buffer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the weights go through one buffer, as they do on CUDA."""
    monkeypatch.setattr(_recurrent_vendor, "_wants_buffer", lambda weight: request.param)
    return request.param


def leaves_of(cell: Cell, shape: Shape) -> dict[str, torch.Tensor]:
    tensors = doubles(cell, shape)
    return {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in tensors.items()}


@cells
@both_ways
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_the_reference(kernel: Any, cell: Cell, shape: Shape, buffer: bool) -> None:
    tensors = leaves_of(cell, shape)
    leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
    for _ in range(2):  # the second call finds the buffer
        outputs = run_torch(cell, shape, **tensors)
        gradients = [torch.randn_like(output) for output in outputs]
        got = torch.autograd.grad(outputs, leaves, gradients)
        close(got, torch.autograd.grad(run(cell, shape, tensors), leaves, gradients))


def started(run: Callable[[], tuple[torch.Tensor, ...]], leaves: list[torch.Tensor]) -> int:
    """Operators of a training step: the outputs, and the gradients of the leaves."""
    with Operators() as operators:
        torch.autograd.grad([output.sum() for output in run()], leaves)
    return operators.count


@cells
@both_ways
@pytest.mark.parametrize("shape", [Shape(2, 3, 4, 5), Shape(2, 3, 4, 5, L=3, D=2)], ids=str)
def test_a_training_step_starts_what_a_module_starts(kernel: Any, cell: Cell, shape: Shape, buffer: bool) -> None:
    """Beside a join of the gradients for every stack of several, or for gru's bias alone; and without the buffer
    the second bias, and what cuts gru's, fills it up, and joins its gradients."""
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(cell, shape).items()}
    module = to_module(cell, shape, tensors)
    starts = tuple(tensors[name] for name in ("h_0", "c_0")[: cell.states])
    states = starts if cell.states == 2 else starts[0]

    def by_module() -> tuple[torch.Tensor, ...]:
        y, last = module(tensors["x"], states)
        return y, *(last if cell.states == 2 else (last,))

    theirs = started(by_module, [tensors["x"], *starts, *module.parameters()])
    _, ours = (started(lambda: run_torch(cell, shape, **tensors), list(tensors.values())) for _ in range(2))
    gru = cell.biases > cell.gates
    joins = 4 if shape.L * shape.D > 1 else int(gru and buffer)
    assert ours - theirs <= joins + (0 if buffer else 1 + 4 * gru), (ours, theirs)


@cells
@one_buffer
def test_what_is_written_to_weights_reaches_the_buffer(kernel: Any, cell: Cell, buffer: bool) -> None:
    shape = Shape(3, 4, 5, 6, L=2)
    tensors = leaves_of(cell, shape)
    before = run_torch(cell, shape, **tensors)
    place = _recurrent_vendor._vendor_weights(cell, shape, tensors)[0].data_ptr()
    for name in ("weight_ih", "weight_ih_upper", "weight_hh", "bias"):
        with torch.no_grad():
            tensors[name].mul_(1.5)
            close(run_torch(cell, shape, **tensors), run(cell, shape, tensors))
    assert _recurrent_vendor._vendor_weights(cell, shape, tensors)[0].data_ptr() == place
    # As of a module: the outputs from before were made with other weights.
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(before[0].sum(), tensors["weight_ih"])


@one_buffer
def test_weights_turned_around_in_the_same_place_are_others(buffer: bool) -> None:
    shape = Shape(3, 4, 64, 16)
    tensors = doubles(lstm.CELL, shape)
    close(run_torch(lstm.CELL, shape, **tensors), run(lstm.CELL, shape, tensors))
    tensors["weight_ih"] = tensors["weight_ih"].transpose(1, 2)
    close(run_torch(lstm.CELL, shape, **tensors), run(lstm.CELL, shape, tensors))


@one_buffer
def test_what_was_copied_keeps_its_place_as_long_as_the_recurrent_weights_live(buffer: bool) -> None:
    """Else other weights could come to lie there, and be taken for those that were copied."""

    class Memory(bytearray):
        """Bytes that can be watched."""

    shape = Shape(3, 4, 5, 6)
    tensors = doubles(lstm.CELL, shape)
    memory = Memory(tensors["weight_ih"].nbytes)
    watched = weakref.ref(memory)
    shared = torch.frombuffer(memory, dtype=torch.float64).view(tensors["weight_ih"].shape)
    tensors["weight_ih"] = shared.copy_(tensors["weight_ih"])
    run_torch(lstm.CELL, shape, **tensors)
    del memory, shared, tensors["weight_ih"]
    assert watched() is not None
    del tensors
    gc.collect()
    assert watched() is None


@one_buffer
def test_gradients_of_two_inputs_beside_the_same_recurrent_weights(buffer: bool) -> None:
    shape = Shape(3, 4, 5, 6)
    first = leaves_of(lstm.CELL, shape)
    second = first | {"weight_ih": torch.randn_like(first["weight_ih"]).requires_grad_()}
    outputs = [run_torch(lstm.CELL, shape, **tensors)[0].sum() for tensors in (first, second)]
    wanted = [run(lstm.CELL, shape, tensors)[0].sum() for tensors in (first, second)]
    for tensors, got, want in zip((first, second), outputs, wanted, strict=True):
        leaves = [tensors["weight_ih"], tensors["weight_hh"]]
        close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))
