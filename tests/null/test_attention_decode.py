"""Decoding attention is nn.functional's with one query, and what the docstring says, in every row that runs here."""

import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import _attention_decode_triton as launching
from seqroof.kernels import _catalog, attention
from seqroof.kernels.attention_decode import (
    IMPLEMENTATIONS,
    ODD,
    SHAPES,
    Shape,
    inputs,
    lengths_of,
    padding_waste,
    reference,
    work,
)

CPU_ROWS = ["reference", "torch.math", "torch.flash"]
rows = pytest.mark.parametrize("row", CPU_ROWS)
PLAIN = Shape(2, 4, 37, 24)
SHARED = Shape(2, 6, 29, 16, G=2)
RAGGED = Shape(4, 6, 41, 24, G=3, ragged=1)
ONE_KEY = Shape(2, 3, 1, 8)
few = settings(max_examples=15, deadline=None, derandomize=True)

Tensors = dict[str, torch.Tensor]


def _doubles(shape: Shape, seed: int = 3) -> Tensors:
    drawn = inputs(shape, "fp32", "cpu", seed)
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in drawn.items()}


def _run(row: str, shape: Shape, tensors: Tensors) -> torch.Tensor:
    return IMPLEMENTATIONS[row].run(shape, **tensors)[0]


def _by_hand(shape: Shape, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Any = None) -> torch.Tensor:
    """One query and one key at a time, straight from the definition."""
    o = torch.zeros_like(q)
    for b in range(shape.B):
        for n in range(shape.N):
            group = n // (shape.N // shape.G)
            valid = shape.K if lengths is None else int(lengths[b])
            weights = [torch.exp(q[b, n].dot(k[b, group, j]) * shape.P**-0.5) for j in range(valid)]
            for j, weight in enumerate(weights):
                o[b, n] += weight / sum(weights) * v[b, group, j]
    return o


