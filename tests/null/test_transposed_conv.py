"""A transposed convolution is nn.ConvTranspose1d, and the adjoint of the strided convolution."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from convolutions import close, derivatives_are_those_of_differences, doubles, parts_are_those_of_the_whole
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from seqroof.kernels import transposed_conv
from seqroof.kernels.transposed_conv import IMPLEMENTATIONS, Shape, inputs, phases_of, work

CPU_ROWS = ["reference", "torch"]
WIDE = Shape(2, 9, 5, 4, 6, stride=3, padding=2, output_padding=1)
GAPS = Shape(1, 5, 3, 2, 2, stride=5, padding=1)
FAR = Shape(2, 7, 3, 4, 3, stride=4, dilation=6, padding=3, output_padding=5)
PLAIN = Shape(2, 11, 4, 3, 4, padding=1)
SHAPES = [WIDE, GAPS, FAR, PLAIN, Shape(1, 1, 1, 1, 1)]
rows = pytest.mark.parametrize("row", CPU_ROWS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def _by_hand(shape: Shape, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every output step asks every input step and tap whether they meet."""
    y = bias.expand(shape.B, shape.outputs, shape.O).clone()
    for step in range(shape.outputs):
        for t in range(shape.T):
            for w in range(shape.W):
                if step + shape.padding == t * shape.stride + w * shape.dilation:
                    y[:, step] += x[:, t] @ weight[w]
    return y


@rows
@shapes
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = doubles(transposed_conv, shape)
    close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@rows
@shapes
def test_values_and_gradients_are_those_of_the_module(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(transposed_conv, shape).items()}
    how = (shape.stride, shape.padding, shape.output_padding, 1, True, shape.dilation)
    module = nn.ConvTranspose1d(shape.C, shape.O, shape.W, *how, dtype=torch.float64)
    module.weight.data = tensors["weight"].detach().permute(1, 2, 0).contiguous()
    module.bias.data = tensors["bias"].detach().clone()
    (got,), want = IMPLEMENTATIONS[row].run(shape, **tensors), module(tensors["x"].transpose(1, 2)).transpose(1, 2)
    gradient = torch.randn_like(want)
    dx, dweight, dbias = torch.autograd.grad(got, tensors.values(), gradient)
    theirs = torch.autograd.grad(want, [tensors["x"], module.weight, module.bias], gradient)
    close((got, dx, dweight, dbias), (want, theirs[0], theirs[1].permute(2, 0, 1), theirs[2]))


@rows
def test_gradients_are_those_of_finite_differences(row: str) -> None:
    run = IMPLEMENTATIONS[row].run
    derivatives_are_those_of_differences(lambda **t: run(GAPS, **t), doubles(transposed_conv, GAPS))


@st.composite
def small(draw: Any) -> Shape:
    number = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    stride, dilation = number(1, 6), number(1, 6)
    sizes = {"B": 1, "T": number(1, 6), "C": number(1, 3), "O": number(1, 3), "W": number(1, 5)}
    rest = {"padding": number(0, 6), "output_padding": number(0, max(stride, dilation) - 1)}
    try:
        return Shape(**sizes, stride=stride, dilation=dilation, **rest)
    except ValueError:
        assume(False)
        raise


@settings(derandomize=True, max_examples=40, deadline=None)
@given(small())
def test_every_row_agrees_with_the_definition_for_any_shape(shape: Shape) -> None:
    tensors = doubles(transposed_conv, shape)
    for row in CPU_ROWS:
        close(IMPLEMENTATIONS[row].run(shape, **tensors), (_by_hand(shape, **tensors),))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(small())
