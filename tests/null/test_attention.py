"""Attention is torch's scaled_dot_product_attention where that has an answer, and what the docstring says elsewhere."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from seqroof.kernels import attention
from seqroof.kernels._attention_lengths import lengths_of
from seqroof.kernels.attention import IMPLEMENTATIONS, ODD, SHAPES, Shape, inputs, reference, work

CPU_ROWS = ["reference", "torch.math", "torch.flash"]
SQUARE = Shape(2, 4, 37, 24)
LONGER_KEYS = Shape(2, 4, 37, 24, K=53, G=2)
BLIND = Shape(1, 2, 9, 8, K=4)
FULL = Shape(2, 6, 17, 24, K=29, G=3, causal=0)


def _doubles(shape: Shape, seed: int = 3) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def _by_hand(shape: Shape, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One query at a time, straight from the definition."""
    o = torch.zeros_like(q)
    for b in range(shape.B):
        for n in range(shape.N):
            group = n // (shape.N // shape.G)
            for i in range(shape.S):
                seen = min(max(i + shape.K - shape.S + 1, 0), shape.K) if shape.causal else shape.K
                if seen:
                    scores = k[b, group, :seen] @ q[b, n, i] / math.sqrt(shape.P)
                    o[b, n, i] = torch.softmax(scores, 0) @ v[b, group, :seen]
    return o


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [SQUARE, LONGER_KEYS, BLIND, FULL, Shape(1, 1, 1, 1)], ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    torch.testing.assert_close(got, _by_hand(shape, **tensors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_values_and_gradients_are_those_of_sdpa(row: str) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(SQUARE).items()}
    (got,) = IMPLEMENTATIONS[row].run(SQUARE, **tensors)
    want = F.scaled_dot_product_attention(*tensors.values(), is_causal=True)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(want)
    for mine, other in zip(
        torch.autograd.grad(got, tensors.values(), gradient), torch.autograd.grad(want, tensors.values(), gradient)
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [Shape(1, 2, 3, 2, K=5, G=1), Shape(1, 1, 5, 2, K=3)], ids=str)
def test_the_gradient_is_that_of_finite_differences(shape: Shape) -> None:
    tensors = [tensor.requires_grad_() for tensor in _doubles(shape).values()]
    assert torch.autograd.gradcheck(lambda q, k, v: reference(shape, q, k, v)[0], tensors)


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [SQUARE, LONGER_KEYS], ids=str)
def test_later_keys_change_no_earlier_output(row: str, shape: Shape) -> None:
    tensors = inputs(shape, "fp32", "cpu", seed=3)
    (before,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    changed = shape.K - 5
    for name in ("k", "v"):
        tensors[name][:, :, changed:] += 3
    (after,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    first = changed - (shape.K - shape.S)
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert (before[:, :, first:] != after[:, :, first:]).any(dim=-1).all()


@pytest.mark.parametrize("row", CPU_ROWS)
def test_queries_that_see_nothing_give_zeros_and_finite_gradients(row: str) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(BLIND).items()}
    (o,) = IMPLEMENTATIONS[row].run(BLIND, **tensors)
    assert (o[:, :, :5] == 0).all()
    assert (o[:, :, 5:] != 0).all()
    gradients = torch.autograd.grad(o.sum(), tensors.values())
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, :, :5] == 0).all()


@pytest.mark.parametrize("row", CPU_ROWS)
def test_shared_heads_equal_repeated_ones(row: str) -> None:
    shared, single = LONGER_KEYS, Shape(2, 4, 37, 24, K=53)
    tensors = _doubles(shared)
    repeated = {name: tensors[name].repeat_interleave(2, dim=1) for name in ("k", "v")}
    (got,) = IMPLEMENTATIONS[row].run(shared, **tensors)
    (want,) = IMPLEMENTATIONS[row].run(single, q=tensors["q"], **repeated)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_heads_may_lie_inside_of_steps(row: str) -> None:
    """Memory order (B, S, N, P), as a projection leaves it."""
    tensors = _doubles(LONGER_KEYS)
    turned = {name: tensor.transpose(1, 2).contiguous().transpose(1, 2) for name, tensor in tensors.items()}
    (got,) = IMPLEMENTATIONS[row].run(LONGER_KEYS, **turned)
    torch.testing.assert_close(got, reference(LONGER_KEYS, **tensors)[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [*SHAPES["quick"], *ODD, SQUARE, BLIND], ids=str)
def test_visible_pairs_are_those_of_the_mask(shape: Shape) -> None:
    pairs = 0
    for queries, keys in zip(*lengths_of(shape)):
        mask = torch.ones(queries, keys, dtype=torch.bool)
        pairs += int((mask.tril(keys - queries) if shape.causal else mask).sum())
    assert shape.visible_pairs == pairs


def test_sizes_left_out_are_filled_in() -> None:
    assert Shape(1, 4, 5, 8) == Shape(1, 4, 5, 8, K=5, G=4)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"S": 0}, "S must be at least 1, not 0"),
        ({"K": -3}, "K must be at least 1, not -3"),
        ({"causal": 2}, "causal must be 0 or 1, not 2"),
        ({"G": 3}, "N must be a multiple of G"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "N": 4, "S": 8, "P": 16} | sizes))


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "N": 4, "S": 512, "P": 64} | sizes)), dtype, device)


