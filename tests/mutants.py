"""Wrong results made of right ones, for every kernel, from what its contract says: what the checker has to reject."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqroof.kernels import _catalog

# A tile of the output as a kernel writes it.
TILE = 16
# Terms between two roundings of an accumulator of half precision: one, as when products are added one by one.
CHUNK = 1
# Inputs whose rows are gates: how many there are, and the size of one. Where GATES is 1 nothing can be swapped.
GATES = {"lstm": (4, "H"), "gru": (3, "H"), "lstm_step": (4, "H"), "encoder_decoder": (4, "H")}
GATES |= {"gated_conv": (2, "O"), "gated_conv_block": (2, "C")}
# Where the cheapest listed shape is dear.
SMALL = {"encoder_decoder": {"B": 3, "T": 3, "S": 4, "I": 19, "H": 21}}
# Shapes at which a product sums 512 terms or more, for every kernel that has a product.
LONG_SUMS = {
    "attention": {"B": 1, "N": 1, "S": 20, "K": 520, "P": 16, "causal": 0},
    "attention_decode": {"B": 2, "N": 4, "K": 700, "P": 16, "G": 2},
    "dilated_conv": {"B": 1, "T": 40, "C": 180, "W": 3, "L": 2},
    "encoder_decoder": {"B": 3, "T": 2, "S": 2, "I": 520, "H": 64, "L": 1, "score": 1},
    "gated_conv": {"B": 2, "T": 40, "C": 180, "O": 32, "W": 3},
    "gated_conv_block": {"B": 2, "T": 40, "C": 260, "W": 2},
    "gru": {"B": 3, "T": 2, "I": 512, "H": 512},
    "hierarchical_attention": {"B": 2, "T": 12, "P": 512, "F": 5},
    "lstm": {"B": 3, "T": 2, "I": 512, "H": 512},
    "lstm_step": {"B": 5, "I": 33, "H": 600},
    "memory_attention": {"B": 2, "T": 2, "M": 600, "P": 20},
    "rnn": {"B": 3, "T": 2, "I": 512, "H": 512},
    "separable_conv": {"B": 2, "T": 40, "C": 512, "W": 3, "O": 64},
    "transformer_block": {"B": 1, "T": 20, "M": 512, "N": 4, "causal": 0},
    "transposed_conv": {"B": 2, "T": 30, "C": 512, "O": 24, "W": 2},
}


def shape_of(kernel: Any) -> Any:
    """The cheapest listed shape that has several rows, several steps and a tile of outputs."""
    if kernel.name in SMALL:
        return kernel.shape(**SMALL[kernel.name])
    listed = dict.fromkeys(kernel.suite("odd") + kernel.suite("quick"))
    lengths = ("T", "S", "K", "M")

    def large_enough(shape: Any) -> bool:
        sizes = dataclasses.asdict(shape)
        steps = [sizes[name] for name in lengths if name in sizes]
        return min([*steps, 3]) >= 3 and sizes["B"] >= 2

    def cost(shape: Any) -> float:
        return kernel.module.work(shape, "fp32", "forward").compulsory_bytes

    return min(filter(large_enough, listed), key=cost)


def of_output(result: torch.Tensor, inputs: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Wrong versions of one output, whatever kernel made it."""
    yield "zeros", torch.zeros_like(result)
    yield "constant", torch.full_like(result, result.float().mean().item())
    given = next(value for value in inputs.values() if value.is_floating_point()).flatten()
    times = -(-result.numel() // given.numel())
    yield "the input", given.repeat(times)[: result.numel()].view_as(result)
    order = torch.randperm(result.numel(), generator=torch.Generator().manual_seed(1))
    yield "shuffled", result.flatten()[order].view_as(result)
    for dim in range(result.dim()):
        yield f"one off along {dim}", result.roll(1, dims=dim)
        missing = result.clone()
        missing.narrow(dim, max(0, result.shape[dim] - TILE), min(TILE, result.shape[dim])).zero_()
        yield f"last tile missing along {dim}", missing
        lost = result.clone()
        lost.narrow(dim, result.shape[dim] - 1, 1).fill_(float("nan"))
        yield f"last of {dim} never written", lost


def of_mathematics(kernel: Any, shape: Any, inputs: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The same kernel with a mistake: its name, the shape and the inputs that make the reference commit it."""
    sizes = dataclasses.asdict(shape)
    if sizes.get("causal"):
        yield "mask dropped", dataclasses.replace(shape, causal=0), inputs
    for name in [name for name in inputs if "lengths" in name]:
        longest = torch.full_like(inputs[name], int(inputs[name].max()))
        yield f"{name} dropped", shape, inputs | {name: longest}
    if kernel.name in GATES:
        count, unit = GATES[kernel.name]
        yield "gate order swapped", shape, {name: _swapped(value, count, sizes[unit]) for name, value in inputs.items()}


def _swapped(value: torch.Tensor, count: int, unit: int) -> torch.Tensor:
    """A weight whose first two gates have changed places, where it has gates."""
    for dim in (-1, -2):
        if value.dim() >= -dim and value.shape[dim] == count * unit and value.is_floating_point():
            first, second, *rest = value.chunk(count, dim)
            return torch.cat([second, first, *rest], dim)
    return value


class HalfAccumulate(TorchDispatchMode):
    """Sums every matrix product and convolution with an accumulator that rounds to a 16-bit dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.longest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace products; everything else runs as it is."""
        aten = torch.ops.aten
        if func in (aten.mm.default, aten.bmm.default):
            return self._sum(args[0], args[1], None)
        if func in (aten.addmm.default, aten.baddbmm.default):
            return self._sum(args[1], args[2], args[0])
        if func is aten.convolution.default and args[8] == 1:
            return self._convolution(func, *args)
        return func(*args, **(kwargs or {}))

    def _sum(self, a: torch.Tensor, b: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        total = torch.zeros(1, dtype=self.dtype) if start is None else start.to(self.dtype)
        self.longest = max(self.longest, a.shape[-1])
        for k in range(0, a.shape[-1], CHUNK):
            part = a[..., k : k + CHUNK].float() @ b[..., k : k + CHUNK, :].float()
            total = (total.float() + part).to(self.dtype)
        return total.to(a.dtype)

    def _convolution(self, func: Any, x: Any, weight: Any, bias: Any, *options: Any) -> torch.Tensor:
        transposed = options[3]
        channels = x.shape[1]
        self.longest = max(self.longest, channels * (1 if transposed else weight.shape[2:].numel()))
        total = torch.zeros(1, dtype=self.dtype)
        for c in range(0, channels, CHUNK):
            taken = weight[c : c + CHUNK] if transposed else weight[:, c : c + CHUNK]
            part = func(x[:, c : c + CHUNK].float(), taken.float(), None, *options)
            total = (total.float() + part).to(self.dtype)
        if bias is not None:
            total = total + bias.to(self.dtype).view(1, -1, *[1] * (x.dim() - 2))
        return total.to(x.dtype)


def kernels() -> list[Any]:
    """Every kernel of the catalogue."""
    return [_catalog.load(name) for name in _catalog.kernel_names()]