def test_it_is_the_adjoint_of_the_strided_convolution(shape: Shape) -> None:
    """<convolution of z, x> = <z, transposed convolution of x>."""
    assume(shape.outputs > shape.output_padding)
    shape = replace(shape, output_padding=0)
    tensors = doubles(transposed_conv, shape) | {"bias": torch.zeros(shape.O, dtype=torch.float64)}
    z = torch.randn(1, shape.outputs, shape.O, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kernel = tensors["weight"].permute(1, 2, 0)
    there = F.conv1d(z.transpose(1, 2), kernel, None, shape.stride, shape.padding, shape.dilation).transpose(1, 2)
    (back,) = IMPLEMENTATIONS["reference"].run(shape, **tensors)
    close(((there * tensors["x"]).sum(),), ((z * back).sum(),))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(small())
def test_phases_gather_every_product_once(shape: Shape) -> None:
    """The walk of the Triton kernel, followed in integers, meets the pairs of the definition and no others."""
    walk, phases = phases_of(shape)
    common = math.gcd(shape.stride, shape.dilation)
    found = []
    for turn in range(phases.stride):
        tap = turn % phases.cycle
        phase = tap * shape.dilation % shape.stride + turn // phases.cycle
        for row in range(walk.rows):
            step = (row + shape.padding // shape.stride) * shape.stride + phase - shape.padding
            if not 0 <= step < shape.outputs:
                continue
            found.append((step, None, None))
            taps = range(tap, shape.W, phases.cycle) if turn < phases.cycle else ()
            for k, w in enumerate(taps):
                first = row + shape.padding // shape.stride + (phase - tap * shape.dilation) // shape.stride
                t = first - k * (shape.dilation // common)
                if 0 <= t < shape.T:
                    found.append((step, t, w))
    wanted = {
        (step, t, w)
        for step in range(shape.outputs)
        for t in range(shape.T)
        for w in range(shape.W)
        if step + shape.padding == t * shape.stride + w * shape.dilation
    } | {(step, None, None) for step in range(shape.outputs)}
    assert len(found) == len(set(found))
    assert set(found) == wanted


@rows
def test_an_input_step_later_is_a_stride_later(row: str) -> None:
    """Away from both ends the output moves by `stride` steps for every step that the input moves."""
    shape = replace(WIDE, T=20)
    tensors = doubles(transposed_conv, shape)
    later = tensors | {"x": torch.roll(tensors["x"], 2, dims=1)}
    (y,), (moved,) = (IMPLEMENTATIONS[row].run(shape, **given) for given in (tensors, later))
    reach, shift = shape.dilation * (shape.W - 1), 2 * shape.stride
    inside = slice(reach + shift, shape.outputs - reach)
    close((moved[:, inside],), (y[:, inside.start - shift : inside.stop - shift],))


@rows
def test_steps_that_no_tap_reaches_hold_the_bias(row: str) -> None:
    tensors = doubles(transposed_conv, GAPS)
    (y,) = IMPLEMENTATIONS[row].run(GAPS, **tensors)
    free = [t for t in range(GAPS.outputs) if (t + GAPS.padding) % GAPS.stride >= GAPS.W]
    assert len(free) > 5
    assert torch.equal(y[:, free], tensors["bias"].expand(1, len(free), -1))


@rows
def test_no_sequences_give_no_outputs(row: str) -> None:
    shape = replace(WIDE, B=0)
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    (y,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    assert y.shape == (0, shape.outputs, 4)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), list(tensors.values())))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(3, 400, 4, 3, 4, stride=2, padding=1),
        Shape(2, 150, 3, 4, 2, stride=5, padding=1, output_padding=4),
        Shape(2, 200, 3, 4, 3, stride=3, dilation=150, output_padding=149),
        Shape(1, 700, 3, 4, 5, padding=2),
    ],
    ids=str,
)
def test_parts_for_spot_checks_are_those_of_the_whole(shape: Shape) -> None:
    parts_are_those_of_the_whole(transposed_conv, shape)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"stride": 0}, "stride must be at least 1, not 0"),
        ({"padding": -1}, "padding must be at least 0, not -1"),
        ({"output_padding": 2}, "output_padding=2 must be smaller than the stride or the dilation"),
        ({"padding": 9}, "padding=9 takes away all of the output, whose length would be 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "C": 8, "O": 8, "W": 4, "stride": 2} | sizes))


@rows
@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_tensors_of_another_size_are_refused(row: str, name: str) -> None:
    tensors = inputs(WIDE, "fp32", "cpu", 0)
    tensors[name] = tensors[name][..., 1:]
    with pytest.raises(ValueError, match=f"{name} has the size .* was expected for Shape"):
        IMPLEMENTATIONS[row].run(WIDE, **tensors)


def test_rows_that_cannot_run_say_why() -> None:
    large = Shape(8, 4096, 128, 128, 4)
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (IMPLEMENTATIONS[row].supports(WIDE, "tf32", "cpu") or ""), row
        assert "1 GFLOP/s" in (IMPLEMENTATIONS[row].supports(large, "fp16", "cpu") or ""), row
    assert "float64" in (IMPLEMENTATIONS["triton"].supports(WIDE, "fp64", "cuda") or "")


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 5 channels in, 4 out, 3 taps, stride 2: 7 output steps, of which padding takes one."""
    shape = Shape(2, 3, 5, 4, 3, stride=2, padding=1, output_padding=1)
    assert shape.outputs == 6
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 2 * 2 * 3 * 5 * 4 * 3
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert forward.pointwise_flops == 2 * 6 * 4
    assert backward.pointwise_flops == (2 * 6 - 1) * 4
    assert forward.read_bytes == 2 * (30 + 60 + 4)
    assert forward.write_bytes == 2 * 48
    assert backward.read_bytes == 2 * (30 + 60 + 48)
    assert backward.write_bytes == 2 * (30 + 60 + 4)
    assert (forward.parameters, forward.weight_bytes, forward.saved_bytes) == (64, 128, 0)
    assert (forward.tokens, forward.depth) == (12, 1)


def test_multiply_adds_counted_in_the_definition() -> None:
    """The definition skips what padding cuts off, which the cost counts: without it there are as many."""
    shape = Shape(2, 5, 3, 4, 3, stride=2)
    reached = {t * shape.stride + w * shape.dilation for t in range(shape.T) for w in range(shape.W)}
    assert max(reached) == shape.outputs - 1
    meetings = shape.T * shape.W
    assert work(shape, "fp32", "forward").matmul_flops == 2 * shape.B * meetings * shape.C * shape.O
