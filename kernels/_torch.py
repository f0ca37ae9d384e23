"""Small helpers around torch that several kernel files share: dtypes, random tensors, sizes in bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from types import FunctionType
from typing import Any, TypeVar, cast

import torch

# `tf32` is float32 data with the TF32 switches on; every other row runs with them off.
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}

ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp64": 8}


Backward = TypeVar("Backward", bound=Callable[..., Any])


def once_differentiable(backward: Backward) -> Backward:
    """Torch's mark of a backward pass that cannot be differentiated again, keeping the type of what it marks."""
    return cast(Backward, torch.autograd.function.once_differentiable(backward))


def generator(device: str, seed: int) -> torch.Generator:
    """Make a seeded random generator on a device."""
    return torch.Generator(device=device).manual_seed(seed)


def normal(size: tuple[int, ...], dtype: str, device: str, source: torch.Generator, scale: float = 1.0) -> torch.Tensor:
    """Draw a normal tensor in float32 and round it to `dtype`: every side of a comparison sees the rounded values."""
    drawn = torch.randn(size, generator=source, device=device, dtype=torch.float32)
    return (drawn * scale).to(DTYPES[dtype])


def spread_lengths(longest: int, rows: int, turn: int = 1) -> tuple[int, ...]:
    """Lengths of the rows of a ragged batch: evenly from `longest` down to longest/rows, in a fixed unsorted order.

    Another odd or even `turn` gives another order.
    """
    # Knuth's multiplicative hash: it scatters neighbours and never changes.
    order = sorted(range(rows), key=lambda row: (row * turn + 1) * 2654435761 % 2**32)
    return tuple(max(1, longest * (rows - row) // rows) for row in order)


def dtype_of(tensor: torch.Tensor) -> str:
    """Name the dtype of a tensor as rows do; float32 is tf32 where the switch is on."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
    return names.get(tensor.dtype) or ("tf32" if tf32_allowed() else "fp32")


def tf32_allowed() -> bool:
    """Whether float32 products may use TF32 tensor cores (the worker switches this on for tf32 rows only)."""
    switches: Any = torch.backends
    # The old switch raises where the new one has been used; "none" leaves it to the switch above.
    precision = getattr(switches.cuda.matmul, "fp32_precision", None)
    if precision is None:
        return switches.cuda.matmul.allow_tf32
    return (switches.fp32_precision if precision == "none" else precision) == "tf32"


def check_tensors(shape: Any, tensors: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that do not fit the sizes of a shape, by name, or each other; raises ValueError."""
    for name, size in sizes.items():
        if tensors.get(name) is None:
            raise ValueError(f"{name} is missing; {shape} needs it with the size {size}.")
        if tuple(tensors[name].shape) != size:
            raise ValueError(f"{name} has the size {tuple(tensors[name].shape)}; {size} was expected for {shape}.")
    unexpected = [name for name, tensor in tensors.items() if tensor is not None and name not in sizes]
    if unexpected:
        raise ValueError(f"{', '.join(unexpected)} was given, but {shape} has no use for it; leave it out.")
    lead = next(iter(sizes))
    check_agreement({name: tensors[name] for name in sizes if name != "lengths"}, lead)
    if "lengths" in sizes:
        check_place("lengths", tensors["lengths"], lead, tensors[lead])


def check_agreement(tensors: Mapping[str, torch.Tensor], lead: str) -> None:
    """Refuse tensors of another dtype or on another device than the one named `lead`; raises ValueError."""
    first = tensors[lead]
    for name, tensor in tensors.items():
        if (tensor.dtype, tensor.device) != (first.dtype, first.device):
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device} and {lead} is {first.dtype} on {first.device}; "
                "convert one, so that all tensors agree."
            )


def check_place(name: str, tensor: torch.Tensor, lead: str, first: torch.Tensor) -> None:
    """Refuse a tensor, of whatever dtype, on another device than `first`, named `lead`; raises ValueError."""
    if tensor.device != first.device:
        raise ValueError(f"{name} is on {tensor.device} and {lead} on {first.device}; move it there.")


def not_current(tensor: torch.Tensor) -> str | None:
    """Refuse a tensor on another GPU than the current one, on which Triton launches."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return None
    here = torch.cuda.current_device()
    return f"the tensors are on {tensor.device} and cuda:{here} is the current device; call torch.cuda.set_device"


def tf32_on_cpu(dtype: str, device: str) -> str | None:
    """Refuse tf32 on a CPU with a reason."""
    if dtype == "tf32" and device == "cpu":
        return "TF32 is a mode of GPU tensor cores; a CPU has none"
    return None


def adds_bias_apart(bias: torch.Tensor) -> bool:
    """Whether a convolution's bias is better added by an operation of its own.

    On a CPU, oneDNN sums the gradient of a bias value by value; in float32 that is off by several times the error of
    PyTorch's own sum.
    """
    return bias.device.type == "cpu" and bias.requires_grad and torch.is_grad_enabled()


# A CPU without float16 arithmetic converts at every step; so many operations then take about a second.
SLOW_FLOPS = 10**9


def why_slow(flops: float, dtype: str, device: str) -> str | None:
    """Refuse float16 products on a CPU that take longer than a second, and tf32 there."""
    if device == "cpu" and dtype == "fp16" and flops > SLOW_FLOPS:
        return "float16 products on a CPU run at about 1 GFLOP/s; these would take longer than a second"
    return tf32_on_cpu(dtype, device)


@cache
def _compiled(function: Callable[..., Any], shape: Any, dtype: torch.dtype, device: torch.device) -> Callable[..., Any]:
    # A code object of its own for every case: torch.compile silently runs a ninth variant of one code object eagerly.
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return torch.compile(copy, dynamic=False)


def run_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the `run` of a `compile` row: torch.compile of `function`, compiled at the first call of each shape."""

    def run(shape: Any, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = next(iter(inputs.values()))
        return _compiled(function, shape, first.dtype, first.device)(shape, **inputs)

    return run


def why_no_compiler(shape: Any, dtype: str, device: str) -> str | None:
    """Say why torch.compile cannot run here, or None when it can."""
    refused = tf32_on_cpu(dtype, device)
    if refused:
        return refused
    if device == "cpu" and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        return "torch.compile needs a C++ compiler on a CPU (none of g++, c++, clang++ was found)"
    return None
