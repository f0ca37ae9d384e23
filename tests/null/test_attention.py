"""Attention is torch's scaled_dot_product_attention where that has an answer, and what the docstring says elsewhere."""

import importlib.machinery
import math
import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqroof.kernels import _attention_peers, _triton, attention
from seqroof.kernels._attention_lengths import lengths_of, padding_waste
from seqroof.kernels.attention import IMPLEMENTATIONS, ODD, SHAPES, Shape, attend, inputs, reference, spot, work

CPU_ROWS = ["reference", "torch.math", "torch.flash"]
SQUARE = Shape(2, 4, 37, 24)
LONGER_KEYS = Shape(2, 4, 37, 24, K=53, G=2)
BLIND = Shape(1, 2, 9, 8, K=4)
FULL = Shape(2, 6, 17, 24, K=29, G=3, causal=0)
RAGGED = Shape(4, 4, 21, 8, G=2, ragged=1)
RAGGED_BLIND = Shape(4, 2, 23, 8, K=17, ragged=1)
RAGGED_FULL = Shape(3, 2, 11, 8, K=29, causal=0, ragged=1)
EMPTY = Shape(0, 2, 5, 8)


def _doubles(shape: Shape, seed: int = 3) -> dict[str, torch.Tensor]:
    return {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in inputs(shape, "fp32", "cpu", seed).items()
    }


