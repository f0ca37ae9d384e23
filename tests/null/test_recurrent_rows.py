"""The rows of lstm, gru and rnn that PyTorch and its libraries compute, what they declare, and why they refuse."""

import math
from typing import Any

import pytest
import torch
from recurrences import Operators, cells, close, doubles

from seqroof.kernels import gru, lstm, rnn
from seqroof.kernels._recurrent import Cell, Shape
from seqroof.kernels._recurrent_rows import cudnn_algorithm

KERNELS = [lstm, gru, rnn]
VENDORS = ("torch", "torch.padded", "torch.onednn")
kernels = pytest.mark.parametrize("kernel", KERNELS, ids=["lstm", "gru", "rnn"])


def cases(rows: tuple[str, ...], dtypes: tuple[str, ...]) -> list[Any]:
    """Kernel, row, odd shape and dtype, without those that the row refuses."""
    return [
        pytest.param(kernel, row, shape, dtype, id=f"{kernel.__name__.split('.')[-1]} {row} {dtype} {shape}")
        for kernel in KERNELS
        for row in rows
        for shape in kernel.ODD
        for dtype in dtypes
        if row in kernel.IMPLEMENTATIONS and not kernel.IMPLEMENTATIONS[row].supports(shape, dtype, "cpu")
    ]


@pytest.mark.parametrize(("kernel", "row", "shape", "dtype"), cases(("reference", *VENDORS), ("fp32", "bf16")))
def test_rows_agree_with_float64(kernel: Any, row: str, shape: Any, dtype: str) -> None:
    tensors = kernel.inputs(shape, dtype, "cpu", seed=1)
    exact = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    with torch.no_grad():
        outputs = kernel.IMPLEMENTATIONS[row].run(shape, **tensors)
    for got, want in zip(outputs, kernel.reference(shape, **exact), strict=True):
        assert got.dtype == tensors["x"].dtype and got.shape == want.shape
        # An error of the state comes back through W_hh at every step, and relu has no bound: some tens of roundings.
        tolerance = 32 * torch.finfo(got.dtype).eps
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kernel", "row", "shape", "dtype"), cases(("torch", "torch.padded"), ("fp64",)))
def test_gradients_agree_with_the_reference(kernel: Any, row: str, shape: Any, dtype: str) -> None:
    tensors = {
        name: tensor.double().requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in kernel.inputs(shape, "fp32", "cpu", 2).items()
    }
    leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
    outputs = kernel.IMPLEMENTATIONS[row].run(shape, **tensors)
    gradients = [torch.randn_like(output) for output in outputs]
    got = torch.autograd.grad(outputs, leaves, gradients)
    close(got, torch.autograd.grad(kernel.reference(shape, **tensors), leaves, gradients))


@kernels
def test_the_odd_shapes_reach_every_row(kernel: Any) -> None:
    refused = [shape for shape in kernel.ODD if kernel.IMPLEMENTATIONS["torch"].supports(shape, "fp32", "cpu")]
    assert len(kernel.ODD) == 12 and refused == [shape for shape in kernel.ODD if shape.dilation > shape.T]
    assert cases(("torch.onednn" if kernel is lstm else "torch.padded",), ("fp32",))
    assert ("torch.onednn" in kernel.IMPLEMENTATIONS) == (kernel is lstm)
    for name, extremes in {"B": (1, 65), "T": (1, 130), "H": (17, 257), "L": (1, 3), "D": (1, 2)}.items():
        values = [getattr(shape, name) for shape in kernel.ODD]
        assert (min(values), max(values)) == extremes


@kernels
def test_states_may_be_left_out(kernel: Any) -> None:
    shape = kernel.Shape(3, 5, 4, 6, ragged=1)
    tensors = kernel.inputs(shape, "fp32", "cpu", 0)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in ("h_0", "c_0")}
    for row in VENDORS:
        implementation = kernel.IMPLEMENTATIONS.get(row)
        if implementation and not implementation.supports(shape, "fp32", "cpu"):
            for got, want in zip(implementation.run(shape, **tensors), kernel.reference(shape, **tensors)):
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@cells
def test_nan_and_infinities_propagate_alike_in_every_row(kernel: Any, cell: Cell) -> None:
    shape = kernel.Shape(4, 6, 5, 8, ragged=1)
    for value in (math.nan, math.inf):
        tensors = doubles(cell, shape)
        tensors["x"][1, 2, 3] = value
        want = kernel.reference(shape, **tensors)
        for row in ("torch", "torch.padded"):
            if kernel.IMPLEMENTATIONS[row].supports(shape, "fp64", "cpu") is None:
                got = kernel.IMPLEMENTATIONS[row].run(shape, **tensors)
                for mine, other in zip(got, want, strict=True):
                    torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11, equal_nan=True)


