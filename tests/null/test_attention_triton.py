"""The Triton attention in Triton's interpreter: gradients, logarithms, infinite scores, and invariances.

That it agrees with the reference at odd sizes and in all dtypes is checked by test_interpreter. Here most is in
float64, in which two right ways to compute the same differ by rounding alone. Run as a script, this file is the child.
"""

import math
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from interpreting import Checks, run_interpreted

from seqroof.kernels import _attention_launch, _attention_tiles, _triton
from seqroof.kernels._attention_lengths import lengths_of
from seqroof.kernels._torch import DTYPES
from seqroof.kernels.attention import IMPLEMENTATIONS, Shape, attend, inputs, reference
from seqroof.profiler.poison import poisoned_memory

RUN = IMPLEMENTATIONS["triton"].run
checks = Checks()
Tensors = dict[str, Any]
# The kernels take log2(e)/sqrt(P) as a float32, and with it all scores are off by a relative 6e-8.
SCALE_ERROR = 3e-6


def doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in inputs(shape, "fp32", "cpu", seed).items()
    }


def with_gradients(run: Any, shape: Shape, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """The output, and the gradients of q, k and v for a fixed random gradient of the output."""
    given = {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}
    (o,) = run(shape, **given)
    above = torch.randn(o.shape, generator=torch.Generator().manual_seed(5), dtype=o.dtype)
    return o.detach(), *torch.autograd.grad(o, [given["q"], given["k"], given["v"]], above)


def close(got: Any, want: Any, tolerance: float = SCALE_ERROR) -> None:
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


TINY = [Shape(1, 2, 3, 2, K=4, G=1), Shape(1, 1, 4, 2, K=2), Shape(2, 2, 3, 3, K=2, G=1, ragged=1)]


@checks.each(*((shape,) for shape in (*TINY, replace(TINY[0], causal=0))))
def gradients_are_those_of_differences(shape: Shape) -> None:
    tensors = doubles(shape)
    lengths = {name: tensors.pop(name) for name in list(tensors) if "lengths" in name}
    given = [tensor.requires_grad_() for tensor in tensors.values()]
    assert torch.autograd.gradcheck(lambda q, k, v: RUN(shape, q=q, k=k, v=v, **lengths)[0], given, fast_mode=True)


MIXED = [
    Shape(1, 4, 70, 24, K=40, G=2),
    Shape(1, 2, 20, 24, K=90, causal=0),
    Shape(3, 2, 70, 24, K=50, ragged=1),
    Shape(3, 2, 40, 24, ragged=1),
]


@checks.each(*((shape,) for shape in MIXED))
def logarithms_are_those_of_the_sums(shape: Shape) -> None:
    """To base e they are torch.logsumexp of the scores that a query sees; where it sees none, infinity."""
    tensors = doubles(shape)
    (o,) = RUN(shape, **(tensors | {"q": tensors["q"].requires_grad_()}))
    (kept,) = [t for t in o.grad_fn.saved_tensors if t.dim() == 3]
    for b, (queries, keys) in enumerate(zip(*lengths_of(shape))):
        for n in range(shape.N):
            k = tensors["k"][b, n * shape.G // shape.N, :keys]
            scores = tensors["q"][b, n, :queries] @ k.T / math.sqrt(shape.P)
            if shape.causal:
                scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(keys - queries), -math.inf)
            want = torch.logsumexp(scores, 1)
            want = torch.where(want == -math.inf, math.inf, want)
            torch.testing.assert_close(kept[b, n, :queries] * math.log(2), want, rtol=SCALE_ERROR, atol=SCALE_ERROR)
            assert (kept[b, n, queries:] == math.inf).all()


@checks.each(*((shape,) for shape in MIXED))
def nothing_is_kept_but_what_is_declared(shape: Shape) -> None:
    tensors = doubles(shape)
    (o,) = RUN(shape, **tensors)
    assert o.grad_fn is None
    (o,) = RUN(shape, **(tensors | {"v": tensors["v"].requires_grad_()}))
    own = {t.data_ptr() for t in (*tensors.values(), o)}
    saved = [t for t in o.grad_fn.saved_tensors if t.numel() and t.data_ptr() not in own]
    assert [t.numel() for t in saved] == [shape.B * shape.N * shape.S]


@checks.each(*((shape,) for shape in MIXED[2:]))
def rows_of_different_lengths_are_attentions_of_their_own(shape: Shape) -> None:
    tensors = doubles(shape)
    # What lies after the end is never looked at: it is NaN here, and poisoned memory around it.
    lengths = (tensors["query_lengths"], tensors["key_lengths"], tensors["key_lengths"])
    for name, ends in zip("qkv", lengths):
        beyond = torch.arange(tensors[name].shape[2]) >= ends[:, None]
        tensors[name] = tensors[name].masked_fill(beyond[:, None, :, None], math.nan)
    with poisoned_memory():
        got = with_gradients(RUN, shape, tensors)
    for b, (queries, keys) in enumerate(zip(*lengths_of(shape))):
        one = Shape(1, shape.N, queries, shape.P, K=keys, G=shape.G, causal=shape.causal)
        part = {"q": tensors["q"][b : b + 1, :, :queries]}
        part |= {name: tensors[name][b : b + 1, :, :keys] for name in "kv"}
        given = {name: tensor.detach().requires_grad_() for name, tensor in part.items()}
        (o,) = reference(one, **given)
        above = torch.randn(got[0].shape, generator=torch.Generator().manual_seed(5), dtype=o.dtype)
        want = (o, *torch.autograd.grad(o, given.values(), above[b : b + 1, :, :queries]))
        close([t[b : b + 1, :, : w.shape[2]] for t, w in zip(got, want)], want)
        for tensor, count in zip(got, (queries, queries, keys, keys)):
            assert (tensor[b, :, count:] == 0).all()


@checks.each(*((shape,) for shape in MIXED))
def gradients_of_queries_that_see_nothing_are_zero(shape: Shape) -> None:
    tensors = doubles(shape)
    o, dq, *others = with_gradients(RUN, shape, tensors)
    sees = torch.zeros(shape.B, shape.S, dtype=torch.bool)
    for b, (queries, keys) in enumerate(zip(*lengths_of(shape))):
        sees[b, (max(0, queries - keys) if shape.causal else 0) : queries] = True
    for tensor in (o, dq):
        assert (tensor.transpose(1, 2)[~sees] == 0).all()
    assert (o.transpose(1, 2)[sees] != 0).any(-1).all()
    assert all(tensor.isfinite().all() for tensor in others)


def infinite(shape: Shape, sign: float) -> Tensors:
    """One key whose score is infinite for every query, of this sign, and for all others 0 in that column."""
    tensors = inputs(shape, "fp32", "cpu", seed=4)
    tensors["q"][..., 0] = tensors["q"][..., 0].abs() + 0.1
    tensors["k"][:, :, 3, 0] = sign * math.inf
    return tensors


@checks.each((Shape(1, 2, 40, 16, causal=0), -1.0), (Shape(1, 2, 40, 16), -1.0), (Shape(1, 2, 40, 16), 1.0))
def infinite_scores_are_those_of_the_reference(shape: Shape, sign: float) -> None:
    tensors = infinite(shape, sign)
    (got,), (want,) = RUN(shape, **tensors), reference(shape, **tensors)
    assert want.isnan().any() == (sign > 0)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)


