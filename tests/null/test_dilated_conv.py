"""A stack of dilated convolutions is nn.Conv1d layer by layer, and sees exactly its receptive field."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from convolutions import close, derivatives_are_those_of_differences, doubles, parts_are_those_of_the_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqroof.kernels import dilated_conv
from seqroof.kernels.dilated_conv import IMPLEMENTATIONS, Shape, inputs, receptive_field, work

CPU_ROWS = ["reference", "torch"]
STACK = Shape(2, 23, 5, 3, 3)
PLAIN = Shape(2, 19, 4, 2, 3, base=3, residual=0)
FAR = Shape(1, 6, 3, 4, 2, first=8)
rows = pytest.mark.parametrize("row", CPU_ROWS)


def _by_hand(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One layer, step and tap at a time, straight from the definition."""
    dilation = shape.first
    for layer in range(shape.L):
        y = torch.empty_like(x)
        for t in range(shape.T):
            sums = bias[layer].expand(shape.B, -1).clone()
            for w in range(shape.W):
                seen = t - (shape.W - 1 - w) * dilation
                if seen >= 0:
                    sums += x[:, seen] @ weight[layer, w]
            y[:, t] = sums.clamp(min=0) + (x[:, t] if shape.residual else 0)
        x, dilation = y, dilation * shape.base
    return x


@rows
@pytest.mark.parametrize("shape", [STACK, PLAIN, FAR, Shape(1, 1, 1, 1, 1)], ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = doubles(dilated_conv, shape)
    close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@rows
@pytest.mark.parametrize("shape", [STACK, PLAIN, FAR], ids=str)
def test_values_and_gradients_are_those_of_modules(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(dilated_conv, shape).items()}
    layers = [nn.Conv1d(shape.C, shape.C, shape.W, dilation=d, dtype=torch.float64) for d in shape.dilations]
    state = tensors["x"].transpose(1, 2)
    for layer, weight, bias in zip(layers, tensors["weight"], tensors["bias"]):
        layer.weight.data, layer.bias.data = weight.detach().permute(2, 1, 0).contiguous(), bias.detach().clone()
        pad = nn.ConstantPad1d(((shape.W - 1) * layer.dilation[0], 0), 0.0)
        change = nn.functional.relu(layer(pad(state)))
        state = state + change if shape.residual else change
    (got,), want = IMPLEMENTATIONS[row].run(shape, **tensors), state.transpose(1, 2)
    gradient = torch.randn_like(want)
    dx, dweight, dbias = torch.autograd.grad(got, tensors.values(), gradient)
    parameters = [*(layer.weight for layer in layers), *(layer.bias for layer in layers)]
    theirs = torch.autograd.grad(want, [tensors["x"], *parameters], gradient)
    weights = torch.stack([t.permute(2, 1, 0) for t in theirs[1 : shape.L + 1]])
    close((got, dx, dweight, dbias), (want, theirs[0], weights, torch.stack(theirs[shape.L + 1 :])))


@rows
def test_gradients_are_those_of_finite_differences(row: str) -> None:
    tensors = doubles(dilated_conv, Shape(1, 6, 2, 2, 2))
    run = IMPLEMENTATIONS[row].run
    derivatives_are_those_of_differences(lambda **t: run(Shape(1, 6, 2, 2, 2), **t), tensors)


small = st.builds(
    Shape,
    B=st.just(1),
    T=st.integers(1, 14),
    C=st.integers(1, 3),
    W=st.integers(1, 4),
    L=st.integers(1, 3),
    base=st.integers(1, 3),
    residual=st.integers(0, 1),
    first=st.integers(1, 5),
)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(small)
def test_every_row_agrees_with_the_definition_for_any_shape(shape: Shape) -> None:
    tensors = doubles(dilated_conv, shape)
    for row in CPU_ROWS:
        close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@settings(derandomize=True, max_examples=25, deadline=None)
@given(small)
def test_the_receptive_field_is_what_a_change_reaches(shape: Shape) -> None:
    """With positive weights and inputs ReLU is open, so that nothing that is seen has no effect."""
    shape = replace(shape, T=receptive_field(shape) + 3)
    tensors = {name: tensor.abs() + 0.1 for name, tensor in doubles(dilated_conv, shape).items()}
    (before,) = IMPLEMENTATIONS["reference"].run(shape, **tensors)
    tensors["x"][:, 0] += 1
    (after,) = IMPLEMENTATIONS["reference"].run(shape, **tensors)
    reached = (before != after).any(dim=2)[0].nonzero().flatten().tolist()
    assert reached[0] == 0
    assert reached[-1] == receptive_field(shape) - 1


def test_the_receptive_field_counted_by_hand() -> None:
    """Three taps and dilations 1, 2, 4: two steps further back per unit of dilation, and the present one."""
    assert receptive_field(Shape(1, 9, 1, 3, 3)) == 1 + 2 * (1 + 2 + 4)
    assert receptive_field(Shape(1, 9, 1, 3, 1, first=64)) == 129
    assert receptive_field(Shape(1, 9, 1, 1, 5)) == 1


@rows
def test_the_stack_moves_with_its_input(row: str) -> None:
    """Away from the beginning, an input three steps later gives outputs three steps later."""
    tensors = doubles(dilated_conv, STACK)
    later = tensors | {"x": torch.roll(tensors["x"], 3, dims=1)}
    (y,), (moved,) = (IMPLEMENTATIONS[row].run(STACK, **given) for given in (tensors, later))
    inside = STACK.reach + 3
    assert inside < STACK.T
    close((moved[:, inside:],), (y[:, inside - 3 : -3],))


@rows
@pytest.mark.parametrize("shape", [STACK, PLAIN], ids=str)
def test_later_inputs_change_no_earlier_output(row: str, shape: Shape) -> None:
    tensors = doubles(dilated_conv, shape)
    (before,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    tensors["x"][:, 11:] += 1
    (after,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert torch.equal(before[:, :11], after[:, :11])
    assert (before[:, 11] != after[:, 11]).any()


@rows
def test_with_taps_beyond_the_sequence_only_the_last_is_left(row: str) -> None:
    tensors = doubles(dilated_conv, FAR)
    one = tensors | {"weight": tensors["weight"][:, -1:]}
    close(IMPLEMENTATIONS[row].run(FAR, **tensors), IMPLEMENTATIONS[row].run(replace(FAR, W=1), **one))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_no_sequences_give_no_outputs(row: str) -> None:
    shape = replace(STACK, B=0)
    assert {work(shape, "fp32", half).flops for half in ("forward", "backward", "both")} == {0}
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    (y,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert y.shape == (0, 23, 5)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), list(tensors.values())))


def test_parts_for_spot_checks_are_those_of_the_whole() -> None:
    parts_are_those_of_the_whole(dilated_conv, Shape(3, 700, 4, 3, 4))
    parts_are_those_of_the_whole(dilated_conv, Shape(2, 300, 4, 2, 1, first=400))


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"T": 0}, "T must be at least 1, not 0"),
        ({"base": 0}, "base must be at least 1, not 0"),
        ({"first": 0}, "first must be at least 1, not 0"),
        ({"residual": 2}, "residual must be 0 or 1, not 2"),
        ({"L": 40}, "at most 2\\^31 are possible"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "C": 8, "W": 3, "L": 2} | sizes))


