"""The Triton kernels of the convolutions in Triton's interpreter: derivatives, variants and what they keep.

That they agree with the references at odd sizes and in all dtypes is checked by test_interpreter. Here most is in
float64, in which two right ways to compute the same differ by rounding alone. Run as a script, this file is the child.
"""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from convolutions import close, derivatives_are_those_of_differences, doubles, with_gradients
from interpreting import Checks, run_interpreted
from torch import Tensor

from seqroof.kernels import _conv_launch, _triton, dilated_conv, gated_conv, gated_conv_block, transposed_conv
from seqroof.kernels._catalog import Kernel, load

checks = Checks()


def run(kernel: Kernel, shape: Any, **tensors: Tensor) -> tuple[Tensor, ...]:
    """Outputs of the row triton."""
    return kernel.implementations["triton"].run(shape, **tensors)


TINY: list[tuple[Kernel, Any]] = [
    (load("gated_conv"), gated_conv.Shape(1, 4, 2, 3, 2)),
    (load("gated_conv"), gated_conv.Shape(2, 5, 2, 2, 2, dilation=3, residual=1)),
    (load("dilated_conv"), dilated_conv.Shape(1, 5, 2, 2, 2)),
    (load("dilated_conv"), dilated_conv.Shape(2, 4, 2, 3, 2, residual=0)),
    (load("transposed_conv"), transposed_conv.Shape(2, 3, 2, 3, 3, stride=2, padding=1, output_padding=1)),
    (load("transposed_conv"), transposed_conv.Shape(1, 3, 2, 2, 2, stride=4, dilation=2)),
    (load("gated_conv_block"), gated_conv_block.Shape(1, 4, 3, 2)),
]


@checks.each(*TINY)
def derivatives_are_right(kernel: Kernel, shape: Any) -> None:
    derivatives_are_those_of_differences(lambda **given: run(kernel, shape, **given), doubles(kernel.module, shape))


LARGER: list[tuple[Kernel, Any]] = [
    (load("gated_conv"), gated_conv.Shape(2, 40, 16, 16, 3, residual=1)),
    (load("dilated_conv"), dilated_conv.Shape(2, 40, 17, 2, 2)),
    (load("transposed_conv"), transposed_conv.Shape(2, 20, 16, 32, 4, stride=2, padding=1)),
    (load("gated_conv_block"), gated_conv_block.Shape(2, 20, 16, 2)),
]


@checks.each(*LARGER)
def no_sequences_give_no_outputs(kernel: Kernel, shape: Any) -> None:
    none = replace(shape, B=0)
    y, *gradients = with_gradients(lambda **given: run(kernel, none, **given), doubles(kernel.module, none))
    assert y.numel() == 0
    assert all((gradient == 0).all() for gradient in gradients)


@checks.each(*((kernel, replace(shape, T=1)) for kernel, shape in LARGER))
def one_step_may_be_a_view_whose_channels_overlap(kernel: Kernel, shape: Any) -> None:
    """(B, C, 1) turned to (B, 1, C) counts as contiguous, with a stride of one from step to step."""
    tensors = kernel.module.inputs(shape, "fp32", "cpu", 3)
    turned = tensors | {"x": tensors["x"].as_strided((shape.B, 1, shape.C), (shape.C, 1, 1))}
    want, got = (run(kernel, shape, **given)[0] for given in (tensors, turned))
    assert torch.equal(want, got)


@checks.each(*LARGER)
def the_same_call_gives_the_same_bits(kernel: Kernel, shape: Any) -> None:
    tensors = kernel.module.inputs(shape, "fp32", "cpu", 1)
    once, again = (with_gradients(lambda **given: run(kernel, shape, **given), tensors) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


@checks.each(*LARGER)
def gradients_can_be_taken_twice_and_of_some_inputs_only(kernel: Kernel, shape: Any) -> None:
    tensors = doubles(kernel.module, shape)
    want = with_gradients(lambda **given: kernel.reference(shape, **given), tensors)[1:]
    for names in (list(tensors), *([name] for name in tensors)):
        given = {name: tensor.detach().requires_grad_(name in names) for name, tensor in tensors.items()}
        (y,) = run(kernel, shape, **given)
        above = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
        leaves = [given[name] for name in names]
        first = torch.autograd.grad(y, leaves, above, retain_graph=True)
        close(first, [gradient for name, gradient in zip(tensors, want) if name in names])
        if len(names) > 1:
            close(torch.autograd.grad(y, leaves, above), first)


@checks.each(*LARGER)
def a_gradient_without_memory_of_its_own_will_do(kernel: Kernel, shape: Any) -> None:
    """The gradient of a sum is one number for all outputs."""
    tensors = doubles(kernel.module, shape)
    found = []
    for compute in (kernel.reference, partial(run, kernel)):
        given = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        found.append(torch.autograd.grad(compute(shape, **given)[0].sum(), list(given.values())))
    close(*found)


@checks.each(*LARGER[:2])
def a_nan_reaches_the_gradients_that_it_reaches_in_the_reference(kernel: Kernel, shape: Any) -> None:
    tensors = kernel.module.inputs(shape, "fp32", "cpu", 1)
    tensors["x"][0, 5, 2] = float("nan")
    want = with_gradients(lambda **given: kernel.reference(shape, **given), tensors)
    got = with_gradients(lambda **given: run(kernel, shape, **given), tensors)
    for mine, other in zip(got, want, strict=True):
        assert torch.equal(mine.isnan(), other.isnan())


@checks.each((gated_conv.Shape(2, 40, 16, 16, 3, residual=1),), (gated_conv.Shape(1, 30, 7, 5, 2, dilation=9),))
def gates_computed_again_give_the_same_gradients(shape: Any) -> None:
    tensors = doubles(gated_conv, shape)
    kept = with_gradients(lambda **given: gated_conv._run_triton(shape, **given), tensors)
    again = with_gradients(lambda **given: gated_conv._run_triton(shape, **given, recompute=True), tensors)
    assert all(torch.equal(*pair) for pair in zip(again, kept, strict=True))


def _held(node: Any) -> dict[int, int]:
    """Bytes of the memory that a graph holds, by address."""
    held = {}
    if hasattr(node, "saved_tensors"):
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in node.saved_tensors}
    for following, _ in node.next_functions:
        if following is not None:
            held |= _held(following)
    return held