@rows
@pytest.mark.parametrize("shape", [PLAIN, SHARED, RAGGED, ONE_KEY], ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    torch.testing.assert_close(_run(row, shape, tensors), _by_hand(shape, **tensors), rtol=1e-12, atol=1e-12)


@rows
@pytest.mark.parametrize("shape", [PLAIN, SHARED], ids=str)
def test_values_and_gradients_are_those_of_sdpa_with_one_query(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    got = _run(row, shape, tensors)
    want = F.scaled_dot_product_attention(tensors["q"][:, :, None], tensors["k"], tensors["v"], enable_gqa=True)[
        :, :, 0
    ]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(want)
    for mine, other in zip(
        torch.autograd.grad(got, list(tensors.values()), gradient),
        torch.autograd.grad(want, list(tensors.values()), gradient),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@rows
def test_it_is_the_last_query_of_causal_attention(row: str) -> None:
    whole = attention.Shape(2, 6, 29, 16, G=2)
    tensors = {name: tensor.double() for name, tensor in attention.inputs(whole, "fp32", "cpu", 3).items()}
    (o,) = attention.reference(whole, **tensors)
    got = _run(row, SHARED, tensors | {"q": tensors["q"][:, :, -1]})
    torch.testing.assert_close(got, o[:, :, -1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [Shape(1, 2, 5, 2, G=1), Shape(2, 1, 3, 2, ragged=1)], ids=str)
def test_the_gradient_is_that_of_finite_differences(shape: Shape) -> None:
    tensors = _doubles(shape)
    lengths = {name: tensors.pop(name) for name in ("lengths",) if name in tensors}
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    assert torch.autograd.gradcheck(lambda q, k, v: reference(shape, q, k, v, **lengths)[0], leaves)


shapes = st.builds(
    lambda B, G, shared, K, P, ragged: Shape(B, G * shared, K, P, G=G, ragged=ragged),
    *(st.integers(1, most) for most in (4, 3, 3, 40, 20)),
    st.integers(0, 1),
)


@rows
@few
@given(shapes, st.integers(0, 9))
def test_every_sequence_is_attended_alone_to_its_length(row: str, shape: Shape, seed: int) -> None:
    tensors = _doubles(shape, seed)
    together = _run(row, shape, tensors)
    for b, valid in enumerate(lengths_of(shape)):
        alone = {"q": tensors["q"][b : b + 1]} | {name: tensors[name][b : b + 1, :, :valid] for name in ("k", "v")}
        one = Shape(1, shape.N, valid, shape.P, G=shape.G)
        torch.testing.assert_close(_run(row, one, alone), together[b : b + 1], rtol=1e-12, atol=1e-12)


@rows
@few
@given(shapes, st.randoms(use_true_random=False))
def test_heads_may_be_permuted(row: str, shape: Shape, random: Any) -> None:
    tensors = _doubles(shape)
    shared = shape.N // shape.G
    order = random.sample(range(shape.G), shape.G)
    heads = [group * shared + n for group in order for n in random.sample(range(shared), shared)]
    moved = tensors | {"q": tensors["q"][:, heads]} | {name: tensors[name][:, order] for name in ("k", "v")}
    want = _run(row, shape, tensors)[:, heads]
    torch.testing.assert_close(_run(row, shape, moved), want, rtol=1e-12, atol=1e-12)


@rows
@few
@given(shapes)
def test_weights_sum_to_one(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    tensors["v"] = torch.ones_like(tensors["v"])
    torch.testing.assert_close(_run(row, shape, tensors), torch.ones_like(tensors["q"]), rtol=1e-12, atol=1e-12)


@rows
def test_a_key_with_an_infinitely_low_score_changes_nothing(row: str) -> None:
    tensors = _doubles(PLAIN)
    tensors["q"][..., 0] = 1.0
    longer = replace(PLAIN, K=PLAIN.K + 2)
    key = torch.zeros(2, 4, 2, 24, dtype=torch.float64)
    key[..., 0] = -torch.inf
    appended = {"q": tensors["q"], "k": torch.cat((tensors["k"], key), 2)}
    appended["v"] = torch.cat((tensors["v"], torch.ones_like(key)), 2)
    want = _run(row, PLAIN, tensors)
    torch.testing.assert_close(_run(row, longer, appended), want, rtol=1e-12, atol=1e-12)


@rows
def test_what_lies_after_the_end_is_never_read(row: str) -> None:
    tensors = _doubles(RAGGED)
    want = _run(row, RAGGED, tensors)
    after = torch.arange(RAGGED.K) >= tensors["lengths"][:, None]
    spoiled = {n: torch.where(after[:, None, :, None], torch.nan, tensors[n]).requires_grad_() for n in ("k", "v")}
    if row == "reference":
        got = _run(row, RAGGED, tensors | spoiled)
        assert torch.equal(got, want)
        for gradient in torch.autograd.grad(got.sum(), list(spoiled.values())):
            assert not gradient.masked_select(after[:, None, :, None]).any()
    large = {name: torch.where(after[:, None, :, None], 1e3, tensors[name]) for name in ("k", "v")}
    torch.testing.assert_close(_run(row, RAGGED, tensors | large), want, rtol=1e-12, atol=1e-12)


@rows
def test_any_memory_order_will_do(row: str) -> None:
    """A cache may have steps before heads, (B, K, G, P), and a query may lie inside of a projection."""
    tensors = _doubles(RAGGED)
    turned = {name: tensors[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("k", "v")}
    turned["q"] = torch.stack([tensors["q"]] * 2, dim=2)[:, :, 0]
    torch.testing.assert_close(_run(row, RAGGED, tensors | turned), _run(row, RAGGED, tensors), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("row", [*CPU_ROWS, "triton"])
@pytest.mark.parametrize("ragged", [0, 1])
def test_no_sequences_give_an_empty_result_and_gradients(row: str, ragged: int) -> None:
    shape = Shape(0, 4, 5, 8, G=2, ragged=ragged)
    tensors = _doubles(shape)
    leaves = [tensor.requires_grad_() for name, tensor in tensors.items() if name != "lengths"]
    o = _run(row, shape, tensors)
    assert o.shape == (0, 4, 8)
    assert [gradient.shape for gradient in torch.autograd.grad(o.sum(), leaves)] == [leaf.shape for leaf in leaves]


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"K": 0}, "K must be at least 1, not 0"),
        ({"G": -2}, "G must be at least 1, not -2"),
        ({"ragged": 2}, "ragged must be 0 or 1, not 2"),
        ({"G": 3}, "N must be a multiple of G"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "N": 4, "K": 8, "P": 16} | sizes))


BAD = [
    ("lengths", lambda t: t + 1, "between 1 and K=41, the size of the cache; found 11 to 42"),
    ("lengths", lambda t: t - 10, "found 0 to 31"),
    ("lengths", lambda t: -t, "found -41 to -10"),
    ("lengths", lambda t: t.int(), "torch.int64 was expected"),
    ("lengths", lambda t: t[:3], r"lengths has the size \(3,\)"),
    ("lengths", lambda t: None, "lengths is missing"),
    ("lengths", lambda t: t.to("meta"), "lengths is on meta and q on cpu; move it there"),
    ("k", lambda t: t[:, :, 1:], r"k has the size \(4, 3, 40, 24\); \(4, 3, 41, 24\) was expected"),
    ("q", lambda t: t[:, 1:], "q has the size"),
]


@pytest.mark.parametrize(("name", "spoil", "sentence"), BAD)
@pytest.mark.parametrize("row", [*CPU_ROWS, "triton"])
def test_tensors_that_do_not_fit_are_refused(row: str, name: str, spoil: Any, sentence: str) -> None:
    tensors = _doubles(RAGGED)
    with pytest.raises(ValueError, match=sentence):
        _run(row, RAGGED, tensors | {name: spoil(tensors[name])})


def test_lengths_without_need_are_refused() -> None:
    with pytest.raises(ValueError, match="has no use for it"):
        reference(PLAIN, **_doubles(PLAIN), lengths=torch.tensor([3, 4]))


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "N": 4, "K": 512, "P": 64} | sizes)), dtype, device)


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch.math", "torch.flash", "compile"):
        assert "TF32" in (_refusal(row, "tf32", "cpu") or ""), row
    for row in ("reference", "torch.math", "compile"):
        assert "1 GFLOP/s" in (_refusal(row, "fp16", "cpu", N=64, K=100_000) or ""), row
    for row in ("torch.efficient", "torch.cudnn"):
        assert "GPUs" in (_refusal(row, "bf16", "cpu") or ""), row
    assert "16 bytes" in (_refusal("torch.efficient", "fp32", "cuda", P=65) or "")
    assert "more than one query" in (_refusal("torch.cudnn", "bf16", "cuda") or "")
    assert "P=160" in (_refusal("torch.cudnn", "bf16", "cuda", P=160, G=1) or "")
    assert "different lengths" in (_refusal("torch.flash", "bf16", "cuda", ragged=1) or "")
    assert "fp32" in (_refusal("torch.flash", "fp32", "cuda") or "")
    for row in ("torch.flash", "torch.efficient", "torch.cudnn"):
        assert _refusal(row, "bf16", "cuda", G=1) is None, row
    assert "P=264" in (_refusal("triton", "bf16", "cuda", P=264) or "")
    assert "N/G=17" in (_refusal("triton", "bf16", "cuda", N=17, G=1) or "")
    assert "float64" in (_refusal("triton", "fp64", "cuda") or "")


