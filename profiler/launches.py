"""Finds out what a call would launch, without a GPU and without data.

The launcher runs as it is, on tensors of PyTorch's device "meta": they have sizes and no values. Told that they lie on
the GPU in question, it chooses tiles, kernels and grids as it would there; the kernels are noted instead of started.
Operators of PyTorch beside them compute nothing either.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..roofline.contract import CompileCase
from ..roofline.occupancy import BLOCK_REGISTER_LIMIT, WARP_THREADS, Target

_META = torch.device("meta")
_DEVICES = ("cpu", "cuda", "meta")  # what a device may be called in front of its number
# What inputs are made with. Without values both are memory of the same size; PyTorch's own way for the device "meta"
# imports its compiler, which takes longer than all the rest.
_DRAWS = (torch.randn, torch.rand)
_SCALES = (torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)


@dataclass(frozen=True)
class Launch:
    """A Triton function as it would be started.

    case : the configuration, as the offline compiler takes it. grid : programs along the three axes. count : how often
    it is started so.
    """

    case: CompileCase
    grid: tuple[int, int, int]
    count: int

    @property
    def programs(self) -> int:
        """Programs of one start."""
        return self.grid[0] * self.grid[1] * self.grid[2]


class Unplanned(Exception):
    """A call that does not get through without data or without a GPU. The text is a sentence."""


@contextlib.contextmanager
def pretended(target: Target, multiprocessors: int) -> Iterator[torch.device]:
    """Let PyTorch tell of a GPU of this kind; gives its device, whose number is that of its compute capability.

    A number of its own for every target, so that what a kernel file remembers of one is not taken for another.
    """
    device = torch.device("cuda", target.capability)
    properties = SimpleNamespace(
        name=target.name,
        major=target.capability // 10,
        minor=target.capability % 10,
        multi_processor_count=multiprocessors,
        shared_memory_per_block_optin=target.block_shared_bytes,
        shared_memory_per_multiprocessor=target.shared_bytes,
        max_threads_per_multi_processor=target.threads,
        regs_per_multiprocessor=BLOCK_REGISTER_LIMIT,
        warp_size=WARP_THREADS,
    )
    answers = {
        "is_available": lambda: True,
        "current_device": lambda: device.index,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "get_device_name": lambda device=None: properties.name,
        "device": lambda device: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.callback(setattr, torch.cuda, name, getattr(torch.cuda, name))
            setattr(torch.cuda, name, answer)
        yield device


class _Valueless(TorchFunctionMode):
    """Makes all tensors on the device "meta", and lets them say that they lie on another one."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]  # a new object each time it is named
            return self.device
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.device:  # a name, on which nothing is made
            return func(*args, **(kwargs or {}))
        moved = {name: _META if _is_device(value) else value for name, value in (kwargs or {}).items()}
        moved.pop("generator", None)  # it belongs to another device, and nothing is drawn
        if func in _DRAWS:
            return torch.empty(*args, **moved)
        if func in _SCALES and isinstance(args[1], float) and args[0].is_floating_point():
            return torch.empty_strided(args[0].shape, args[0].stride(), dtype=args[0].dtype)
        return func(*(_META if _is_device(value) else value for value in args), **moved)


@contextlib.contextmanager
def _without_values(device: torch.device) -> Iterator[None]:
    """Make all tensors valueless and on `device`, in backward passes too: PyTorch runs those outside of its modes."""
    node = torch.autograd.function.BackwardCFunction
    original = node.apply

    def apply(self: Any, *gradients: Any) -> Any:
        with torch.device(_META), _Valueless(device):
            return original(self, *gradients)

    node.apply = apply
    try:
        with torch.device(_META), _Valueless(device):
            yield
    finally:
        node.apply = original


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in _DEVICES)