@checks.each(
    (load("gated_conv"), LARGER[0][1]),
    (load("dilated_conv"), dilated_conv.Shape(2, 9, 5, 2, 3)),
    (load("dilated_conv"), dilated_conv.Shape(2, 9, 5, 2, 3, residual=0)),
    (load("transposed_conv"), LARGER[2][1]),
)
def what_is_left_for_the_gradients_is_what_is_declared(kernel: Kernel, shape: Any) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(kernel.module, shape).items()}
    (y,) = run(kernel, shape, **tensors)
    held = _held(y.grad_fn)
    for tensor in (*tensors.values(), y):
        held.pop(tensor.untyped_storage().data_ptr(), None)
    assert sum(held.values()) == kernel.module.work(shape, "fp64", "both").saved_bytes


# More sums over time than there are programs, and tiles that lie over the end of the sequence.
@checks.each((1,), (3,), (50,), (10**6,))
def a_sum_over_time_may_be_split_as_one_likes(programs: int) -> None:
    x, g = (torch.randn(3, 150, 5, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    walk = _conv_launch.causal(150, 3, 40)
    usual, _conv_launch.PROGRAMS = _conv_launch.PROGRAMS, programs
    try:
        got = _conv_launch.weight_gradient(x, g, walk)
    finally:
        _conv_launch.PROGRAMS = usual
    padded = torch.nn.functional.pad(x, (0, 0, 80, 0))
    want = torch.stack([torch.einsum("btc,bto->co", padded[:, 40 * w : 40 * w + 150], g) for w in range(3)])
    close((got,), (want,))


FUSED = [
    dilated_conv.Shape(2, 600, 3, 2, 3, base=3),
    dilated_conv.Shape(1, 257, 17, 3, 2, residual=0),
    dilated_conv.Shape(1, 300, 2, 2, 1, first=256),
]


@checks.each(*((shape,) for shape in FUSED))
def all_layers_in_one_launch_are_those_one_by_one(shape: Any) -> None:
    """Over several pieces, whose beginnings are computed by two programs, or by the same one after the other."""
    tensors = doubles(dilated_conv, shape)
    usual = dilated_conv.PROGRAMS
    for programs in (usual, 1):
        dilated_conv.PROGRAMS = programs
        try:
            close(
                dilated_conv.IMPLEMENTATIONS["triton_fused"].run(shape, **tensors),
                run(load("dilated_conv"), shape, **tensors),
            )
        finally:
            dilated_conv.PROGRAMS = usual


@checks.each()
def a_stack_that_reaches_too_far_is_refused_with_a_sentence() -> None:
    shape = dilated_conv.Shape(1, 4, 2, 2, 1, first=257)
    with pytest.raises(ValueError, match="257 steps before it"):
        dilated_conv.IMPLEMENTATIONS["triton_fused"].run(shape, **doubles(dilated_conv, shape))


@checks.each()
def parts_make_up_the_whole_block() -> None:
    shape = LARGER[3][1]
    tensors = doubles(gated_conv_block, shape)
    parts = gated_conv_block.IMPLEMENTATIONS["triton"].parts(shape, tensors)
    close([[part.run() for part in parts][2]], run(load("gated_conv_block"), shape, **tensors))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("name", checks)
def test_interpreted(name: str, interpreted: dict[str, str]) -> None:
    assert interpreted[name] == "", interpreted[name]


@pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: float64 is taken there")
@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize(("kernel", "shape"), LARGER, ids=[kernel.name for kernel, _ in LARGER])
def test_float64_is_refused_with_a_sentence(kernel: Kernel, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"sum in float32.*reference for float64\."):
        run(kernel, shape, **doubles(kernel.module, shape))


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