def _by_hand(shape: Shape, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **lengths: torch.Tensor) -> torch.Tensor:
    """One query at a time, straight from the definition."""
    o = torch.zeros_like(q)
    for b in range(shape.B):
        queries = int(lengths["query_lengths"][b]) if lengths else shape.S
        keys = int(lengths["key_lengths"][b]) if lengths else shape.K
        for n in range(shape.N):
            group = n // (shape.N // shape.G)
            for i in range(queries):
                seen = min(max(i + keys - queries + 1, 0), keys) if shape.causal else keys
                if seen:
                    scores = k[b, group, :seen] @ q[b, n, i] / math.sqrt(shape.P)
                    o[b, n, i] = torch.softmax(scores, 0) @ v[b, group, :seen]
    return o


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize(
    "shape",
    [SQUARE, LONGER_KEYS, BLIND, FULL, RAGGED, RAGGED_BLIND, RAGGED_FULL, EMPTY, Shape(1, 1, 1, 1)],
    ids=str,
)
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
@pytest.mark.parametrize("shape", [RAGGED, RAGGED_BLIND, RAGGED_FULL], ids=str)
def test_what_lies_after_the_end_of_a_row_changes_nothing_and_gets_nothing(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    queries, keys = (torch.tensor(lengths) for lengths in lengths_of(shape))
    ends = {"q": queries, "k": keys, "v": keys}
    padded = dict(tensors)
    for name, lengths in ends.items():
        beyond = (torch.arange(tensors[name].shape[2]) >= lengths[:, None])[:, None, :, None]
        padded[name] = tensors[name].masked_fill(beyond, math.inf).requires_grad_()
    (o,) = IMPLEMENTATIONS[row].run(shape, **padded)
    torch.testing.assert_close(o, _by_hand(shape, **tensors), rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(o, [padded[name] for name in ends], torch.ones_like(o))
    for gradient, lengths in zip(gradients, ends.values()):
        beyond = torch.arange(gradient.shape[2]) >= lengths[:, None]
        assert gradient.isfinite().all()
        assert (gradient.transpose(1, 2)[beyond] == 0).all()
        assert (gradient != 0).any()


def _infinite(sign: float) -> dict[str, torch.Tensor]:
    """One key whose score is infinite for every query, of this sign."""
    tensors = _doubles(SQUARE)
    tensors["q"][..., 0] = tensors["q"][..., 0].abs() + 0.1
    tensors["k"][:, :, 3, 0] = sign * math.inf
    return tensors


@pytest.mark.parametrize("row", CPU_ROWS)
def test_a_score_of_minus_infinity_is_a_key_unseen(row: str) -> None:
    tensors = _infinite(-1.0)
    (o,) = IMPLEMENTATIONS[row].run(SQUARE, **tensors)
    without = {"q": tensors["q"]} | {
        name: torch.cat((tensors[name][:, :, :3], tensors[name][:, :, 4:]), 2) for name in "kv"
    }
    (want,) = reference(replace(SQUARE, K=36), **without)
    torch.testing.assert_close(o[:, :, 4:], want[:, :, 4:], rtol=1e-12, atol=1e-12)


# torch.math adds a mask of -inf to the scores, which makes NaN of those that are not seen too.
@pytest.mark.parametrize("row", ["reference", "torch.flash"])
def test_a_score_of_plus_infinity_is_nan_where_pytorch_has_it(row: str) -> None:
    tensors = _infinite(1.0)
    (o,) = IMPLEMENTATIONS[row].run(SQUARE, **tensors)
    scores = tensors["q"] @ tensors["k"].transpose(2, 3)
    want = scores.masked_fill(~torch.ones(37, 37, dtype=torch.bool).tril(), -math.inf).softmax(-1).isnan().any(-1)
    assert want[:, :, 3:].all() and not want[:, :, :3].any()
    assert torch.equal(o.isnan().all(-1), want) and torch.equal(o.isnan().any(-1), want)


sizes = st.builds(
    lambda B, groups, shared, S, K, P, causal, ragged: Shape(B, groups * shared, S, P, K, groups, causal, ragged),
    *(st.integers(1, most) for most in (3, 3, 2, 9, 9, 5)),
    causal=st.integers(0, 1),
    ragged=st.integers(0, 1),
)
few = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=sizes)
def test_weights_sum_to_one(row: str, shape: Shape) -> None:
    """With values of one every query that sees a key gives one, and every other zero."""
    tensors = _doubles(shape)
    (o,) = IMPLEMENTATIONS[row].run(shape, **(tensors | {"v": torch.ones_like(tensors["v"])}))
    for b, (queries, keys) in enumerate(zip(*lengths_of(shape))):
        sees = torch.zeros(shape.S, dtype=torch.bool)
        sees[(max(0, queries - keys) if shape.causal else 0) : queries] = True
        want = sees.double()[:, None].expand(shape.N, -1, shape.P)
        torch.testing.assert_close(o[b], want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=sizes, data=st.data())
def test_a_key_reaches_just_the_queries_that_see_it(row: str, shape: Shape, data: st.DataObject) -> None:
    tensors = _doubles(shape)
    b, j = data.draw(st.integers(0, shape.B - 1)), data.draw(st.integers(0, shape.K - 1))
    (before,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    tensors["v"][b, :, j] += 1
    (after,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    queries, keys = (lengths[b] for lengths in lengths_of(shape))
    i = torch.arange(shape.S)
    sees = (i < queries) & (j < keys) & ((j <= i + keys - queries) | (shape.causal == 0))
    changed = (before != after).any(-1)
    assert torch.equal(changed[b], sees.expand(shape.N, -1))
    assert not changed[torch.arange(shape.B) != b].any()


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=sizes, order=st.randoms(use_true_random=False))
def test_heads_and_rows_may_be_permuted(row: str, shape: Shape, order: Any) -> None:
    shape = replace(shape, G=shape.N)
    tensors = _doubles(shape)
    heads = torch.tensor(order.sample(range(shape.N), shape.N))
    rows = torch.tensor(order.sample(range(shape.B), shape.B))
    turned = {name: t[rows][:, heads] if t.dim() == 4 else t[rows] for name, t in tensors.items()}
    (got,), (want,) = IMPLEMENTATIONS[row].run(shape, **turned), IMPLEMENTATIONS[row].run(shape, **tensors)
    torch.testing.assert_close(got, want[rows][:, heads], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=sizes)
def test_rows_of_different_lengths_are_attentions_of_their_own(row: str, shape: Shape) -> None:
    shape = replace(shape, ragged=1)
    tensors = _doubles(shape)
    (o,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    for b, (queries, keys) in enumerate(zip(*lengths_of(shape))):
        one = Shape(1, shape.N, queries, shape.P, K=keys, G=shape.G, causal=shape.causal)
        part = {"q": tensors["q"][b : b + 1, :, :queries]}
        part |= {name: tensors[name][b : b + 1, :, :keys] for name in "kv"}
        torch.testing.assert_close(o[b : b + 1, :, :queries], reference(one, **part)[0], rtol=1e-12, atol=1e-12)
        assert (o[b, :, queries:] == 0).all()


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
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"S": 0}, "S must be at least 1, not 0"),
        ({"ragged": 2}, "ragged must be 0 or 1, not 2"),
        ({"K": -3}, "K must be at least 1, not -3"),
        ({"causal": 2}, "causal must be 0 or 1, not 2"),
        ({"G": 3}, "N must be a multiple of G"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "N": 4, "S": 8, "P": 16} | sizes))