def would_launch(module: Any, run: Callable[..., Any], shape: Any, dtype: str, direction: str, target: Target,
                 device: torch.device) -> list[Launch]:  # fmt: skip
    """What `run` would launch for a shape, on a device given by `pretended`; equal launches are counted together.

    module : the kernel file, for its `inputs`. Raises `Unplanned` with a sentence for a launcher that looks at values,
    or that needs of the GPU what is not told here; `RuntimeError` without Triton, or where it interprets its kernels.
    """
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError("Inspecting needs triton, which installs on Linux with `pip install triton`.")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 is set: interpreted kernels do not compile; unset it and start again.")
    found: list[Launch] = []
    try:
        with _noted(found, target), _tf32(dtype == "tf32"), _without_values(device):
            _call(run, shape, module.inputs(shape, dtype, "cpu", 0), direction, found)
    except Unplanned:
        raise
    except Exception as error:  # a launcher may raise anything, in any of its libraries
        raise Unplanned(
            f"What is launched cannot be told without a GPU: the launcher ends with {type(error).__name__}: {error}"
        ) from error
    return found


def _call(run: Callable[..., Any], shape: Any, inputs: dict[str, Any], direction: str, found: list[Launch]) -> None:
    if direction == "forward":
        with torch.no_grad():
            run(shape, **inputs)
        return
    leaves = {
        name: value.detach().requires_grad_() if value.is_floating_point() else value
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    with torch.enable_grad():
        outputs = [output for output in run(shape, **{**inputs, **leaves}) if output.requires_grad]
        if direction == "backward":
            found.clear()
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextlib.contextmanager
def _noted(found: list[Launch], target: Target) -> Iterator[None]:
    """Note what is launched inside instead of launching it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    backend = make_backend(GPUTarget("cuda", target.capability, WARP_THREADS))
    binders: dict[int, Any] = {}

    def run(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        if id(self) not in binders:
            binders[id(self)] = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, _ = binders[id(self)](*arguments, **options)
        _, signature, constexprs, attributes = self._pack_args(backend, options, bound, specialization, None)
        chosen = {name: value for name, value in options.items() if name not in self.arg_names}
        case = _case(self, signature, constexprs, attributes, chosen)
        sizes: Any = grid(bound) if callable(grid) else grid
        first, second, third, *_ = (*sizes, 1, 1)
        _note(found, case, (first, second, third))

    original = JITFunction.run
    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = original


def _case(function: Any, signature: Any, constexprs: Any, attributes: Any, options: dict[str, Any]) -> CompileCase:
    """A launch as the offline compiler takes it."""
    if any(len(path) != 1 for path in (*constexprs, *attributes)):
        raise Unplanned(f"{function.fn.__name__} takes tuples as arguments, which the offline compiler does not.")
    names = function.arg_names
    return CompileCase(
        label="",
        kernel=function,
        signature=dict(signature),
        constexprs={names[path[0]]: value for path, value in constexprs.items()},
        divisible=tuple(names[path[0]] for path, value in attributes.items() if value),
        options=options,
    )


def _note(found: list[Launch], case: CompileCase, grid: tuple[int, int, int]) -> None:
    for number, launch in enumerate(found):
        if launch.grid == grid and same_configuration(launch.case, case):
            found[number] = replace(launch, count=launch.count + 1)
            return
    found.append(Launch(case, grid, 1))


def same_configuration(one: CompileCase, other: CompileCase) -> bool:
    """Whether two cases give the same program: function, types, compile-time values, alignment and options."""
    return one.kernel is other.kernel and _identity(one) == _identity(other)


def _identity(case: CompileCase) -> Any:
    return dict(case.signature), dict(case.constexprs), set(case.divisible), dict(case.options)


def labelled(case: CompileCase, known: list[CompileCase]) -> CompileCase:
    """The case of a list that gives the same program, else the case with its function and tile for a label."""
    for other in known:
        if same_configuration(case, other):
            return other
    values = [f"{name}={value}" for name, value in case.constexprs.items() if type(value) in (int, str)]
    return replace(case, label=" ".join([case.kernel.fn.__name__, *values]))