@rows
@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_tensors_of_another_size_are_refused(row: str, name: str) -> None:
    tensors = inputs(STACK, "fp32", "cpu", 0)
    tensors[name] = tensors[name][..., 1:]
    with pytest.raises(ValueError, match=f"{name} has the size .* was expected for Shape"):
        IMPLEMENTATIONS[row].run(STACK, **tensors)


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str:
    shape = Shape(**({"B": 1, "T": 64, "C": 8, "W": 3, "L": 2} | sizes))
    return IMPLEMENTATIONS[row].supports(shape, dtype, device) or ""


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch", "compile"):
        assert "TF32" in _refusal(row, "tf32", "cpu"), row
        assert "1 GFLOP/s" in _refusal(row, "fp16", "cpu", T=8192, C=128), row
    assert "float64" in _refusal("triton", "fp64", "cuda")
    assert "at most 128 channels, not 129" in _refusal("triton_fused", "bf16", "cuda", C=129)
    assert "258 steps before it" in _refusal("triton_fused", "bf16", "cuda", L=1, first=129)
    assert not _refusal("triton_fused", "bf16", "cuda", L=1, first=128)


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 5 channels, 2 taps, 2 layers: 60 values, each from 10 inputs; 2 (2 25 + 5) parameters."""
    shape = Shape(2, 3, 5, 2, 2)
    forward, backward, both = (work(shape, "bf16", direction) for direction in ("forward", "backward", "both"))
    assert forward.matmul_flops == 2 * 60 * 10
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert (forward.pointwise_flops, forward.special_ops) == (3 * 60, 0)
    assert backward.pointwise_flops == 2 * 60 + (60 - 2 * 5)
    assert forward.parameters == 110
    assert forward.read_bytes == 2 * (30 + 110)
    assert forward.write_bytes == 2 * 30
    # The input of the second layer, and a byte for every value that passes ReLU.
    assert forward.saved_bytes == 2 * 30 + 60
    assert backward.read_bytes == 2 * (30 + 100 + 30) + forward.saved_bytes
    assert backward.write_bytes == 2 * (30 + 110)
    assert forward.streamed_bytes == 2 * (2 * 60 + 110)
    assert backward.streamed_bytes == 2 * (3 * 60 + 100 + 110) + 60
    assert both.streamed_bytes == forward.streamed_bytes + backward.streamed_bytes + 60
    assert (forward.depth, backward.depth, both.depth) == (2, 2, 4)
    assert (forward.weight_bytes, forward.recurrent_bytes, forward.tokens) == (220, 0, 6)


def test_without_the_residual_form_outputs_stand_for_the_flags() -> None:
    shape = Shape(2, 3, 5, 2, 2, residual=0)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.pointwise_flops == 2 * 60
    assert forward.saved_bytes == 2 * 30
    assert backward.read_bytes == 2 * (30 + 100 + 30 + 30 + 30)  # x, weights, dy, the state between, y


def test_multiply_adds_counted_in_the_definition() -> None:
    """The definition skips padding, which the cost counts: without it there are as many as the cost says."""
    shape = Shape(2, 5, 3, 1, 2)
    products = sum(2 * shape.B * shape.C * shape.C for _ in range(shape.L) for _ in range(shape.T))
    assert work(shape, "fp32", "forward").matmul_flops == products
