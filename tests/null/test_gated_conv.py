"""Gated convolution is nn.Conv1d and F.glu, and what the docstring says, in every row that runs here."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from convolutions import close, doubles
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqroof.kernels import gated_conv
from seqroof.kernels.gated_conv import IMPLEMENTATIONS, Shape, inputs, work

CPU_ROWS = ["reference", "torch"]
PLAIN = Shape(2, 19, 6, 5, 4)
DILATED = Shape(2, 19, 6, 5, 3, dilation=4)
RESIDUAL = Shape(2, 19, 6, 6, 3, dilation=2, residual=1)
SHORT = Shape(1, 3, 4, 2, 5, dilation=3)


def _doubles(shape: Shape) -> dict[str, torch.Tensor]:
    return doubles(gated_conv, shape)


def _by_hand(shape: Shape, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One step and one tap at a time, straight from the definition."""
    y = torch.empty(shape.B, shape.T, shape.O, dtype=x.dtype)
    for t in range(shape.T):
        sums = bias.expand(shape.B, -1).clone()
        for w in range(shape.W):
            source = t - (shape.W - 1 - w) * shape.dilation
            if source >= 0:
                sums += x[:, source] @ weight[w]
        value, gate = sums[:, : shape.O], torch.sigmoid(sums[:, shape.O :])
        y[:, t] = x[:, t] * (1 - gate) + value * gate if shape.residual else value * gate
    return y


