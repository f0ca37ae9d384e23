"""The decoder layer is nn.TransformerEncoderLayer's, and what the docstring says, in every row that runs here."""

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import _transformer_norm, transformer_block
from seqroof.kernels.transformer_block import IMPLEMENTATIONS, ODD, Shape, costs_of, inputs, sizes_of, work

CPU_ROWS = ["reference", "torch"]
rows = pytest.mark.parametrize("row", CPU_ROWS)
CAUSAL = Shape(2, 11, 12, 3, F=20)
FULL = Shape(2, 7, 16, 4, causal=0)
SHARED = Shape(2, 9, 24, 6, G=2, F=10)
few = settings(max_examples=12, deadline=None, derandomize=True)

Tensors = dict[str, torch.Tensor]


def _doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def _run(row: str, shape: Shape, tensors: Tensors) -> torch.Tensor:
    return IMPLEMENTATIONS[row].run(shape, **tensors)[0]


def _norm_by_hand(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean = sum(x.tolist()) / len(x)
    variance = sum((value - mean) ** 2 for value in x.tolist()) / len(x)
    return (x - mean) / math.sqrt(variance + 1e-5) * weight + bias


def _by_hand(shape: Shape, counts: dict[str, int] | None = None, **t: torch.Tensor) -> torch.Tensor:
    """One step and one head at a time, straight from the definition; counts the multiply-adds of its products."""
    counts = defaultdict(int) if counts is None else counts
    P, shared = shape.P, shape.N // shape.G

    def times(name: str, vector: torch.Tensor) -> torch.Tensor:
        counts[name] += t[f"{name}_weight"].numel()
        return (t[f"{name}_weight"] * vector).sum(1) + t[f"{name}_bias"]

    y = torch.empty_like(t["x"])
    for b in range(shape.B):
        made = [times("qkv", _norm_by_hand(x, t["norm1_weight"], t["norm1_bias"])) for x in t["x"][b]]
        for i in range(shape.T):
            heads = []
            for n in range(shape.N):
                q = made[i][n * P : (n + 1) * P]
                k, v = (shape.N + n // shared) * P, (shape.N + shape.G + n // shared) * P
                seen = made[: i + 1] if shape.causal else made
                weights = torch.stack([(q * other[k : k + P]).sum() / math.sqrt(P) for other in seen]).exp()
                heads.append(sum(w * other[v : v + P] for w, other in zip(weights / weights.sum(), seen)))
                counts["attention"] += 2 * P * len(seen)
            h = t["x"][b, i] + times("out", torch.cat(heads))
            u = times("up", _norm_by_hand(h, t["norm2_weight"], t["norm2_bias"]))
            active = [value * (1 + math.erf(value / 2**0.5)) / 2 for value in u.tolist()]
            y[b, i] = h + times("down", torch.tensor(active, dtype=y.dtype))
    return y


@rows
@pytest.mark.parametrize("shape", [CAUSAL, FULL, SHARED, Shape(1, 1, 1, 1, F=1)], ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    torch.testing.assert_close(_run(row, shape, tensors), _by_hand(shape, **tensors), rtol=1e-12, atol=1e-12)


def _module(shape: Shape, tensors: Tensors) -> tuple[torch.nn.TransformerEncoderLayer, list[torch.Tensor]]:
    """Torch's own layer with these weights, and its parameters in the order of ours."""
    layer = torch.nn.TransformerEncoderLayer(
        shape.M, shape.N, shape.F, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    parameters: list[torch.Tensor] = []
    for module in (layer.norm1, None, layer.self_attn.out_proj, layer.norm2, layer.linear1, layer.linear2):
        attended = [layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias]
        parameters += attended if module is None else [module.weight, module.bias]
    with torch.no_grad():
        for parameter, tensor in zip(parameters, list(tensors.values())[1:], strict=True):
            parameter.copy_(tensor)
    return layer, parameters


@rows
@pytest.mark.parametrize("shape", [CAUSAL, FULL], ids=str)
def test_values_and_gradients_are_those_of_torchs_layer(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    layer, parameters = _module(shape, tensors)
    hidden = torch.ones(shape.T, shape.T, dtype=torch.bool).triu(1) if shape.causal else None
    want = layer(tensors["x"], src_mask=hidden)
    got = _run(row, shape, tensors)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    above = torch.randn_like(want)
    mine = torch.autograd.grad(got, list(tensors.values()), above)
    theirs = torch.autograd.grad(want, [tensors["x"], *parameters], above)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert sum(parameter.numel() for parameter in layer.parameters()) == work(shape, "fp32", "forward").parameters


@rows
@pytest.mark.parametrize("causal", [0, 1])
def test_the_gradient_is_that_of_finite_differences(row: str, causal: int) -> None:
    shape = Shape(1, 3, 4, 2, G=1, F=3, causal=causal)
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    leaves = list(tensors.values())
    assert torch.autograd.gradcheck(lambda *t: _run(row, shape, dict(zip(tensors, t))), leaves, fast_mode=True)


shapes = st.builds(
    lambda B, T, G, shared, P, F, causal: Shape(B, T, G * shared * P, G * shared, G=G, F=F, causal=causal),
    *(st.integers(1, most) for most in (3, 12, 2, 3, 5, 20)),
    st.integers(0, 1),
)


@rows
@few
@given(shapes, st.data())
def test_no_step_sees_a_later_one(row: str, shape: Shape, data: Any) -> None:
    shape = replace(shape, causal=1)
    tensors = _doubles(shape)
    first = data.draw(st.integers(0, shape.T - 1))
    before = _run(row, shape, tensors)
    tensors["x"][:, first:] += torch.randn(shape.M, dtype=torch.float64)
    after = _run(row, shape, tensors)
    torch.testing.assert_close(after[:, :first], before[:, :first], rtol=1e-12, atol=1e-12)
    if shape.M > 1:  # the norm of one value is its bias
        assert (after[:, first:] != before[:, first:]).any(dim=-1).all()


@rows
@few
@given(shapes)
def test_without_causality_steps_may_be_permuted(row: str, shape: Shape) -> None:
    shape = replace(shape, causal=0)
    tensors = _doubles(shape)
    order = torch.randperm(shape.T, generator=torch.Generator().manual_seed(shape.T))
    want = _run(row, shape, tensors)[:, order]
    got = _run(row, shape, tensors | {"x": tensors["x"][:, order]})
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@rows
def test_shared_heads_equal_repeated_weights(row: str) -> None:
    tensors = _doubles(SHARED)
    repeated = dict(tensors)
    for name in ("qkv_weight", "qkv_bias"):
        parts = tensors[name].unflatten(0, (-1, SHARED.P)).split((6, 2, 2))
        repeated[name] = torch.cat((parts[0], *(part.repeat_interleave(3, dim=0) for part in parts[1:]))).flatten(0, 1)
    want = _run(row, replace(SHARED, G=6), repeated)
    torch.testing.assert_close(_run(row, SHARED, tensors), want, rtol=1e-12, atol=1e-12)


@rows
def test_any_memory_order_will_do(row: str) -> None:
    tensors = _doubles(SHARED)
    turned = {n: t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.dim() > 1 else t for n, t in tensors.items()}
    torch.testing.assert_close(_run(row, SHARED, turned), _run(row, SHARED, tensors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", [*CPU_ROWS, "triton"])
def test_no_sequences_give_an_empty_result_and_gradients_of_zero(row: str) -> None:
    shape = replace(CAUSAL, B=0)
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    y = _run(row, shape, tensors)
    assert y.shape == (0, 11, 12)
    for gradient, tensor in zip(torch.autograd.grad(y.sum(), list(tensors.values())), tensors.values()):
        assert gradient.shape == tensor.shape and not gradient.any()
    assert work(shape, "bf16", "both").terms == ()
    assert IMPLEMENTATIONS[row].parts(shape, tensors) == []


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"T": 0}, "T must be at least 1, not 0"),
        ({"F": -4}, "F must be at least 1, not -4"),
        ({"causal": 2}, "causal must be 0 or 1, not 2"),
        ({"N": 5}, "M must be a multiple of N"),
        ({"G": 3}, "N must be a multiple of G"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 4, "M": 16, "N": 4} | sizes))


@pytest.mark.parametrize("row", [*CPU_ROWS, "triton"])
def test_tensors_that_do_not_fit_are_refused(row: str) -> None:
    tensors = _doubles(CAUSAL)
    for name, size in sizes_of(CAUSAL).items():
        with pytest.raises(ValueError, match=f"{name} has the size"):
            _run(row, CAUSAL, tensors | {name: tensors[name][..., 1:]})
        with pytest.raises(ValueError, match=rf"{name} is missing; .* needs it with the size \({size[0]},"):
            _run(row, CAUSAL, {other: tensor for other, tensor in tensors.items() if other != name})
    with pytest.raises(ValueError, match="mask was given"):
        _run(row, CAUSAL, tensors | {"mask": tensors["x"]})


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "T": 64, "M": 64, "N": 4} | sizes)), dtype, device)


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (_refusal(row, "tf32", "cpu") or ""), row
        assert "1 GFLOP/s" in (_refusal(row, "fp16", "cpu", T=512, M=512) or ""), row
        assert _refusal(row, "bf16", "cuda", T=512, M=512) is None, row
    assert "beyond 64 tokens" in (_refusal("torch", "fp16", "cpu", B=1, T=65) or "")
    assert _refusal("torch", "fp16", "cpu", B=1, T=64) is None and _refusal("torch", "fp16", "cuda", B=1, T=65) is None
    assert "attention: keeps all scores" in (_refusal("reference", "bf16", "cpu", T=2**15) or "")
    assert "up to 8192 values, not M=8200" in (_refusal("triton", "bf16", "cuda", M=8200) or "")
    assert "multiples of 16, not M=5000" in (_refusal("triton", "bf16", "cuda", M=5000) or "")
    assert "attention: " in (_refusal("triton", "bf16", "cuda", M=4096, N=1) or "")