@kernels
def test_the_reference_starts_as_many_operators_as_declared(kernel: Any) -> None:
    found = []
    for T in (3, 8):
        shape = kernel.Shape(2, T, 3, 4, L=2, D=2)
        with Operators() as operators:
            kernel.reference(shape, **kernel.inputs(shape, "fp32", "cpu", 0))
        found.append(operators.count - kernel.IMPLEMENTATIONS["reference"].launches_for(shape, "fp32", "cuda"))
    assert found[0] == found[1]  # what is left is done once per layer


@kernels
def test_what_rows_declare_of_themselves(kernel: Any) -> None:
    stack = kernel.Shape(16, 40, 256, 256, L=2, D=2, dilation=4)
    rows = kernel.IMPLEMENTATIONS
    reference, torch_row = rows["reference"], rows["torch"]
    assert reference.depth(stack, "fp32", "cpu", "forward") == 40
    assert reference.depth(stack, "fp32", "cpu", "both") == 80
    assert (reference.weights_for(stack, "fp32", "cpu"), reference.chain_for(stack, "fp32", "cpu")) == (
        "reread",
        "launch",
    )
    assert not reference.hoists_for(stack, "fp32", "cpu") and torch_row.hoists_for(stack, "fp32", "cpu")
    assert torch_row.depth(stack, "fp32", "cpu", "forward") == 40
    assert torch_row.depth(stack, "fp32", "cuda", "forward") is None
    assert torch_row.algorithm(stack, "fp32", "cpu", "forward") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the rules are then those of the GPU here")
def test_cudnn_keeps_weights_only_where_it_is_persistent() -> None:
    row = lstm.IMPLEMENTATIONS["torch"]
    for dtype, weights in (("fp16", "kept"), ("bf16", "reread")):
        assert row.weights_for(Shape(16, 8, 512, 512), dtype, "cuda") == weights
        assert row.weights_for(Shape(16, 8, 512, 512), dtype, "cpu") == "reread"
        assert row.chain_for(Shape(16, 8, 512, 512), dtype, "cuda") == "inside"


@pytest.mark.parametrize(
    ("kernel", "row", "shape", "dtype", "device", "word"),
    [
        (lstm, "torch", Shape(2, 3, 4, 5), "tf32", "cpu", "TF32"),
        (lstm, "torch", Shape(64, 64, 512, 512), "fp16", "cpu", "1 GFLOP/s"),
        (gru, "reference", Shape(64, 64, 512, 512), "fp16", "cpu", "1 GFLOP/s"),
        (gru, "torch", Shape(2, 2, 4, 5, dilation=3), "fp32", "cpu", "has phases without any"),
        (lstm, "torch.onednn", Shape(2, 3, 4, 5), "fp32", "cuda", "CPUs"),
        (lstm, "torch.onednn", Shape(2, 3, 4, 5), "bf16", "cpu", "in fp32 only"),
        (lstm, "torch.onednn", Shape(2, 3, 4, 5, ragged=1), "fp32", "cpu", "packed"),
        (lstm, "torch.padded", Shape(2, 3, 4, 5, ragged=1), "fp32", "cpu", "the state c"),
        (gru, "torch.padded", Shape(2, 3, 4, 5), "fp32", "cpu", "same length"),
        (gru, "torch.padded", Shape(2, 3, 4, 5, D=2, ragged=1), "fp32", "cpu", "reverse direction"),
        (rnn, "torch.padded", rnn.Shape(2, 3, 4, 5, L=2, ragged=1), "fp32", "cpu", "last layer only"),
        (rnn, "compile", rnn.Shape(2, 65, 4, 5), "fp32", "cpu", "for each of 65 steps"),
        (rnn, "compile", rnn.Shape(2, 17, 4, 5, L=2, D=2), "fp32", "cpu", "for each of 68 steps"),
    ],
)
def test_refusals_give_their_reason(kernel: Any, row: str, shape: Any, dtype: str, device: str, word: str) -> None:
    assert word in (kernel.IMPLEMENTATIONS[row].supports(shape, dtype, device) or "")