@checks.each(*((shape, dtype) for shape in (40, 48) for dtype in ("fp32", "bf16")))
def a_key_of_infinitely_low_scores_gets_no_gradient(S: int, dtype: str) -> None:
    """Nor does it where the last block of queries has rows beyond the last query, as for S=40."""
    shape = Shape(1, 2, S, 16, causal=0)
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in infinite(shape, -1.0).items()}
    got, want = with_gradients(RUN, shape, tensors), with_gradients(reference, shape, tensors)
    for mine, other in zip(got[2:], want[2:], strict=True):
        assert (mine[:, :, 3] == 0).all() and (other[:, :, 3] == 0).all()
        assert mine.isfinite().all() and other.isfinite().all()
    if dtype == "fp32":
        close(got[2:], want[2:], 1e-5)


@checks.each()
def queries_whose_scores_are_all_minus_infinity_see_nothing() -> None:
    shape = Shape(1, 2, 20, 16, causal=0)
    tensors = infinite(shape, -1.0)
    tensors["k"][..., 0] = -math.inf
    assert (RUN(shape, **tensors)[0] == 0).all() and (reference(shape, **tensors)[0] == 0).all()


@checks.each()
def heads_are_independent() -> None:
    shape = Shape(1, 4, 40, 24, K=50)
    tensors = doubles(shape)
    order = torch.tensor([2, 0, 3, 1])
    turned = with_gradients(lambda s, **t: RUN(s, **{n: x[:, order] for n, x in t.items()}), shape, tensors)
    assert torch.equal(turned[0], RUN(shape, **tensors)[0][:, order])