BAD_TENSORS = [
    ("query_lengths", lambda t: t * 0, "query_lengths must lie between 1 and S=23; found 0 to 0"),
    ("query_lengths", lambda t: t - 30, "query_lengths must lie between 1 and S=23; found -"),
    ("query_lengths", lambda t: t + 1, "query_lengths must lie between 1 and S=23; found 6 to 24"),
    ("key_lengths", lambda t: t + 1, "key_lengths must lie between 1 and K=17; found 5 to 18"),
    ("key_lengths", lambda t: t[:3], r"key_lengths is torch.int64 \(3,\); torch.int64 \(4,\) was expected"),
    ("key_lengths", lambda t: t.int(), r"key_lengths is torch.int32 \(4,\); torch.int64"),
    ("key_lengths", lambda t: None, "key_lengths is missing, but ragged is 1"),
    ("k", lambda t: t[:, :, 1:], r"k has the size \(4, 2, 16, 8\); \(4, 2, 17, 8\) was expected"),
    ("v", lambda t: t.float(), "v is torch.float32 on cpu and q is torch.float64"),
    ("query_lengths", lambda t: t.to("meta"), "query_lengths is on meta and q on cpu; move it there"),
    ("key_lengths", lambda t: t.to("meta"), "key_lengths is on meta and q on cpu; move it there"),
]


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize(("name", "change", "sentence"), BAD_TENSORS)
def test_tensors_that_do_not_fit_are_refused(row: str, name: str, change: Any, sentence: str) -> None:
    tensors: dict[str, Any] = _doubles(RAGGED_BLIND)
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=sentence):
        IMPLEMENTATIONS[row].run(RAGGED_BLIND, **tensors)


def test_lengths_that_nobody_asked_for_are_refused() -> None:
    tensors = _doubles(RAGGED)
    with pytest.raises(ValueError, match="query_lengths is given, but ragged is 0"):
        reference(replace(RAGGED, ragged=0), **tensors)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_an_empty_batch_has_an_empty_result_and_gradients(row: str) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(EMPTY).items()}
    (o,) = IMPLEMENTATIONS[row].run(EMPTY, **tensors)
    assert o.shape == (0, 2, 5, 8)
    assert [t.shape for t in torch.autograd.grad(o.sum(), tensors.values())] == [t.shape for t in tensors.values()]
    assert work(EMPTY, "bf16", "both").flops == 0


def test_lengths_are_in_range_unsorted_and_equal_where_sizes_are() -> None:
    queries, keys = lengths_of(Shape(8, 1, 100, 8, ragged=1))
    assert queries == keys and sorted(queries) == [12, 25, 37, 50, 62, 75, 87, 100] != list(queries)
    queries, keys = lengths_of(Shape(8, 1, 100, 8, K=50, ragged=1))
    assert max(queries) == 100 and max(keys) == 50 and min(keys) == 6
    assert any(mine > other for mine, other in zip(queries, keys)) and list(keys) != sorted(keys)


def test_padding_is_the_share_after_the_ends() -> None:
    assert padding_waste(SQUARE) == padding_waste(EMPTY) == 0
    queries, keys = lengths_of(RAGGED_BLIND)
    assert padding_waste(RAGGED_BLIND) == 1 - (sum(queries) + sum(keys)) / (4 * (23 + 17))


@pytest.mark.parametrize("shape", [RAGGED, RAGGED_BLIND, RAGGED_FULL, Shape(2, 2, 600, 8, K=400, ragged=1)], ids=str)
def test_a_spot_check_of_rows_of_different_lengths_sees_them(shape: Shape) -> None:
    tensors = _doubles(shape)
    (whole,) = reference(shape, **tensors)
    for seed in range(4):
        for smaller, part, take, of_part in spot(shape, tensors, seed):
            assert not smaller.ragged
            (got,), (want,) = of_part(reference(smaller, **part)), take((whole,))
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_door_takes_tensors_alone() -> None:
    tensors = _doubles(RAGGED)
    assert torch.equal(attend(**tensors, row="torch.math"), IMPLEMENTATIONS["torch.math"].run(RAGGED, **tensors)[0])
    plain = {name: tensors[name] for name in "qkv"}
    want = _by_hand(replace(RAGGED, ragged=0, causal=0), **plain)
    torch.testing.assert_close(attend(**plain, causal=False, row="reference"), want, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="4 each were expected"):
        attend(tensors["q"][0], tensors["k"], tensors["v"])
    for row, how, words in (
        ("torch.math", {"key_lengths": tensors["key_lengths"]}, "query_lengths is missing"),
        ("torch.maths", {}, "no row 'torch.maths'; its rows are reference"),
        ("triton", {}, r"\.$"),  # whichever refusal: it is a sentence
    ):
        with pytest.raises(ValueError, match=words):
            attend(**plain, **how, row=row)


