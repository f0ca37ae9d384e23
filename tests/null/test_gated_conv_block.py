"""A gated convolution block is LayerNorm, Conv1d, GLU and Linear of PyTorch, and the sum of its parts."""

from dataclasses import replace

import pytest
import torch
from convolutions import close, derivatives_are_those_of_differences, doubles, parts_are_those_of_the_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqroof.kernels import gated_conv, gated_conv_block
from seqroof.kernels.gated_conv_block import IMPLEMENTATIONS, Shape, costs_of, inputs, work

CPU_ROWS = ["reference", "torch"]
BLOCK = Shape(2, 19, 6, 4)
DILATED = Shape(2, 19, 5, 3, dilation=4)
rows = pytest.mark.parametrize("row", CPU_ROWS)
shapes = pytest.mark.parametrize("shape", [BLOCK, DILATED, Shape(1, 3, 4, 5, dilation=3)], ids=str)


def _by_hand(shape: Shape, x: Tensor, **given: Tensor) -> Tensor:
    """One step at a time, straight from the definition."""
    y, normalised = x.clone(), torch.empty_like(x)
    for t in range(shape.T):
        step = x[:, t]
        mean = step.sum(-1, keepdim=True) / shape.C
        variance = ((step - mean) ** 2).sum(-1, keepdim=True) / shape.C
        normalised[:, t] = given["scale"] * (step - mean) / (variance + 1e-5) ** 0.5 + given["shift"]
        sums = given["bias"].expand(shape.B, -1).clone()
        for w in range(shape.W):
            seen = t - (shape.W - 1 - w) * shape.dilation
            if seen >= 0:
                sums += normalised[:, seen] @ given["weight"][w]
        gated = sums[:, : shape.C] / (1 + (-sums[:, shape.C :]).exp())
        y[:, t] += gated @ given["out_weight"] + given["out_bias"]
    return y


@rows
@shapes
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = doubles(gated_conv_block, shape)
    close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@rows
@shapes
def test_values_and_gradients_are_those_of_modules(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(gated_conv_block, shape).items()}
    double = {"dtype": torch.float64}
    norm = nn.LayerNorm(shape.C, **double)
    convolution = nn.Conv1d(shape.C, 2 * shape.C, shape.W, dilation=shape.dilation, **double)
    linear = nn.Linear(shape.C, shape.C, **double)
    loaded = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    norm.weight.data, norm.bias.data = loaded["scale"], loaded["shift"]
    convolution.weight.data, convolution.bias.data = loaded["weight"].permute(2, 1, 0).contiguous(), loaded["bias"]
    linear.weight.data, linear.bias.data = loaded["out_weight"].t().contiguous(), loaded["out_bias"]
    x = tensors["x"]
    padded = nn.functional.pad(norm(x).transpose(1, 2), (shape.inner.halo, 0))
    want = x + linear(nn.functional.glu(convolution(padded), dim=1).transpose(1, 2))
    (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    gradient = torch.randn_like(want)
    mine = torch.autograd.grad(got, list(tensors.values()), gradient)
    parameters = [norm.weight, norm.bias, convolution.weight, convolution.bias, linear.weight, linear.bias]
    theirs = list(torch.autograd.grad(want, [x, *parameters], gradient))
    theirs[3], theirs[5] = theirs[3].permute(2, 1, 0), theirs[5].t()
    close((got, *mine), (want, *theirs))


@rows
def test_gradients_are_those_of_finite_differences(row: str) -> None:
    shape = Shape(1, 4, 3, 2)
    run = IMPLEMENTATIONS[row].run
    derivatives_are_those_of_differences(lambda **t: run(shape, **t), doubles(gated_conv_block, shape))


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.builds(
        Shape,
        B=st.just(1),
        T=st.integers(1, 9),
        C=st.integers(1, 4),
        W=st.integers(1, 4),
        dilation=st.integers(1, 5),
    )
)
def test_every_row_agrees_with_the_definition_for_any_shape(shape: Shape) -> None:
    tensors = doubles(gated_conv_block, shape)
    for row in CPU_ROWS:
        close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@rows
def test_later_inputs_change_no_earlier_output(row: str) -> None:
    tensors = doubles(gated_conv_block, DILATED)
    (before,) = IMPLEMENTATIONS[row].run(DILATED, **tensors)
    # Not the same for all channels, which the normalisation would take away.
    tensors["x"][:, 11:, 0] += 1
    (after,) = IMPLEMENTATIONS[row].run(DILATED, **tensors)
    assert torch.equal(before[:, :11], after[:, :11])
    assert (before[:, 11:] != after[:, 11:]).any(dim=-1).all()


@rows
def test_a_block_whose_output_product_is_zero_is_the_identity(row: str) -> None:
    tensors = doubles(gated_conv_block, BLOCK)
    nothing = {name: torch.zeros_like(tensors[name]) for name in ("out_weight", "out_bias")}
    (y,) = IMPLEMENTATIONS[row].run(BLOCK, **tensors | nothing)
    assert torch.equal(y, tensors["x"])


