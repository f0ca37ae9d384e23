"""Costs of the encoder-decoder: hand counts, the graph of its steps, and what autograd and the tensors say."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels._encoder_decoder_cost import PARTS
from seqroof.kernels.encoder_decoder import IMPLEMENTATIONS, ODD, Shape, inputs, reference, work

SHAPES = [
    Shape(3, 5, 4, 6, 7),
    Shape(2, 3, 5, 4, 5, L=4),
    Shape(3, 5, 4, 6, 7, score=1),
    Shape(2, 4, 3, 5, 6, L=1, score=1),
    Shape(2, 1, 2, 3, 4, L=3, score=1),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
DIRECTIONS = ("forward", "backward", "both")


def test_luong_counted_by_hand() -> None:
    """B=2, T=3, S=2, I=H=1, L=2: 6 source and 4 target tokens, 12 pairs; 26 units are computed."""
    cost = work(Shape(2, 3, 2, 1, 1), "fp32", "forward")
    stacks = 6 * 2 * 16 + 6 * 24 + 4 * 2 * 16
    assert cost.matmul_flops == stacks + 2 * 24 + 16
    assert cost.pointwise_flops == 26 * 8 + 3 * 12 + 4
    assert cost.special_ops == 26 * 5 + 12 + 4
    # Weights and biases of 24, 16 and 24, and 2 of the output.
    assert (cost.parameters, cost.read_bytes, cost.write_bytes) == (66, 4 * (66 + 6 + 4), 4 * 4)
    # Four gates and c of every unit, the outputs of all layers, contexts, and a logarithm per query.
    assert cost.saved_bytes == 4 * (26 * 5 + 26 + 4 + 4)
    assert (cost.tokens, cost.depth) == (10, 9)
    # 4 gates x 1 unit: recurrent weights of every layer alike; the decoder's, with 1 input and a bias, are the least.
    assert (cost.recurrent_bytes, cost.weight_bytes, cost.state_bytes) == (4 * 4, 4 * 12, 4 * 2 * 2)
    assert cost.exchange_bytes == 4 * 26 // 9


def test_bahdanau_counted_by_hand() -> None:
    """B=2, T=3, S=2, I=H=1, L=1, so E=2: 12 units of the encoder, 4 of the decoder, 12 pairs."""
    cost = work(Shape(2, 3, 2, 1, 1, L=1, score=1), "fp32", "forward")
    # Keys, queries, scores and averages beside the two stacks.
    assert cost.matmul_flops == 6 * 2 * 16 + 4 * 32 + 24 + 8 + 24 + 48
    assert cost.pointwise_flops == 16 * 8 + 12 + 36 + 8
    assert cost.special_ops == 16 * 5 + 12 + 12
    assert (cost.parameters, cost.read_bytes, cost.write_bytes) == (48, 4 * (48 + 6 + 4), 4 * 4)
    # Encoder: 3 x 24 weights, 2 x 6 inputs, 12 states twice. Decoder: 2 x 20 weights, 4 x 3 inputs, 4 states twice.
    # Attention: 2 + 12 + 6 for the keys, 2 x 2 weights, 2 x 18 keys and outputs, 4 states and 4 contexts of 2.
    encoder, decoder, attended = 72 + 12 + 48, 40 + 12 + 16, 20 + 4 + 36 + 12
    assert cost.streamed_bytes == 4 * (encoder + decoder + attended)
    # Encoder: 16 input weights and biases once, its inputs, 48 gates twice, 3 x 8 recurrent weights, states.
    # Decoder: the target's 4 weights and biases are read once less, and 16 gates are written and read.
    assert cost.hoisted_bytes == 4 * (16 + 6 + 96 + 24 + 48 + decoder - 8 + 32 + attended)
    # Encoder gates, c and outputs; decoder gates and c; keys, queries, weights and contexts.
    assert cost.saved_bytes == 4 * (12 * 6 + 4 * 5 + 6 + 4 + 12 + 8)
    assert (cost.tokens, cost.depth) == (10, 7)


def longest_chain(shape: Shape) -> int:
    """The longest path through the graph of all steps, each with what it waits for."""
    T, S, L = shape.T, shape.S, shape.L

    @cache
    def encoded(layer: int, t: int) -> int:
        """Steps up to and with step t of an encoder layer; layer 0 is the reverse direction of layer 1."""
        if not 0 <= t < T:
            return 0
        if layer < 2:
            return 1 + encoded(layer, t + 1 if layer == 0 else t - 1)
        below = max(encoded(0, t), encoded(1, t)) if layer == 2 else encoded(layer - 1, t)
        return 1 + max(encoded(layer, t - 1), below)

    outputs = [encoded(layer, t) for t in range(T) for layer in ((0, 1) if L == 1 else (L,))]

    @cache
    def decoded(layer: int, s: int) -> int:
        if s < 0:
            return encoded(layer, T - 1)
        below = decoded(layer - 1, s) if layer > 1 else attended(s) if shape.score else 0
        return 1 + max(decoded(layer, s - 1), below)

    @cache
    def attended(s: int) -> int:
        return 1 + max(*outputs, decoded(L, s - 1 if shape.score else s))

    return max(decoded(L, S - 1), attended(S - 1))


@pytest.mark.parametrize("shape", [*SHAPES, *ODD, Shape(1, 1, 1, 1, 1), Shape(1, 2, 9, 1, 1, L=5)], ids=str)
def test_the_depth_is_the_longest_chain_of_steps(shape: Shape) -> None:
    assert work(shape, "fp32", "forward").depth == work(shape, "fp32", "backward").depth == longest_chain(shape)
    assert work(shape, "fp32", "both").depth == 2 * longest_chain(shape)


@shapes
def test_rows_that_follow_layer_by_layer_wait_longer(shape: Shape) -> None:
    layers = 2 * shape.T + (shape.L - 1) * shape.T + shape.L * shape.S + (shape.S if shape.score else 1)
    for row in ("reference", "torch"):
        for direction, passes in (("forward", 1), ("both", 2)):
            assert IMPLEMENTATIONS[row].depth(shape, "fp32", "cpu", direction) == passes * layers


@shapes
def test_backward_products_are_those_of_autograd(shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(shape, "fp32", "cpu", 0).items()}
    (y,) = reference(shape, **tensors)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(y, list(tensors.values()), torch.ones_like(y))
    # Autograd needs no gradient of the zeros that the encoder begins with, and keeps Luong's weights.
    starts = (shape.L + 1) * 2 * shape.B * 4 * shape.H**2
    again = 0 if shape.score else 2 * shape.B * shape.S * shape.T * shape.H
    assert work(shape, "fp32", "backward").matmul_flops == counter.get_total_flops() + starts + again


@shapes
def test_training_reads_inputs_and_writes_their_gradients(shape: Shape) -> None:
    given = sum(tensor.nbytes for tensor in inputs(shape, "bf16", "cpu", 0).values())
    result = 2 * shape.S * shape.B * shape.H
    forward, backward, both = (work(shape, "bf16", direction) for direction in DIRECTIONS)
    assert (backward.write_bytes, both.read_bytes, both.write_bytes) == (given, given + result, given + result)
    biases = 2 * 4 * shape.H * (2 + shape.L - 1 + shape.L)
    # The gradients need no biases; they read y for tanh' or the decoder's weights, dy, and what was kept.
    assert backward.read_bytes == given - biases + 2 * result + forward.saved_bytes
    for cost in (forward, backward, both):
        assert cost.compulsory_bytes <= min(cost.streamed_bytes, cost.hoisted_bytes)


def test_terms_name_their_part() -> None:
    for shape in SHAPES:
        for term in work(shape, "bf16", "both").terms:
            assert term.label.split(":")[0] in {*PARTS.values(), "all parts"}