def test_the_peer_is_there_where_its_package_is() -> None:
    assert ("flash_attn" in IMPLEMENTATIONS) == (importlib.util.find_spec("flash_attn") is not None)


def test_lengths_reach_from_the_cache_down_and_say_what_is_padding() -> None:
    assert sorted(lengths_of(RAGGED)) == [10, 20, 30, 41] and list(lengths_of(RAGGED)) != sorted(lengths_of(RAGGED))
    assert inputs(RAGGED, "bf16", "cpu", 0)["lengths"].tolist() == list(lengths_of(RAGGED))
    assert padding_waste(RAGGED) == pytest.approx(1 - 101 / 164)
    assert padding_waste(PLAIN) == padding_waste(Shape(0, 1, 1, 1)) == 0


def test_cost_counted_by_hand() -> None:
    """3 sequences of 6, 2 and 4 keys, 5 numbers, 4 heads that share 2: 48 pairs of a query and a key."""
    shape = Shape(3, 4, 6, 5, G=2, ragged=1)
    assert sorted(lengths_of(shape)) == [2, 4, 6]
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 4 * 5 * 48
    assert backward.matmul_flops == 10 * 5 * 48
    assert forward.special_ops == backward.special_ops == 48
    assert forward.pointwise_flops == 3 * 48 + 2 * 60
    assert backward.pointwise_flops == 3 * 48 + 4 * 60
    # 60 numbers of queries, 12 keys and values of 2 x 5 each, 3 lengths.
    assert forward.read_bytes == 2 * (60 + 120 + 120) + 8 * 3
    assert forward.write_bytes == 2 * 60
    # o and its gradient, and a float32 logarithm for each of 12 queries; gradients fill the cache of 18 keys.
    assert backward.read_bytes == forward.read_bytes + 2 * (60 + 60) + 4 * 12
    assert backward.write_bytes == 2 * (60 + 180 + 180)
    assert (forward.saved_bytes, forward.tokens, forward.depth, forward.parameters) == (4 * 12, 3, 1, 0)


