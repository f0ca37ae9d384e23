"""The Triton kernels of the addressed memory in Triton's interpreter: gradients, what they keep, and properties.

That they agree with the reference at odd sizes and in all dtypes is checked by test_interpreter. Here most is in
float64, in which two right ways to compute the same differ by rounding alone. Run as a script, this file is the child.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreting import Checks, run_interpreted

from seqroof.kernels import _memory_launch, _memory_triton, _triton
from seqroof.kernels.memory_attention import IMPLEMENTATIONS, Shape, inputs, reference, work
from seqroof.profiler.poison import poisoned_memory

ROWS = ("triton_step", "triton_resident")
checks = Checks()
both_rows = checks.each(*((row,) for row in ROWS))

Tensors = dict[str, torch.Tensor]


def doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def run(row: str, shape: Shape, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    return IMPLEMENTATIONS[row].run(shape, **tensors)


def with_gradients(compute: Callable[..., Any], shape: Shape, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """Outputs, and the gradients of all inputs for fixed random gradients of the outputs."""
    given = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    outputs = compute(shape, **given)
    source = torch.Generator().manual_seed(3)
    above = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
    return *outputs, *torch.autograd.grad(outputs, list(given.values()), above)


def as_the_reference(row: str, shape: Shape, tensors: Tensors) -> None:
    got = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    for mine, want in zip(got, with_gradients(reference, shape, tensors), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-10, atol=1e-11, equal_nan=True)


def scalars(shape: Shape, tensors: Tensors) -> torch.Tensor:
    """Strength, gate, three shifts and sharpening of all steps, a view."""
    return tensors["controls"][..., 3 * shape.P :]


@both_rows
def gradients_are_those_of_differences(row: str) -> None:
    shape = Shape(2, 2, 3, 2)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}

    # One vector in and one out: every pair of an input and an output would take runs of its own.
    def function(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([tensor.numel() for tensor in tensors.values()])
        given = {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts)}
        return torch.cat([output.flatten() for output in run(row, shape, given)])

    flat = torch.cat([tensor.detach().flatten() for tensor in tensors.values()]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)


@both_rows
def rows_and_keys_without_a_norm(row: str) -> None:
    shape = Shape(2, 2, 4, 3)
    tensors = doubles(shape)
    tensors["memory"][0, 1] = 0
    tensors["memory"][1, 2] = 1e-9
    tensors["controls"][0, 0, :3] = 0
    tensors["controls"][1, 1, :3] = 1e-9
    as_the_reference(row, shape, tensors)


@both_rows
def weights_that_are_exactly_zero(row: str) -> None:
    """A power of one keeps a gradient where the shifted weights are zero; a larger one loses it."""
    shape = Shape(2, 2, 5, 3)
    tensors = doubles(shape)
    tensors["weights"].zero_()[:, 2] = 1
    scalars(shape, tensors)[..., 1:5] = torch.tensor([-800.0, -800.0, 0.0, -800.0], dtype=torch.float64)
    scalars(shape, tensors)[:, 0, 5] = -800
    as_the_reference(row, shape, tensors)


@both_rows
def infinite_controls(row: str) -> None:
    """Each in a batch row of its own: both infinities and NaN of every scalar, of the key, of erase and of add."""
    values = (math.inf, -math.inf, math.nan)
    places = [0, 2, 4, *range(6, 12)]
    shape = Shape(len(values) * len(places), 1, 3, 2)
    tensors = doubles(shape)
    for index, place in enumerate(places):
        for number, value in enumerate(values):
            tensors["controls"][0, index * len(values) + number, place] = value
    for mine, want in zip(run(row, shape, tensors), reference(shape, **tensors), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-12, atol=1e-13, equal_nan=True)


@both_rows
def no_power_of_all_weights_underflows(row: str) -> None:
    shape = Shape(1, 1, 200, 2)
    tensors = inputs(shape, "fp32", "cpu", seed=1)
    tensors["weights"].fill_(1 / shape.M)
    scalars(shape, tensors)[..., 1] = -math.inf
    scalars(shape, tensors)[..., 5] = 1000
    torch.testing.assert_close(run(row, shape, tensors)[2], tensors["weights"], rtol=1e-3, atol=0)


@both_rows
def a_shift_moves_all_weight_by_one_row_and_nothing_else_changes_a_bit(row: str) -> None:
    for M in (1, 2, 3, 70):
        shape = Shape(3, 2, M, 5)
        tensors = doubles(shape)
        tensors["weights"].zero_()[:, 0] = 1
        scalars(shape, tensors)[..., 1:5] = -math.inf
        for b in range(3):
            scalars(shape, tensors)[:, b, 2 + b] = 0
        tensors["controls"][..., 5:10] = -math.inf
        tensors["controls"][..., 10:15] = 0
        _, memory, weights = run(row, shape, tensors)
        assert weights.argmax(1).tolist() == [-2 % M, 0, 2 % M], M
        assert (weights.max(1).values == 1).all() and torch.equal(weights.sum(1), torch.ones(3).double())
        assert torch.equal(memory, tensors["memory"])


@both_rows
def two_halves_make_the_whole(row: str) -> None:
    shape = Shape(2, 5, 6, 20)
    tensors = doubles(shape)
    whole = run(row, shape, tensors)
    first = run(row, Shape(2, 2, 6, 20), tensors | {"controls": tensors["controls"][:2]})
    rest = {"memory": first[1], "weights": first[2], "controls": tensors["controls"][2:]}
    second = run(row, Shape(2, 3, 6, 20), rest)
    for got, want in zip((torch.cat((first[0], second[0])), *second[1:]), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)


@both_rows
def batch_rows_do_not_meet(row: str) -> None:
    """Several programs per memory in the step row: a batch row is alone with its blocks."""
    shape = Shape(3, 2, 130, 4)
    tensors = doubles(shape)
    before = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    tensors["memory"][1] = math.nan
    after = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    axes = (1, 0, 0, 0, 0, 1)
    for was, now, axis in zip(before, after, axes, strict=True):
        was, now = was.movedim(axis, 0), now.movedim(axis, 0)
        assert torch.equal(was[[0, 2]], now[[0, 2]]) and now[1].isnan().any()


@both_rows
def gradients_do_not_depend_on_what_memory_held(row: str) -> None:
    """Buffers are not cleared, so all that is read must have been written; and no input is overwritten."""
    shape = Shape(2, 3, 5, 7)
    tensors = doubles(shape)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    want = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    with poisoned_memory():
        got = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


@both_rows
def a_graph_can_be_gone_through_twice(row: str) -> None:
    shape = Shape(1, 2, 4, 3)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    total = sum(output.square().sum() for output in run(row, shape, tensors))
    leaves = list(tensors.values())
    assert isinstance(total, torch.Tensor)
    once = torch.autograd.grad(total, leaves, retain_graph=True)
    again = torch.autograd.grad(total, leaves)
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


@checks.each(*((row, dtype) for row in ROWS for dtype in ("bf16", "fp64")))
def what_is_kept_for_the_gradients_is_what_is_declared(row: str, dtype: str) -> None:
    """Where rows have no padding; the node holds inputs too, which do not count."""
    shape = Shape(2, 3, 5, 16)
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, dtype, "cpu", 0).items()}
    node: Any = run(row, shape, tensors)[0].grad_fn
    held = node.saved_tensors
    given = {tensor.data_ptr() for tensor in tensors.values()}
    kept = [tensor for tensor in held if tensor.data_ptr() not in given]
    assert sum(tensor.nbytes for tensor in kept) == work(shape, dtype, "forward").saved_bytes


@both_rows
def no_batch_gives_nothing_and_no_gradients(row: str) -> None:
    shape = Shape(0, 2, 3, 4)
    r, memory, weights, *gradients = with_gradients(IMPLEMENTATIONS[row].run, shape, doubles(shape))
    assert (r.shape, memory.shape, weights.shape) == ((2, 0, 4), (0, 3, 4), (0, 3))
    assert [gradient.numel() for gradient in gradients] == [0, 0, 0]


@checks.each()
def a_memory_too_large_for_two_in_registers_gets_its_gradients_step_by_step() -> None:
    shape = Shape(1, 2, 130, 40)
    tile = _memory_launch.tile_for(shape.M, shape.P, resident=True)
    assert isinstance(tile, _memory_launch.Tile)
    assert not _memory_launch.walks_back(tile, 8)
    as_the_reference("triton_resident", shape, doubles(shape))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, interpreted: dict[str, str]) -> None:
    assert interpreted[check] == ""


def _identity(kernel: Any, values: dict[str, Any], warps: int, element: str) -> tuple[Any, ...]:
    return kernel, str(sorted(values.items())), warps, element


STEP = (
    _memory_triton.COSINES,
    _memory_triton.READ_AND_WRITE,
    _memory_triton.WRITE_GRADIENTS,
    _memory_triton.ADDRESS_GRADIENTS,
)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_every_shape_that_is_taken_has_its_kernels_compiled(resident: bool, dtype: str) -> None:
    """Sizes at the edges of all tiles."""
    compiled = [
        _identity(case.kernel, case.constexprs, case.options["num_warps"], next(iter(case.signature.values())))
        for case in _memory_launch.COMPILE
    ]
    assert len(set(compiled)) == len(compiled)
    for M in (1, 32, 33, 128, 129, 256, 257, 512, 2048):
        for P in (1, 16, 17, 32, 33, 64, 65, 128):
            tile = _memory_launch.tile_for(M, P, resident)
            if isinstance(tile, str):
                assert resident and "triton_step" in tile
                continue
            assert tile.columns >= P and tile.every >= M and (not resident or tile.rows >= M)
            walks = (_memory_triton.WALK, _memory_triton.WALK_BACK)
            two = _memory_launch.walks_back(tile, 4 if dtype == "fp32" else 2)
            for kernel in (walks if two else walks[:1]) if resident else (*STEP, _memory_triton.SUM_PARTS):
                for save in (False, True):
                    values = _memory_launch._constants(kernel, tile, save, torch.float32, interpret=False)
                    warps = _memory_launch._options(kernel, tile)["num_warps"]
                    assert _identity(kernel.program, values, warps, f"*{dtype}") in compiled, (kernel.name, tile)


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