STATIC, SMALL, STANDARD = "persistent static", "persistent static, small H", "standard"


@pytest.mark.parametrize(
    ("cell", "shape", "dtype", "direction", "algorithm"),
    [
        ("lstm", Shape(16, 64, 512, 512), "fp16", "forward", STATIC),
        ("lstm", Shape(16, 64, 512, 512), "bf16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 512), "fp32", "forward", STANDARD),
        ("lstm", Shape(12, 64, 512, 512), "fp16", "forward", STANDARD),
        ("lstm", Shape(128, 64, 512, 512), "fp16", "backward", STATIC),
        ("lstm", Shape(136, 64, 512, 512), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 1024), "fp16", "forward", STATIC),
        ("lstm", Shape(16, 64, 512, 1152), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 500), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 500, 512), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 512, L=2), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 512, D=2), "fp16", "forward", STANDARD),
        ("lstm", Shape(16, 64, 512, 512, ragged=1), "fp16", "forward", STANDARD),
        ("lstm", Shape(2, 64, 512, 512, dilation=4), "fp16", "forward", STATIC),
        ("lstm", Shape(2, 65, 512, 512, dilation=4), "fp16", "forward", STANDARD),
        ("gru", Shape(16, 64, 512, 512), "fp16", "forward", STANDARD),
        ("rnn_relu", Shape(88, 64, 512, 1024), "fp16", "forward", STATIC),
        ("rnn_relu", Shape(96, 64, 512, 1024), "fp16", "forward", STANDARD),
        ("rnn_relu", Shape(96, 64, 512, 768), "fp16", "forward", STATIC),
        ("rnn_tanh", Shape(128, 64, 512, 896), "fp16", "forward", STANDARD),
        # The small variant takes every dtype but float64, any stack and any batch, but no packed sequences.
        ("lstm", Shape(3, 7, 5, 192, L=3, D=2), "bf16", "forward", SMALL),
        ("lstm", Shape(3, 7, 5, 193), "bf16", "forward", STANDARD),
        ("gru", Shape(3, 7, 5, 128), "fp32", "backward", SMALL),
        ("gru", Shape(3, 7, 5, 129), "fp32", "backward", STANDARD),
        ("rnn_tanh", Shape(3, 7, 5, 384), "fp32", "forward", SMALL),
        ("rnn_tanh", Shape(3, 7, 5, 385), "fp32", "forward", STANDARD),
        ("rnn_relu", Shape(3, 7, 5, 256), "fp32", "backward", SMALL),
        ("rnn_relu", Shape(3, 7, 5, 257), "fp32", "backward", STANDARD),
        ("lstm", Shape(3, 7, 5, 64), "fp64", "forward", STANDARD),
        ("lstm", Shape(3, 7, 5, 64, ragged=1), "fp32", "forward", STANDARD),
        ("lstm", Shape(3, 7, 5, 64), "fp32", "both", SMALL),
        ("lstm", Shape(3, 7, 5, 160), "fp32", "both", f"{SMALL} forward, {STANDARD} backward"),
    ],
)
def test_cudnn_algorithm(cell: str, shape: Shape, dtype: str, direction: str, algorithm: str) -> None:
    assert cudnn_algorithm(cell, shape, dtype, direction) == algorithm


def test_cudnn_is_not_persistent_on_small_gpus_and_those_of_graphics() -> None:
    shape = Shape(16, 64, 512, 512)
    assert cudnn_algorithm("lstm", shape, "fp16", "forward", sms=98, capability=(8, 0)) == STATIC
    assert cudnn_algorithm("lstm", shape, "fp16", "forward", sms=97, capability=(8, 0)) == STANDARD
    assert cudnn_algorithm("lstm", shape, "fp16", "forward", sms=132, capability=(8, 6)) == STANDARD
