"""The Triton kernels of attention_decode in Triton's interpreter: gradients, every way to split, values not finite.

That they agree with the reference at odd sizes and in all dtypes is checked by test_interpreter. Run as a script, this
file is the child.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from interpreting import Checks, run_interpreted

from seqroof.kernels import _attention_decode_triton as launching
from seqroof.kernels import _triton, attention_decode
from seqroof.kernels.attention_decode import Shape, inputs, reference, work
from seqroof.profiler.poison import poisoned_memory

checks = Checks()

Tensors = dict[str, torch.Tensor]
Outputs = tuple[torch.Tensor, ...]
NAMES = ("q", "k", "v")
# Four tiles of keys and a part of one; sequences of 270, 180 and 90 keys.
WHOLE = Shape(1, 4, 270, 32, G=2)
RAGGED = Shape(3, 2, 270, 24, G=1, ragged=1)


def doubles(shape: Shape, seed: int = 3) -> Tensors:
    drawn = inputs(shape, "fp32", "cpu", seed)
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in drawn.items()}


def run(shape: Shape, tensors: Tensors, splits: int | None = None) -> torch.Tensor:
    return launching.decode(shape, **tensors, splits=splits)


def plain(shape: Shape, tensors: Tensors) -> torch.Tensor:
    return reference(shape, **tensors)[0]


def with_gradients(function: Callable[..., torch.Tensor], shape: Shape, tensors: Tensors, *how: int) -> Outputs:
    """The output, and the gradients of q, k and v for a fixed random gradient of it."""
    given = {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}
    o = function(shape, given, *how)
    above = torch.randn(o.shape, generator=torch.Generator().manual_seed(3), dtype=o.dtype)
    return o.detach(), *torch.autograd.grad(o, [given[name] for name in NAMES], above)


def close(got: Outputs, want: Outputs, tolerance: float) -> None:
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@checks.each((Shape(2, 4, 3, 2, G=2),), (Shape(3, 1, 5, 2, ragged=1),))
def gradients_are_those_of_differences(shape: Shape) -> None:
    tensors = doubles(shape)
    leaves = [tensors.pop(name).requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(lambda *t: run(shape, tensors | dict(zip(NAMES, t))), leaves, fast_mode=True)


@checks.each((WHOLE,), (RAGGED,))
def splits_change_nothing(shape: Shape) -> None:
    tensors = doubles(shape)
    want = with_gradients(plain, shape, tensors)
    one = with_gradients(run, shape, tensors, 1)
    close(one, want, 1e-6)  # the scale is a float32 number
    for splits in (2, 3, 99):
        close(with_gradients(run, shape, tensors, splits), one, 1e-12)


@checks.each((1,), (2,))
def more_splits_than_one_block_of_them_are_merged(factor: int) -> None:
    """The merge takes 128 splits at a time: 17 and 34 tiles under blocks of 16."""
    shape = Shape(1, 1, 272 * factor, 32)
    tile, keys = dict(launching._MERGE_TILE), launching._keys
    launching._MERGE_TILE["SPLITS"], launching._keys = 16, lambda *_: 16
    try:
        tensors = doubles(shape)
        tensors["k"][:, :, -1] = tensors["q"]  # the largest score comes last, and shrinks what was merged before it
        close((run(shape, tensors, 99),), reference(shape, **tensors), 1e-6)
    finally:
        launching._MERGE_TILE.update(tile)
        launching._keys = keys


@checks.each()
def a_call_leaves_nothing_behind_and_reads_nothing_unwritten() -> None:
    tensors = doubles(RAGGED)
    with poisoned_memory():
        first, second = (with_gradients(run, RAGGED, tensors, 3) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))
    close(first, with_gradients(plain, RAGGED, tensors), 1e-6)


@checks.each((math.nan,), (math.inf,))
def what_lies_after_the_end_is_never_read(value: float) -> None:
    tensors = doubles(RAGGED)
    want = with_gradients(run, RAGGED, tensors)
    after = (torch.arange(RAGGED.K) >= tensors["lengths"][:, None])[:, None, :, None]
    spoiled = {name: torch.where(after, value, tensors[name]) for name in ("k", "v")}
    got = with_gradients(run, RAGGED, tensors | spoiled)
    assert all(torch.equal(one, other) for one, other in zip(got, want))
    assert not got[2].masked_select(after).any() and not got[3].masked_select(after).any()


@checks.each()
def a_sequence_without_keys_gives_zeros_and_gradients_of_zero() -> None:
    """Lengths are looked at on the CPU only; elsewhere a zero must do no harm."""
    tensors = doubles(RAGGED)
    tensors["lengths"][1] = 0
    for splits in (1, 3):
        got = with_gradients(run, RAGGED, tensors, splits)
        assert all(not tensor[1].any() for tensor in got)
        assert all(tensor[0].any() for tensor in got)


SPOILED = [("q", math.nan), ("q", math.inf), ("k", math.inf), ("k", -math.inf), ("v", math.nan), ("v", -math.inf)]


@checks.each(*SPOILED)
def what_is_not_finite_spreads_as_in_the_reference(name: str, value: float) -> None:
    for shape, splits in ((WHOLE, 1), (RAGGED, 3)):
        tensors = doubles(shape)
        tensors["q"][:, :, 2] = tensors["q"][:, :, 2].abs()  # so that `value` gives the sign of a score
        tensors[name][..., 0, 2] = value
        got = with_gradients(run, shape, tensors, splits)
        want = with_gradients(plain, shape, tensors)
        assert torch.equal(kinds(got[0]), kinds(want[0])), shape
        for one, other in zip(got[1:], want[1:]):
            assert not (one.isfinite() & ~other.isfinite()).any(), shape
        if shape.ragged:
            after = (torch.arange(shape.K) >= tensors["lengths"][:, None])[:, None, :, None]
            assert not any(gradient.masked_select(after).any() for gradient in got[2:])


@checks.each()
def a_key_of_infinitely_low_scores_gets_no_gradient() -> None:
    tensors = doubles(WHOLE)
    tensors["q"][..., 0] = 1.0
    tensors["k"][:, :, 3, 0] = -math.inf
    got, want = with_gradients(run, WHOLE, tensors), with_gradients(plain, WHOLE, tensors)
    assert all((gradient[:, :, 3] == 0).all() for gradient in want[2:])
    close((got[0], *got[2:]), (want[0], *want[2:]), 1e-6)


@checks.each()
def scores_that_are_all_infinitely_low_give_nan_as_a_softmax_does() -> None:
    tensors = doubles(WHOLE)
    tensors["q"][..., 0] = 1.0
    tensors["k"][0, ..., 0] = -math.inf
    o = run(WHOLE, tensors)
    assert o.isnan().all()


def kinds(tensor: torch.Tensor) -> torch.Tensor:
    """0 where a value is finite, 1 and 2 at infinities, 3 at NaN."""
    return (tensor == math.inf) * 1 + (tensor == -math.inf) * 2 + tensor.isnan() * 3


@checks.each(("fp32",), ("bf16",))
def what_is_left_for_the_gradients_is_what_is_declared(dtype: str) -> None:
    tensors = {name: t.requires_grad_(t.is_floating_point()) for name, t in inputs(RAGGED, dtype, "cpu", 0).items()}
    o = run(RAGGED, tensors)
    held = {t.data_ptr(): t.nbytes for t in o.grad_fn.saved_tensors}
    for tensor in (*tensors.values(), o):
        assert held.pop(tensor.data_ptr()) == tensor.nbytes
    assert sum(held.values()) == work(RAGGED, dtype, "forward").saved_bytes


@checks.each(*((shape,) for shape in attention_decode.ODD_LONG[5::25]))
def further_shapes(shape: Shape) -> None:
    tensors = doubles(shape)
    want = with_gradients(plain, shape, tensors)
    close(with_gradients(run, shape, tensors), want, 1e-6)


@checks.each()
def a_query_inside_of_a_projection_is_as_good() -> None:
    shape = replace(WHOLE, B=2, K=70)
    tensors = doubles(shape)
    joined = torch.cat([tensors["q"].flatten(1)] * 3, dim=1)[:, 4 * 32 : 2 * 4 * 32].view(2, 4, 32)
    turned = {name: tensors[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("k", "v")}
    assert not joined.is_contiguous() and not turned["k"].is_contiguous()
    assert torch.equal(run(shape, {"q": joined, **turned}), run(shape, tensors))


@checks.each()
def lengths_of_any_stride_are_as_good() -> None:
    tensors = doubles(RAGGED)
    lengths = tensors["lengths"]
    want = with_gradients(run, RAGGED, tensors)
    column = torch.stack([lengths, lengths - 1], 1)[:, 0]
    close(with_gradients(run, RAGGED, tensors | {"lengths": column}), want, 0)
    repeated = lengths[1:2].expand(RAGGED.B)
    want = with_gradients(run, RAGGED, tensors | {"lengths": repeated.clone()})
    close(with_gradients(run, RAGGED, tensors | {"lengths": repeated}), want, 0)


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


@pytest.mark.parametrize(("shape", "sentence"), [(Shape(1, 1, 2, 257), "not P=257"), (Shape(1, 17, 2, 8, G=1), "=17")])
def test_shapes_that_the_kernels_do_not_take_are_refused(shape: Shape, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(shape, doubles(shape))


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