@checks.each()
def shared_heads_equal_repeated_ones() -> None:
    shared = Shape(2, 6, 30, 24, K=45, G=2)
    tensors = doubles(shared)
    repeated = tensors | {name: tensors[name].repeat_interleave(3, dim=1) for name in ("k", "v")}
    got = with_gradients(RUN, shared, tensors)
    want = with_gradients(RUN, replace(shared, G=6), repeated)
    together = [t.unflatten(1, (2, 3)).sum(2) for t in want[2:]]
    close(got, (*want[:2], *together), 1e-12)


@checks.each(("bf16",), ("fp16",))
def descriptors_and_pointers_give_the_same(dtype: str) -> None:
    """The same products in the same order, whichever way the blocks came; tiles differ, so up to rounding."""
    shape = Shape(1, 2, 150, 48, K=140, G=1)
    tensors = inputs(shape, dtype, "cpu", seed=6)
    by_descriptor = with_gradients(RUN, shape, tensors)
    usual = _attention_tiles.capability_of
    _attention_tiles.capability_of = lambda device: 80
    try:
        by_pointer = with_gradients(RUN, shape, tensors)
    finally:
        _attention_tiles.capability_of = usual
    # Two units in the last place of the largest, and twice that because the interpreter cuts bfloat16 off.
    tolerance = {"bf16": 4 * 2**-7, "fp16": 2 * 2**-10}[dtype] * 4
    close(by_descriptor, by_pointer, tolerance)


@checks.each()
def the_launched_layout_follows_the_tensors() -> None:
    layout_of = _attention_tiles.layout_of
    assert layout_of("bf16", 64, 0, [64, 128], [256], 90) == "descriptor"
    assert layout_of("bf16", 64, 0, [64, 128], [256], 100) == "descriptor_100"
    assert layout_of("bf16", 64, 0, [64, 128], [256], 80) == "exact_80"
    assert layout_of("bf16", 64, 1, [64, 128], [256], 90) == "exact"
    assert layout_of("bf16", 64, 1, [64, 128], [256], 100) == "exact_100"
    assert layout_of("bf16", 48, 1, [64, 128], [256], 90) == "padded"
    assert layout_of("fp32", 64, 0, [64, 128], [256], 90) == "exact"
    assert layout_of("bf16", 64, 0, [64, 0], [256], 90) == "exact"
    for P, strides, addresses in ((40, [64], [256]), (64, [72], [256]), (64, [64], [264])):
        assert layout_of("bf16", P, 0, strides, addresses, 90) == "unaligned"


@checks.each()
def gradients_that_are_expanded_or_turned_are_taken() -> None:
    """The gradient of a sum has no strides; that of a transposed output has turned ones."""
    shape = Shape(1, 2, 20, 32)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    for loss in (lambda o: o.sum(), lambda o: (o.transpose(1, 2).contiguous() ** 2).sum()):
        got = torch.autograd.grad(loss(RUN(shape, **tensors)[0]), tensors.values())
        close(got, torch.autograd.grad(loss(reference(shape, **tensors)[0]), tensors.values()))


@checks.each()
def the_door_takes_tensors_alone() -> None:
    shape = Shape(3, 4, 20, 32, G=2, ragged=1)
    tensors = doubles(shape)
    assert torch.equal(attend(**tensors), RUN(shape, **tensors)[0])
    close([attend(tensors["q"], tensors["k"], tensors["v"], causal=False)],
          reference(Shape(3, 4, 20, 32, G=2, causal=0), tensors["q"], tensors["k"], tensors["v"]))  # fmt: skip


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", checks)
def test_interpreted(check: str, interpreted: dict[str, str]) -> None:
    assert interpreted[check] == ""


def test_a_launch_names_its_arguments_in_the_order_of_the_kernel() -> None:
    for kernel in (_attention_tiles.FORWARD, _attention_tiles.QUERIES, _attention_tiles.KEYS):
        names = kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]
        own = kernel.numbers[len(_attention_tiles.COUNTS) :]
        sizes = (*_attention_launch.SIZES, *own)
        expected = (*kernel.pointers, "query_lengths", "key_lengths", "scale", *sizes, *kernel.strides)
        assert names[: len(expected)] == expected, kernel.name
        assert all(name.isupper() for name in names[len(expected) :])


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
