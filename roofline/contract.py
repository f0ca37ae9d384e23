"""The small records by which a kernel file describes its implementations.

A kernel file is a module with the names `Shape`, `SHAPES`, `inputs`, `reference`, `work`, `IMPLEMENTATIONS` and,
where it has Triton kernels, `COMPILE`. Optional are `ODD` (small shapes around tile edges), `ODD_LONG` (all of them,
for `verify --long`), `padding_waste(shape)` (the padded share of a ragged batch), `receptive_field(shape)` (steps that
an output sees, its own included) and `SENSITIVE` (True where roundings are amplified or make jumps). This module holds
the classes that `IMPLEMENTATIONS` and `COMPILE` are made of; it imports no torch, so that the profiler can look at them
as plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .work import Work

Weights = Literal["reread", "kept"]
Chain = Literal["launch", "graph", "barrier", "inside"]
Expectation = Literal["tensor", "warp group", "wide", "wide loops"]


def whole_number(name: str, value: Any) -> int:
    """A size or an option of a `Shape` as it was given; raises `ValueError` with a sentence where it is not whole."""
    try:
        if int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):  # nothing, a text, or infinity
        pass
    advice = "make it a constant of the file, or number its choices"
    raise ValueError(f"Shape.{name} is {value!r}; sizes and options are whole numbers: {advice}")


def _always(shape: Any, dtype: str, device: str) -> str | None:
    """Support every case: the default of `Implementation.supports`."""
    return None


def _work_depth(shape: Any, dtype: str, device: str, direction: str) -> int | None:
    """Wait as often as the mathematics does: the default of `Implementation.depth`."""
    return None


def _unknown_algorithm(shape: Any, dtype: str, device: str, direction: str) -> str | None:
    """Name no algorithm: the default of `Implementation.algorithm`."""
    return None


def _no_parts(shape: Any, inputs: dict[str, Any]) -> list[PartCall]:
    """Have no phases: the default of `Implementation.parts`."""
    return []


@dataclass(frozen=True)
class PartCall:
    """A phase of a kernel that can be run alone.

    name : what it is, such as "input product" or "recurrence".
    run : does the phase on tensors prepared beforehand, as often as it is called; its result is not looked at.
    work : the cost of the phase alone; a depth of 1 makes it a plain product.
    """

    name: str
    run: Callable[[], object]
    work: Work


@dataclass(frozen=True)
class Implementation:
    """One way to compute a kernel.

    run : callable, `run(shape, **inputs) -> tuple[Tensor, ...]`, the same outputs as `reference`.
    weights : where the weights of a dependent step come from: `reread` from memory at every step, or `kept` on chip.
    chain : how one dependent step waits for the one before: a `launch`, a `graph` node, a grid `barrier`, or `inside`
        one running program.
    launches : kernels started per call of the forward pass, as far as known.
    supports : `supports(shape, dtype, device) -> None | str`; a string is the reason for a refusal and is shown.
        `device` is "cpu" or "cuda".
    grad : the outputs can be differentiated with `torch.autograd.grad`.
    hoists : the input product is done once for all steps, so that no step re-reads the input weights.
    depth : `depth(shape, dtype, device, direction) -> int | None`, dependent steps of this implementation where they
        are more than the mathematics needs, such as those of a stack run layer by layer; None for `Work.depth`.
    algorithm : `algorithm(shape, dtype, device, direction) -> str | None`, what a vendor library is known to choose.
    parts : `parts(shape, inputs) -> list[PartCall]`, the phases of the forward pass, prepared from the inputs.

    `weights`, `chain`, `launches` and `hoists` may be functions of `(shape, dtype, device)`.
    """

    run: Callable[..., tuple]
    weights: Weights | Callable[[Any, str, str], Weights] = "reread"
    chain: Chain | Callable[[Any, str, str], Chain] = "launch"
    launches: int | Callable[[Any, str, str], int] = 1
    supports: Callable[[Any, str, str], str | None] = _always
    grad: bool = False
    hoists: bool | Callable[[Any, str, str], bool] = False
    depth: Callable[[Any, str, str, str], int | None] = _work_depth
    algorithm: Callable[[Any, str, str, str], str | None] = _unknown_algorithm
    parts: Callable[[Any, dict[str, Any]], list[PartCall]] = _no_parts

    def __post_init__(self) -> None:
        """Refuse what would fail later and less clearly; raises `ValueError` with a sentence."""
        for name, value, allowed in (("weights", self.weights, Weights), ("chain", self.chain, Chain)):
            if not callable(value) and value not in get_args(allowed):
                raise ValueError(f"{name} is one of {', '.join(get_args(allowed))}, or a function; not {value!r}")
        if not callable(self.run):
            raise ValueError("run must be a function run(shape, **inputs) that returns a tuple of tensors")

    def weights_for(self, shape: Any, dtype: str, device: str) -> Weights:
        """Where the weights live in this case."""
        return self.weights(shape, dtype, device) if callable(self.weights) else self.weights

    def chain_for(self, shape: Any, dtype: str, device: str) -> Chain:
        """How steps wait for each other in this case."""
        return self.chain(shape, dtype, device) if callable(self.chain) else self.chain

    def launches_for(self, shape: Any, dtype: str, device: str) -> int:
        """Kernels started per call of the forward pass in this case."""
        return self.launches(shape, dtype, device) if callable(self.launches) else self.launches

    def hoists_for(self, shape: Any, dtype: str, device: str) -> bool:
        """Whether the input product is done once for all steps in this case."""
        return self.hoists(shape, dtype, device) if callable(self.hoists) else self.hoists


@dataclass(frozen=True)
class CompileCase:
    """One configuration of a Triton kernel that is really launched, as the offline compiler needs it.

    label : what the test and the report call it, such as "bf16 aligned".
    kernel : the `@triton.jit` function.
    signature : argument name -> Triton type ("*bf16", "i32", "constexpr").
    constexprs : argument name -> compile-time value.
    divisible : names of arguments known to be multiples of 16 (pointers: 16-byte aligned).
    options : backend options, such as `num_warps`; names are checked against the backend's own.
    targets : compute capabilities to compile for, such as (80, 90, 100).
    expects : what the program must have: "tensor" (tensor-core instructions); "warp group" (on sm_90 no other products
        than those of warp groups); "wide" (at least one 128-bit load or bulk copy); "wide loops" (at least 60 %
        of what its loops load, by such loads).
    representative : compiled for every target in the ordinary test run; the others for sm_90 only, all with --long. Of
        every dtype a kernel file has one, or shares the function of one in another file.
    rare : compiled with --long only, unless representative: a variant of a configuration that is compiled anyway.
    """

    label: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any] = field(default_factory=dict)
    divisible: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    targets: tuple[int, ...] = (80, 90, 100)
    expects: tuple[str, ...] = ()
    representative: bool = False
    rare: bool = False

    def __post_init__(self) -> None:
        """Refuse an expectation that nobody would look for; raises `ValueError` with a sentence."""
        unknown = [name for name in self.expects if name not in get_args(Expectation)]
        if unknown:
            known = ", ".join(get_args(Expectation))
            raise ValueError(f"{self.label}: expects names {', '.join(unknown)}; known are {known}.")
