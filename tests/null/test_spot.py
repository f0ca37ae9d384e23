"""Spot checks: a part of a large problem, taken by `spot`, is the same mathematics, last rows included."""

import pytest
import torch

from seqroof.kernels import _catalog, attention, attention_decode, gated_conv, lstm_step, transformer_block
from seqroof.profiler.check import upcast

SHAPES = [
    ("lstm_step", lstm_step.Shape(40, 24, 16)),
    ("attention", attention.Shape(3, 2, 600, 16)),
    ("attention", attention.Shape(2, 4, 300, 16, K=700, G=2)),
    ("attention", attention.Shape(2, 2, 700, 16, K=90)),
    ("attention", attention.Shape(2, 2, 300, 16, K=33, causal=0)),
    ("attention_decode", attention_decode.Shape(3, 6, 50, 16, G=2, ragged=1)),
    ("gated_conv", gated_conv.Shape(3, 700, 6, 5, 4, dilation=9)),
    ("gated_conv", gated_conv.Shape(2, 300, 6, 6, 3, dilation=400, residual=1)),
    ("transformer_block", transformer_block.Shape(3, 20, 24, 4, G=2, F=10)),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_a_part_equals_the_same_part_of_the_whole(name, shape, seed):
    kernel = _catalog.load(name)
    inputs = upcast(kernel.module.inputs(shape, "fp32", "cpu", 0))
    whole = kernel.reference(shape, **inputs)
    for smaller, part, of_whole, of_part in kernel.module.spot(shape, inputs, seed):
        for expected, found in zip(of_whole(whole), of_part(kernel.reference(smaller, **part))):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_a_fault_in_the_last_row_of_the_last_sequence_is_inside_a_part(name, shape):
    kernel = _catalog.load(name)
    inputs = kernel.module.inputs(shape, "fp32", "cpu", 0)
    marked = [output.contiguous().clone() for output in kernel.reference(shape, **inputs)]
    for output in marked:
        output.view(-1)[-1] = float("nan")
    parts = [of_whole(marked) for _, _, of_whole, _ in kernel.module.spot(shape, inputs, 0)]
    assert any(output.isnan().any() for outputs in parts for output in outputs)