@rows
def test_a_constant_added_to_all_channels_goes_around_the_block(row: str) -> None:
    """The normalisation takes it away, so that it is added to the output and changes nothing else."""
    tensors = doubles(gated_conv_block, BLOCK)
    (y,) = IMPLEMENTATIONS[row].run(BLOCK, **tensors)
    (moved,) = IMPLEMENTATIONS[row].run(BLOCK, **tensors | {"x": tensors["x"] + 2})
    close((moved,), (y + 2,))


@rows
def test_parts_make_up_the_whole(row: str) -> None:
    tensors = doubles(gated_conv_block, DILATED)
    parts = IMPLEMENTATIONS[row].parts(DILATED, tensors)
    assert [part.name for part in parts] == ["normalisation", "gated convolution", "output product"]
    results = [part.run() for part in parts]
    close(results[2:], IMPLEMENTATIONS[row].run(DILATED, **tensors))
    assert IMPLEMENTATIONS[row].parts(replace(DILATED, B=0), inputs(replace(DILATED, B=0), "fp32", "cpu", 0)) == []


@rows
def test_no_sequences_give_no_outputs(row: str) -> None:
    shape = replace(BLOCK, B=0)
    assert {work(shape, "fp32", half).flops for half in ("forward", "backward", "both")} == {0}
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    (y,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert y.shape == (0, 19, 6)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), list(tensors.values())))


def test_parts_for_spot_checks_are_those_of_the_whole() -> None:
    parts_are_those_of_the_whole(gated_conv_block, Shape(3, 700, 4, 3, dilation=9))


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [({"B": -1}, "B must be at least 0, not -1"), ({"C": 0}, "C must be at least 1, not 0")],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "C": 8, "W": 3} | sizes))


@rows
@pytest.mark.parametrize("name", list(inputs(BLOCK, "fp32", "cpu", 0)))
def test_tensors_of_another_size_and_none_are_refused(row: str, name: str) -> None:
    tensors = inputs(BLOCK, "fp32", "cpu", 0)
    with pytest.raises(ValueError, match=f"{name} has the size .* was expected for Shape"):
        IMPLEMENTATIONS[row].run(BLOCK, **tensors | {name: tensors[name][..., 1:]})
    tensors.pop(name)
    with pytest.raises(ValueError, match=f"{name} is missing"):
        IMPLEMENTATIONS[row].run(BLOCK, **tensors)


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (IMPLEMENTATIONS[row].supports(BLOCK, "tf32", "cpu") or ""), row
    assert "float64" in (IMPLEMENTATIONS["triton"].supports(BLOCK, "fp64", "cuda") or "")


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 5 channels, 2 taps: 30 values; scales 10, convolution 110, output product 30."""
    shape = Shape(2, 3, 5, 2)
    forward, backward, both = (work(shape, "bf16", direction) for direction in ("forward", "backward", "both"))
    assert forward.matmul_flops == 2 * 30 * (10 * 2 + 5)
    assert backward.matmul_flops == 2 * forward.matmul_flops
    # Normalisation 7 per value and 1 per step, convolution 3 per value, bias and residual.
    assert forward.pointwise_flops == (7 + 3 + 2) * 30 + 6
    assert forward.special_ops == 30 + 6
    assert forward.parameters == 10 + 110 + 30
    assert forward.read_bytes == 2 * (30 + 150)
    assert forward.write_bytes == 2 * 30
    # Two float32 per step; normalised and gated values, the value and the sigmoid of the gate.
    assert forward.saved_bytes == 8 * 6 + 2 * (2 * 30 + 2 * 30)
    # x, the scale, both weights, dy, and what is kept but the normalised and gated values, which follow from it.
    assert backward.read_bytes == 2 * (30 + 5 + 100 + 25 + 30) + forward.saved_bytes - 2 * 2 * 30
    assert backward.write_bytes == 2 * (30 + 150)
    assert both.read_bytes == forward.read_bytes + 2 * 30
    assert both.write_bytes == 2 * (30 + 30 + 150)
    # Between parts: the normalised and the gated values, written and read, and x read again.
    assert forward.streamed_bytes == forward.compulsory_bytes + 2 * (4 * 30 + 30)
    assert (forward.tokens, forward.depth) == (6, 1)


def test_the_whole_is_the_sum_of_its_parts() -> None:
    for direction in ("forward", "backward", "both"):
        whole, parts = work(DILATED, "bf16", direction), costs_of(DILATED, "bf16", direction)
        assert parts["gated convolution"] == gated_conv.work(DILATED.inner, "bf16", direction)
        for quantity in ("matmul_flops", "pointwise_flops", "special_ops", "streamed_bytes", "parameters"):
            total = sum(getattr(cost, quantity) for cost in parts.values())
            assert getattr(whole, quantity) == total, (direction, quantity)
        assert all(term.label.startswith(tuple(parts)) or "kept" in term.reason for term in whole.terms)
