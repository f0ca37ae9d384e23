"""The Triton normalisation of transformer_block in Triton's interpreter is nn.functional's, with its gradients.

Run as a script, this file is the child.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreting import Checks, run_interpreted
from torch.nn import functional as F

from seqroof.kernels import _triton, attention
from seqroof.kernels import transformer_block as block
from seqroof.kernels._transformer_norm import EPSILON, add_normalise, normalise
from seqroof.profiler.poison import poisoned_memory

checks = Checks()

Outputs = tuple[torch.Tensor, ...]
# One row, fewer columns than a block, a whole block, several rows of blocks, and rows that take several turns.
SIZES = [(1, 1), (3, 80), (5, 256), (19, 300), (70, 48), (3, 1040)]


def drawn(R: int, M: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """x, what is added to it, weight and bias."""
    source = torch.Generator().manual_seed(R + M)
    sizes = ((R, M), (R, M), (M,), (M,))
    return [torch.randn(size, generator=source, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def alone(x: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Outputs:
    return x + added * 0, normalise(x, weight, bias)


def plain_alone(x: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Outputs:
    return x + added * 0, F.layer_norm(x, weight.shape, weight, bias, EPSILON)


def plain_added(x: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Outputs:
    return x + added, F.layer_norm(x + added, weight.shape, weight, bias, EPSILON)


PAIRS = {"alone": (alone, plain_alone), "added": (add_normalise, plain_added)}


def with_gradients(function: Callable[..., Any], leaves: list[torch.Tensor]) -> Outputs:
    """Outputs, and the gradients of all leaves for fixed random gradients of the outputs."""
    outputs = function(*leaves)
    source = torch.Generator().manual_seed(3)
    above = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
    return *(output.detach() for output in outputs), *torch.autograd.grad(outputs, leaves, above)


def close(got: Outputs, want: Outputs, tolerance: float = 1e-11) -> None:
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@checks.each(*((name, *size) for name in PAIRS for size in SIZES))
def values_and_gradients_are_those_of_torch(name: str, R: int, M: int) -> None:
    ours, plain = PAIRS[name]
    with poisoned_memory():
        got = with_gradients(ours, drawn(R, M))
    close(got, with_gradients(plain, drawn(R, M)))


@checks.each(*((name,) for name in PAIRS))
def gradients_are_those_of_differences(name: str) -> None:
    assert torch.autograd.gradcheck(PAIRS[name][0], drawn(5, 6), fast_mode=True)


@checks.each(("added",), ("alone",))
def an_output_that_nobody_uses_has_no_gradient(name: str) -> None:
    for used in (0, 1):
        ours, plain = (
            torch.autograd.grad(function(*leaves)[used].square().sum(), leaves, allow_unused=True)
            for function, leaves in zip(PAIRS[name], (drawn(7, 20), drawn(7, 20)))
        )
        for one, other in zip(ours, plain):
            one = torch.zeros_like(other) if one is None and other is not None else one
            assert (one is None or not one.any()) if other is None else torch.allclose(one, other, atol=1e-11)


@checks.each(("added",), ("alone",))
def what_is_not_finite_stays_in_its_row(name: str) -> None:
    for value in (math.nan, math.inf):
        leaves = drawn(9, 300)
        with torch.no_grad():
            leaves[0][4, 7] = value
        got, want = (with_gradients(function, leaves) for function in PAIRS[name])
        for one, other in zip(got[:3], want[:3]):
            assert torch.equal(one.isnan(), other.isnan())
            assert one[5:].isfinite().all() and one[:4].isfinite().all()


@checks.each()
def rows_of_one_value_are_their_bias() -> None:
    x, _, weight, bias = drawn(4, 33)
    result = normalise(torch.full_like(x, 3.0), weight, bias)
    torch.testing.assert_close(result, bias.expand(4, -1))


@checks.each(*((kind,) for kind in (torch.float32, torch.bfloat16, torch.float16)))
def rows_with_gaps_and_at_odd_addresses_are_as_good(kind: torch.dtype) -> None:
    x, added, weight, bias = (tensor.detach() for tensor in drawn(6, 48, kind))
    want = add_normalise(x, added, weight, bias)
    gaps = torch.cat((x, x), 1)[:, :48]
    columns = added.t().contiguous().t()
    shifted = torch.cat((weight[:1], weight))[1:]
    for one, other in zip(add_normalise(gaps, columns, shifted, bias), want):
        assert torch.equal(one, other)


@checks.each((0,), (1,))
def gradients_of_the_whole_layer_are_those_of_differences(causal: int) -> None:
    if not attention.IMPLEMENTATIONS["triton"].grad:
        return
    shape = block.Shape(1, 3, 4, 2, G=1, F=3, causal=causal)
    tensors = {name: tensor.double().requires_grad_() for name, tensor in block.inputs(shape, "fp32", "cpu", 3).items()}
    run = block.IMPLEMENTATIONS["triton"].run
    leaves = list(tensors.values())
    assert torch.autograd.gradcheck(lambda *t: run(shape, **dict(zip(tensors, t))), leaves, fast_mode=True)


@checks.each()
def steps_after_another_change_nothing_before_it() -> None:
    shape = block.Shape(2, 40, 48, 3, F=50)
    tensors = block.inputs(shape, "fp32", "cpu", 3)
    before = block.IMPLEMENTATIONS["triton"].run(shape, **tensors)[0]
    tensors["x"][:, 33:] *= -2
    after = block.IMPLEMENTATIONS["triton"].run(shape, **tensors)[0]
    assert (after[:, 33:] != before[:, 33:]).all()
    torch.testing.assert_close(after[:, :33], before[:, :33])


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