def test_flash_attn_is_a_row_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        assert "flash_attn" not in IMPLEMENTATIONS and _attention_peers.peer_rows() == {}
    package: Any = types.ModuleType("flash_attn")
    package.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)

    def stand_in(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        tensors = (t.transpose(1, 2) for t in (q, k, v))
        return attend(*tensors, causal=causal, row="reference").transpose(1, 2)

    package.flash_attn_func = stand_in
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    row = _attention_peers.peer_rows()["flash_attn"]
    tensors = _doubles(LONGER_KEYS)
    torch.testing.assert_close(row.run(LONGER_KEYS, **tensors)[0], _by_hand(LONGER_KEYS, **tensors))
    for shape, dtype, device, word in (
        (SQUARE, "bf16", "cpu", "GPU"),
        (SQUARE, "fp32", "cuda", "not fp32"),
        (Shape(1, 1, 4, 36), "bf16", "cuda", "P=36"),
        (RAGGED, "bf16", "cuda", "packed"),
        (EMPTY, "bf16", "cuda", "empty"),
    ):
        assert word in (row.supports(shape, dtype, device) or "")
    assert row.supports(SQUARE, "bf16", "cuda") is None


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "N": 4, "S": 512, "P": 64} | sizes)), dtype, device)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
def test_wide_float32_heads_are_refused_under_a_triton_that_would_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, refused in (("3.6.0", True), ("3.8.1", True), ("3.9.0", False), ("3.10.0+git1", False)):
        monkeypatch.setattr(_triton.triton, "__version__", version)
        assert ("take triton 3.9" in (_refusal("triton", "fp32", "cuda", P=160) or "")) == refused, version
        assert _refusal("triton", "fp32", "cuda", P=128) is None
        assert _refusal("triton", "bf16", "cuda", P=256) is None


def test_rows_that_cannot_run_say_why() -> None:
    assert "GPUs" in (_refusal("torch.cudnn", "bf16", "cpu") or "")
    assert "GPUs" in (_refusal("torch.efficient", "bf16", "cpu") or "")
    assert "fp32" in (_refusal("torch.flash", "fp32", "cuda") or "")
    assert "P=264" in (_refusal("torch.flash", "bf16", "cuda", P=264) or "")
    assert "no mask" in (_refusal("torch.flash", "bf16", "cuda", ragged=1) or "")
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


def test_the_cost_of_rows_of_different_lengths_counted_by_hand() -> None:
    """2 rows of 2 and 4 queries, 3 and 1 keys of the other order: the cost ends where the rows do."""
    shape = Shape(2, 2, 4, 5, K=3, G=1, ragged=1)
    assert lengths_of(shape) == ((2, 4), (3, 1))
    # Row 0: 2 queries of 3 keys see 2 and 3. Row 1: of 4 queries and 1 key the last sees it.
    assert shape.visible_pairs == 5 + 1
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 4 * 5 * 2 * 6
    assert backward.matmul_flops == 10 * 5 * 2 * 6
    # 6 queries of 2 heads and twice 4 keys of 5 numbers, and 2 lengths of 8 bytes for each row; all of o is written.
    assert forward.read_bytes == 2 * 5 * (12 + 8) + 2 * 2 * 8
    assert forward.write_bytes == 2 * 5 * 2 * 2 * 4
    assert backward.read_bytes == 2 * 5 * (3 * 12 + 8) + 2 * 2 * 8 + 4 * 12
    assert backward.write_bytes == 2 * 5 * (2 * 2 * 4 + 2 * 2 * 3)
    assert (forward.saved_bytes, forward.tokens) == (4 * 12, 6)


@pytest.mark.parametrize("shape", [BLIND, RAGGED_BLIND, RAGGED_FULL, LONGER_KEYS], ids=str)
def test_costs_are_those_of_a_counted_loop(shape: Shape) -> None:
    """Walk through every pair as the definition does, and count."""
    matmul = pointwise = special = 0
    for queries, keys in zip(*lengths_of(shape)):
        for i in range(shape.N * queries):
            pointwise += 2 * shape.P  # the query scaled, the average normalised
            for j in range(keys):
                if not shape.causal or j <= i % queries + keys - queries:
                    matmul += 2 * shape.P + 2 * shape.P
                    pointwise += 3
                    special += 1
    cost = work(shape, "fp32", "forward")
    assert (cost.matmul_flops, cost.pointwise_flops, cost.special_ops) == (matmul, pointwise, special)


def test_every_configuration_is_listed_once() -> None:
    labels = {case.label for case in attention.COMPILE}
    own = sum(label[-1].isdigit() for label in labels)  # tiles of one target
    # Three kernels; four widths in three layouts, and for all dtypes but fp32 in a fourth.
    assert len(labels) == len(attention.COMPILE) == 3 * (4 * 4 * 3 + 3 * 4) + own
    covered: dict[tuple[str, ...], list[int]] = {}
    for case in attention.COMPILE:
        layout = case.label.split()[-1]
        assert case.constexprs["LAYOUT"] == layout.split("_")[0]
        assert bool(case.divisible) == (layout != "unaligned")
        covered.setdefault((*case.label.split()[:-1], layout.split("_")[0]), []).extend(case.targets)
    for (*_, layout), targets in covered.items():
        assert sorted(targets) == ([90, 100] if layout == "descriptor" else [80, 90, 100])
    assert sum(90 in case.targets and not case.rare for case in attention.COMPILE) <= 25
