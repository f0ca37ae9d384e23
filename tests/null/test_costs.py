"""The cost of every kernel agrees with its reference, its tensors, hand counts and PyTorch's own operation counter."""

import dataclasses
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import _catalog

DIRECTIONS = ("forward", "backward", "both")


def _shapes() -> list[Any]:
    """Every shape of the quick suite and the odd ones of every kernel; causal attention also without its mask."""
    found = []
    for name in _catalog.kernel_names():
        kernel = _catalog.load(name)
        for shape in (*kernel.suite("quick"), *getattr(kernel.module, "ODD", ())):
            found.append(pytest.param(kernel, shape, id=f"{name} {shape}"))
    return found


def _work(name: str, dtype: str = "bf16", direction: str = "forward", **sizes: int) -> Any:
    kernel = _catalog.load(name)
    return kernel.module.work(kernel.shape(**sizes), dtype, direction)


def _as_computed(shape: Any) -> Any:
    """The shape with what the reference computes and the mathematics does not need: masked pairs, and padded steps."""
    changes = {name: 0 for name in ("causal", "ragged") if hasattr(shape, name)}
    if hasattr(shape, "folded_steps"):
        changes["T"] = shape.folded_steps * shape.dilation
    return dataclasses.replace(shape, **changes)


def _unread_bytes(shape: Any, tensors: dict[str, Any]) -> int:
    """Bytes of the inputs that lie after the end of their row: steps of x (T, B, I), or of q, k and v (B, N, S, P)."""
    if "lengths" in tensors and "x" in tensors:
        return tensors["x"][0, 0].nbytes * int((shape.T - tensors["lengths"]).sum())
    keys, padding = tensors.get("key_lengths", tensors.get("lengths")), {}
    if keys is not None:
        padding |= dict.fromkeys(("k", "v"), int((shape.K - keys).sum()))
    if "query_lengths" in tensors:
        padding["q"] = int((shape.S - tensors["query_lengths"]).sum())
    return sum(tensors[name][0, :, 0].nbytes * rows for name, rows in padding.items())


@pytest.mark.parametrize(("kernel", "shape"), _shapes())
def test_matmul_flops_agree_with_the_flop_counter(kernel: _catalog.Kernel, shape: Any) -> None:
    tensors = kernel.module.inputs(shape, "fp32", "cpu", seed=0)
    counter = FlopCounterMode(display=False)
    with counter:
        kernel.reference(shape, **{name: tensor.to("meta") for name, tensor in tensors.items()})
    assert kernel.module.work(_as_computed(shape), "fp32", "forward").matmul_flops == counter.get_total_flops()


@pytest.mark.parametrize(("kernel", "shape"), _shapes())
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_compulsory_bytes_are_those_of_the_tensors(kernel: _catalog.Kernel, shape: Any, dtype: str) -> None:
    tensors = kernel.module.inputs(shape, dtype, "cpu", seed=0)
    outputs = kernel.reference(shape, **{name: tensor.to("meta") for name, tensor in tensors.items()})
    work = kernel.module.work(shape, dtype, "forward")
    assert work.read_bytes == sum(tensor.nbytes for tensor in tensors.values()) - _unread_bytes(shape, tensors)
    assert work.write_bytes == sum(tensor.nbytes for tensor in outputs)


@pytest.mark.parametrize(("kernel", "shape"), _shapes())
def test_a_training_step_is_forward_and_backward(kernel: _catalog.Kernel, shape: Any) -> None:
    forward, backward, both = (kernel.module.work(shape, "bf16", direction) for direction in DIRECTIONS)
    for quantity in ("matmul_flops", "pointwise_flops", "special_ops"):
        assert getattr(both, quantity) == getattr(forward, quantity) + getattr(backward, quantity), quantity
    assert 2 * forward.matmul_flops <= backward.matmul_flops <= 2.5 * forward.matmul_flops
    assert forward.compulsory_bytes < both.compulsory_bytes <= both.streamed_bytes


@pytest.mark.parametrize(("kernel", "shape"), _shapes())
def test_every_term_says_why(kernel: _catalog.Kernel, shape: Any) -> None:
    for direction in DIRECTIONS:
        for term in kernel.module.work(shape, "bf16", direction).terms:
            assert term.label and term.reason, term


@pytest.mark.parametrize("name", _catalog.kernel_names())
def test_an_unknown_direction_is_refused(name: str) -> None:
    kernel = _catalog.load(name)
    with pytest.raises(ValueError, match="sideways"):
        kernel.module.work(kernel.suite("quick")[0], "bf16", "sideways")


# Exact integers, worked out by hand from the definitions (16-bit elements).
WORKED = [
    ("lstm_step", {"B": 1, "I": 1024, "H": 1024}, 16777216, 16795648),
    (
        "attention",
        {"B": 2, "N": 16, "G": 16, "S": 2048, "K": 2048, "P": 64, "causal": 1},
        17188257792,
        33554432,
    ),
]


@pytest.mark.parametrize(("name", "sizes", "matmul_flops", "compulsory_bytes"), WORKED)
def test_worked_values(name: str, sizes: dict[str, int], matmul_flops: int, compulsory_bytes: int) -> None:
    work = _work(name, **sizes)
    assert (work.matmul_flops, work.compulsory_bytes) == (matmul_flops, compulsory_bytes)
    assert work.streamed_bytes == compulsory_bytes
    assert work.depth == 1


def test_lstm_step_counted_by_hand() -> None:
    """B=2, I=3, H=1: 4 gates of 4 products for each of 2 sequences, 4 x 5 parameters with the bias."""
    work = _work("lstm_step", dtype="fp32", B=2, I=3, H=1)
    assert work.matmul_flops == 2 * (2 * 4 * 4)
    assert work.pointwise_flops == 2 * (4 + 3 + 1)
    assert work.special_ops == 2 * 5
    assert work.parameters == 20
    assert work.weight_bytes == 80
    assert work.state_bytes == 4 * (2 + 2)
    assert work.read_bytes == 4 * (20 + 6 + 2 + 2)
    assert work.write_bytes == 4 * (2 + 2)
    assert work.saved_bytes == 4 * 2 * 4
    assert work.tokens == 2


def test_lstm_step_backward_counted_by_hand() -> None:
    """The same sizes: 22 operations per unit and sequence, and one addition per gate to sum two sequences' biases."""
    work = _work("lstm_step", dtype="fp32", direction="backward", B=2, I=3, H=1)
    assert work.matmul_flops == 2 * 2 * (2 * 4 * 4)
    assert work.pointwise_flops == 22 * 2 + 4
    assert work.special_ops == 2
    # Weights 16, x 6, h c c' 2 each, gates 8, two incoming gradients of 2.
    assert work.read_bytes == 4 * (16 + 6 + 2 + 2 + 2 + 8 + 4)
    # Gradients of the 20 parameters, of x, h and c.
    assert work.write_bytes == 4 * (20 + 6 + 2 + 2)


def test_lstm_step_training_reads_weights_once_and_streams_them_twice() -> None:
    forward, backward, both = (_work("lstm_step", direction=direction, B=1, I=8, H=8) for direction in DIRECTIONS)
    assert both.read_bytes < forward.read_bytes + backward.read_bytes
    assert both.streamed_bytes == forward.compulsory_bytes + backward.compulsory_bytes + forward.saved_bytes