def _conv1d(tensors: dict[str, torch.Tensor], dilation: int) -> torch.nn.Conv1d:
    taps, channels, outputs = tensors["weight"].shape
    layer = torch.nn.Conv1d(channels, outputs, taps, dilation=dilation, dtype=tensors["weight"].dtype)
    with torch.no_grad():
        layer.weight.copy_(tensors["weight"].permute(2, 1, 0))
        layer.bias.copy_(tensors["bias"])
    return layer


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [PLAIN, DILATED, RESIDUAL, SHORT, Shape(1, 1, 1, 1, 1)], ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    torch.testing.assert_close(got, _by_hand(shape, **tensors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [PLAIN, DILATED], ids=str)
def test_values_and_gradients_are_those_of_conv1d_and_glu(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    layer = _conv1d(tensors, shape.dilation)
    (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    padded = F.pad(tensors["x"].transpose(1, 2), ((shape.W - 1) * shape.dilation, 0))
    want = F.glu(layer(padded), dim=1).transpose(1, 2)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(want)
    dx, dweight, dbias = torch.autograd.grad(got, tensors.values(), gradient)
    theirs = torch.autograd.grad(want, [tensors["x"], layer.weight, layer.bias], gradient)
    for mine, other in zip((dx, dweight.permute(2, 1, 0), dbias), theirs):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_the_gradient_of_the_residual_form_is_that_of_finite_differences(row: str) -> None:
    shape = Shape(1, 4, 2, 2, 2, residual=1)
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    run = IMPLEMENTATIONS[row].run
    assert torch.autograd.gradcheck(lambda *t: run(shape, **dict(zip(tensors, t)))[0], list(tensors.values()))


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [PLAIN, DILATED, RESIDUAL], ids=str)
def test_later_inputs_change_no_earlier_output(row: str, shape: Shape) -> None:
    tensors = inputs(shape, "fp32", "cpu", seed=3)
    (before,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    tensors["x"][:, 11:] += 1
    (after,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert torch.equal(before[:, :11], after[:, :11])
    assert (before[:, 11:] != after[:, 11:]).any(dim=-1).all()


@pytest.mark.parametrize("row", CPU_ROWS)
def test_only_inputs_within_reach_matter(row: str) -> None:
    tensors = inputs(DILATED, "fp32", "cpu", seed=3)
    (before,) = IMPLEMENTATIONS[row].run(DILATED, **tensors)
    tensors["x"][:, 2] += 1
    (after,) = IMPLEMENTATIONS[row].run(DILATED, **tensors)
    changed = (before != after).any(dim=-1).any(dim=0).nonzero().flatten().tolist()
    assert changed == [2, 6, 10]


small = st.builds(
    lambda residual, O, **sizes: Shape(O=sizes["C"] if residual else O, residual=residual, **sizes),
    B=st.just(1),
    T=st.integers(1, 12),
    C=st.integers(1, 4),
    O=st.integers(1, 4),
    W=st.integers(1, 5),
    dilation=st.integers(1, 6),
    residual=st.integers(0, 1),
)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(small)
def test_every_row_agrees_with_the_definition_for_any_shape(shape: Shape) -> None:
    tensors = _doubles(shape)
    for row in CPU_ROWS:
        close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [PLAIN, DILATED, RESIDUAL], ids=str)
def test_an_input_later_is_an_output_later(row: str, shape: Shape) -> None:
    """Away from the beginning."""
    tensors = _doubles(shape)
    later = tensors | {"x": torch.roll(tensors["x"], 3, dims=1)}
    (y,), (moved,) = (IMPLEMENTATIONS[row].run(shape, **given) for given in (tensors, later))
    inside = shape.halo + 3
    close((moved[:, inside:],), (y[:, inside - 3 : -3],))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_with_taps_beyond_the_sequence_only_the_last_is_left(row: str) -> None:
    tensors = _doubles(SHORT)
    one = tensors | {"weight": tensors["weight"][-1:]}
    close(IMPLEMENTATIONS[row].run(SHORT, **tensors), IMPLEMENTATIONS[row].run(replace(SHORT, W=1), **one))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_no_sequences_give_no_outputs(row: str) -> None:
    shape = replace(RESIDUAL, B=0)
    assert {work(shape, "fp32", half).flops for half in ("forward", "backward", "both")} == {0}
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    (y,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert y.shape == (0, 19, 6)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), list(tensors.values())))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_a_closed_gate_lets_the_input_through(row: str) -> None:
    tensors = _doubles(RESIDUAL)
    tensors["bias"][RESIDUAL.O :] = -1e3
    (y,) = IMPLEMENTATIONS[row].run(RESIDUAL, **tensors)
    assert torch.equal(y, tensors["x"])


@pytest.mark.parametrize("row", CPU_ROWS)
def test_any_memory_order_will_do(row: str) -> None:
    tensors = _doubles(DILATED)
    turned = {
        "x": tensors["x"].transpose(1, 2).contiguous().transpose(1, 2),
        "weight": tensors["weight"].permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "bias": torch.stack([tensors["bias"]] * 2, dim=1)[:, 0],
    }
    (got,) = IMPLEMENTATIONS[row].run(DILATED, **turned)
    torch.testing.assert_close(got, _by_hand(DILATED, **tensors), rtol=1e-12, atol=1e-12)


def test_inputs_are_deterministic_and_leave_the_gate_unsaturated() -> None:
    shape = Shape(2, 256, 64, 64, 4)
    tensors = inputs(shape, "fp32", "cpu", seed=7)
    assert all(torch.equal(tensors[name], again) for name, again in inputs(shape, "fp32", "cpu", seed=7).items())
    assert not torch.equal(tensors["x"], inputs(shape, "fp32", "cpu", seed=8)["x"])
    gates = torch.einsum("btc,wco->bto", tensors["x"], tensors["weight"])  # one random sum per output
    assert 0.5 < gates.std() < 2


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"T": 0}, "T must be at least 1, not 0"),
        ({"dilation": 0}, "dilation must be at least 1, not 0"),
        ({"residual": 2}, "residual must be 0 or 1, not 2"),
        ({"residual": 1}, "C=8 and O=16 must be equal"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "C": 8, "O": 16, "W": 3} | sizes))


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "T": 64, "C": 8, "O": 8, "W": 3} | sizes)), dtype, device)


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (_refusal(row, "tf32", "cpu") or ""), row
        assert "1 GFLOP/s" in (_refusal(row, "fp16", "cpu", T=8192, C=128, O=128) or ""), row
    assert _refusal("reference", "fp16", "cpu") is None
    assert _refusal("torch", "fp16", "cuda", T=8192, C=128, O=128) is None
    assert "float64" in (_refusal("triton", "fp64", "cuda") or "")


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 5 channels in, 4 out, 2 taps: 24 outputs, each from 10 inputs, twice for the gate."""
    shape = Shape(2, 3, 5, 4, 2, dilation=2)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 2 * 2 * 24 * 10
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert (forward.special_ops, backward.special_ops) == (24, 0)
    assert forward.pointwise_flops == 3 * 24
    assert backward.pointwise_flops == 4 * 24 + 8 * 5
    assert forward.read_bytes == 2 * (30 + 2 * 5 * 8 + 8)
    assert forward.write_bytes == 2 * 24
    # x, weights, value and sigmoid, dy in; dx, dweights, dbias out.
    assert backward.read_bytes == 2 * (30 + 80 + 48 + 24)
    assert backward.write_bytes == 2 * (30 + 80 + 8)
    assert (forward.parameters, forward.weight_bytes, forward.saved_bytes) == (88, 176, 2 * 48)
    assert (forward.tokens, forward.depth) == (6, 1)


def test_the_residual_form_costs_three_operations_per_output() -> None:
    plain, residual = (work(Shape(1, 10, 4, 4, 2, residual=r), "bf16", "forward") for r in (0, 1))
    assert residual.pointwise_flops - plain.pointwise_flops == 2 * 40
    assert residual.compulsory_bytes == plain.compulsory_bytes


def test_dense_taps_are_walked_as_one() -> None:
    """The Triton kernel sees one tap of W C channels where memory allows it, and W taps elsewhere."""
    plain, dilated = inputs(PLAIN, "fp32", "cpu", 0), inputs(DILATED, "fp32", "cpu", 0)
    walk = gated_conv._walk(PLAIN, plain["x"], plain["weight"])
    assert (walk["C"], walk["taps"], walk["last_tap"], walk["x_tap"]) == (24, 1, 3, 6)
    walk = gated_conv._walk(DILATED, dilated["x"], dilated["weight"])
    assert (walk["C"], walk["taps"], walk["last_tap"], walk["x_tap"]) == (6, 3, 2, 24)
    wider = torch.zeros(2, 19, 8)[:, :, :6]
    assert gated_conv._walk(PLAIN, wider, plain["weight"])["taps"] == 4