def test_rows_that_cannot_run_say_why() -> None:
    assert "GPUs" in (_refusal("torch.cudnn", "bf16", "cpu") or "")
    assert "GPUs" in (_refusal("torch.efficient", "bf16", "cpu") or "")
    assert "fp32" in (_refusal("torch.flash", "fp32", "cuda") or "")
    assert "P=264" in (_refusal("torch.flash", "bf16", "cuda", P=264) or "")
    assert "16 bytes" in (_refusal("torch.efficient", "fp32", "cuda", P=65) or "")
    assert "P=160" in (_refusal("torch.cudnn", "bf16", "cuda", P=160) or "")
    assert "one key" in (_refusal("torch.cudnn", "bf16", "cuda", K=1) or "")
    assert "P=264" in (_refusal("triton", "bf16", "cuda", P=264) or "")
    assert "float64" in (_refusal("triton", "fp64", "cuda") or "")
    for row in ("reference", "torch.math", "torch.flash", "compile"):
        assert "TF32" in (_refusal(row, "tf32", "cpu") or ""), row
    for row in ("torch.flash", "torch.efficient", "torch.cudnn"):
        assert _refusal(row, "bf16", "cuda") is None, row


def test_large_float16_products_are_refused_on_a_cpu_only() -> None:
    for row in ("reference", "torch.math", "compile"):
        assert "1 GFLOP/s" in (_refusal(row, "fp16", "cpu", S=4096) or ""), row
    assert _refusal("reference", "fp16", "cpu") is None
    assert _refusal("reference", "fp16", "cuda", S=4096) is None


def test_cost_counted_by_hand() -> None:
    """2 heads share one; 3 queries, 4 keys, 5 numbers: the queries see 2, 3 and 4 keys, 18 pairs in both heads."""
    shape = Shape(1, 2, 3, 5, K=4, G=1)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 4 * 5 * 18
    assert backward.matmul_flops == 10 * 5 * 18
    assert forward.special_ops == backward.special_ops == 18
    assert forward.pointwise_flops == 3 * 18 + 2 * 30
    assert backward.pointwise_flops == 3 * 18 + 4 * 30
    assert forward.read_bytes == 2 * (30 + 20 + 20)
    assert forward.write_bytes == 2 * 30
    # q, k, v, o, do and one float32 logarithm for each of 6 queries in; dq, dk, dv out.
    assert backward.read_bytes == 2 * (30 + 20 + 20 + 30 + 30) + 4 * 6
    assert backward.write_bytes == 2 * (30 + 20 + 20)
    assert forward.saved_bytes == 4 * 6
    assert (forward.weight_bytes, forward.tokens, forward.depth) == (0, 3, 1)


def test_the_compiled_configurations_are_the_launched_ones() -> None:
    labels = {case.label for case in attention.COMPILE}
    # Three kernels; four widths in three layouts, and for all dtypes but fp32 in a fourth.
    assert len(labels) == len(attention.COMPILE) == 3 * (4 * 4 * 3 + 3 * 4)
    for case in attention.COMPILE:
        layout = case.label.split()[-1]
        assert case.constexprs["LAYOUT"] == layout
        assert bool(case.divisible) == (layout != "unaligned")
        assert (80 in case.targets) == (layout != "descriptor")
    assert sum(not case.rare for case in attention.COMPILE) <= 25