def test_sizes_left_out_are_filled_in() -> None:
    assert Shape(1, 2, 8, 4) == Shape(1, 2, 8, 4, G=4, F=32)


@pytest.mark.parametrize("shape", [CAUSAL, FULL, SHARED], ids=str)
def test_products_are_those_of_a_loop_that_counts(shape: Shape) -> None:
    counts: dict[str, int] = defaultdict(int)
    _by_hand(shape, counts, **_doubles(shape))
    assert work(shape, "fp32", "forward").matmul_flops == 2 * sum(counts.values())
    parts = costs_of(shape, "fp32", "forward")
    assert parts["attention"].matmul_flops == 2 * counts["attention"]
    assert parts["projections"].matmul_flops == 2 * (counts["qkv"] + counts["out"])
    assert parts["feed-forward"].matmul_flops == 2 * (counts["up"] + counts["down"])


@pytest.mark.parametrize("shape", [FULL, replace(SHARED, causal=0)], ids=str)
def test_backward_products_are_those_of_autograd_and_the_scores_again(shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    y = _run("reference", shape, tensors)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(y, list(tensors.values()), torch.ones_like(y))
    again = 2 * shape.B * shape.N * shape.T**2 * shape.P
    assert work(shape, "fp32", "backward").matmul_flops == counter.get_total_flops() + again


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 4 values in 2 heads of 2 that share one key head, 5 inside: q, k and v are 8 values."""
    shape = Shape(2, 3, 4, 2, G=1, F=5)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    pairs = 2 * 2 * 6
    assert forward.matmul_flops == 2 * 6 * (4 * 8 + 4 * 4 + 2 * 4 * 5) + 4 * 2 * pairs
    # Norms 7 per value, biases, two sums, gelu; attention's scale, softmax and normalisation.
    assert forward.pointwise_flops == 6 * (2 * 7 * 4 + 8 + 4 + 5 + 4 + 2 * 4 + 4 * 5) + 3 * pairs + 2 * 24
    assert forward.special_ops == 6 * 2 + 6 * 5 + pairs
    parameters = 8 * 4 + 8 + 16 + 4 + 20 + 5 + 20 + 4 + 4 * 4
    assert forward.parameters == parameters and forward.weight_bytes == 2 * parameters
    assert (forward.read_bytes, forward.write_bytes) == (2 * (24 + parameters), 2 * 24)
    # q, k, v, o, h and up in 16 bits; mean and 1/std of both norms and a logarithm per head in 32.
    assert forward.saved_bytes == 2 * 6 * (8 + 4 + 4 + 5) + 4 * 6 * (4 + 2)
    assert backward.read_bytes == 2 * (24 + parameters + 24) + forward.saved_bytes
    assert backward.write_bytes == forward.read_bytes
    assert backward.matmul_flops == 4 * 6 * (4 * 8 + 4 * 4 + 2 * 4 * 5) + 10 * 2 * pairs
    assert backward.special_ops == 2 * 6 * 5 + pairs
    assert (forward.tokens, forward.depth) == (6, 1)


def test_parameters_of_a_common_layer() -> None:
    """12 M^2 and its biases and norms: 4 M^2 + 4M in attention, 8 M^2 + 5M in the network, 4M in the norms."""
    assert work(Shape(1, 1, 512, 8), "bf16", "forward").parameters == 12 * 512**2 + 13 * 512


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_the_whole_is_the_sum_of_its_parts(direction: str) -> None:
    whole, parts = work(SHARED, "bf16", direction), costs_of(SHARED, "bf16", direction)
    for quantity in ("matmul_flops", "pointwise_flops", "special_ops", "parameters", "weight_bytes"):
        assert getattr(whole, quantity) == sum(getattr(part, quantity) for part in parts.values()), quantity
    assert whole.compulsory_bytes < sum(part.compulsory_bytes for part in parts.values())
    labels = {term.label.split(":")[0] for term in whole.terms if not term.quantity.endswith("_bytes")}
    assert labels == set(parts) == {"attention", "projections", "feed-forward"}


@rows
def test_parts_run_alone_and_cost_what_is_declared(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(SHARED, "bf16", "cpu", 3)
    calls = IMPLEMENTATIONS[row].parts(SHARED, tensors)
    costs = costs_of(SHARED, "bf16", "forward")
    assert [(call.name, call.work) for call in calls] == list(costs.items())
    full = costs_of(replace(SHARED, causal=0), "bf16", "forward")
    for call in calls:
        counter = FlopCounterMode(display=False)
        with counter:
            call.run()
            call.run()
        assert counter.get_total_flops() in (0, 2 * full[call.name].matmul_flops), call.name
        # SDPA on a CPU has no formula in the counter.
        assert counter.get_total_flops() or (row, call.name) == ("torch", "attention")


def test_inputs_are_deterministic_and_scores_have_variance_one() -> None:
    shape = Shape(1, 256, 128, 2)
    tensors = inputs(shape, "fp32", "cpu", 7)
    assert all(torch.equal(tensors[name], again) for name, again in inputs(shape, "fp32", "cpu", 7).items())
    assert not torch.equal(tensors["x"], inputs(shape, "fp32", "cpu", 8)["x"])
    q, k, _ = transformer_block._project(shape, transformer_block._TORCH, tensors)
    assert 0.5 < (q @ k.mT / 8).std() < 2
    assert 0.9 < tensors["norm1_weight"].mean() < 1.1


def test_every_configuration_is_listed_once() -> None:
    labels = {case.label for case in transformer_block.COMPILE}
    assert len(labels) == len(transformer_block.COMPILE) == 3 * (6 + 5) * 2 * 2
    for case in transformer_block.COMPILE:
        assert bool(case.divisible) == ("unaligned" not in case.label)
        backward = case.label.endswith("backward")
        columns, add, kind = (case.constexprs[name] for name in ("COLUMNS", "ADD", "ACC"))
        assert case.constexprs == _transformer_norm._constexprs(columns, add, kind, backward)
    assert {shape.causal for shape in ODD} == {0, 1}


def test_gradients_are_there_where_attention_has_them() -> None:
    assert IMPLEMENTATIONS["triton"].grad