def test_cost_of_a_long_cache() -> None:
    """B=1, N=8, K=131072, P=128 in bf16: 2 x 256 MiB of keys and values, one multiply-add for each of their bytes."""
    cost = work(Shape(1, 8, 131072, 128), "bf16", "forward")
    assert cost.compulsory_bytes == 2**29 + 2 * 2 * 8 * 128
    assert cost.matmul_flops == 2**29


@pytest.mark.parametrize("shape", [PLAIN, SHARED], ids=str)
def test_backward_products_are_those_of_autograd_and_the_scores_again(shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    o = _run("reference", shape, tensors)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(o, list(tensors.values()), torch.ones_like(o))
    again = 2 * shape.B * shape.N * shape.K * shape.P
    assert work(shape, "fp32", "backward").matmul_flops == counter.get_total_flops() + again


def test_all_shapes_are_possible_and_each_extreme_occurs() -> None:
    for suite in (*SHAPES.values(), ODD):
        assert len(set(suite)) == len(suite)
    assert {1, 1031} <= {shape.K for shape in ODD} and {32, 64, 80, 128, 256} <= {shape.P for shape in ODD}
    assert {shape.N // shape.G for shape in ODD} >= {1, 3, 16} and {shape.ragged for shape in ODD} == {0, 1}


@few
@given(st.integers(1, 600), st.integers(1, 3000), st.integers(1, 200))
def test_splits_keep_the_gpu_busy(groups: int, tiles: int, sms: int) -> None:
    """No split is empty, and no fewer programs run than two per SM while there are tiles for them."""
    splits = launching.best_splits(groups, tiles, sms)
    assert 1 <= splits <= tiles
    assert splits <= max(1, 8 * sms // groups)
    each = -(-tiles // splits)
    slots = 2 * sms
    # Groups and splits are whole, so half of the places may stay free.
    assert 2 * groups * splits >= min(slots, groups * tiles)
    # A tile more than an even share, and its rounding up, is all that the longest SM does.
    rounds = -(-groups * -(-tiles // each) // slots)
    one_program_each = -(-groups // slots) * (tiles + 2)
    assert rounds * (each + 2) <= one_program_each


def test_splits_of_a_long_cache_fill_an_h200_once() -> None:
    """8 heads of 128 tiles on 132 SMs: 264 programs at a time, 4 tiles each for 256 of them."""
    assert launching.best_splits(8, 128, 132) == 33
    tensors = {name: t.to("meta") for name, t in inputs(Shape(1, 8, 8192, 128), "bf16", "cpu", 0).items()}
    plan = launching._plan(Shape(1, 8, 8192, 128), 33, tensors["q"], tensors["k"], tensors["v"])
    assert (plan.splits, plan.chunk, plan.layout) == (32, 256, "exact")


def test_every_configuration_is_listed_once() -> None:
    kernel = _catalog.load("attention_decode")
    labels = {case.label for case in kernel.compile_cases}
    assert len(labels) == len(kernel.compile_cases) == 4 * 4 * 3 * 2 - 3 + 6
    assert sum(not case.rare for case in kernel.compile_cases) <= 25
    for case in kernel.compile_cases:
        assert bool(case.divisible) == ("unaligned" not in case.label)
        assert "lengths" not in case.divisible
