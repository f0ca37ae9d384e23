"""Triton rows start as many kernels forward as they declare: their own, and those of the operators around them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqroof.kernels import _catalog, _triton

pytestmark = pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")

# Operators that start no kernel on a GPU: they look at memory in another way, or reserve it.
SILENT = {"alias", "as_strided", "detach", "empty", "empty_like", "expand", "new_empty", "permute", "select", "slice"}
SILENT |= {"split", "split_with_sizes", "squeeze", "t", "transpose", "unsqueeze", "view", "_unsafe_view", "unbind"}
# Filling and copying; all others here are one.
SEVERAL = {"constant_pad_nd": 2}


class Counted(TorchDispatchMode):
    """Counts what a GPU would be given: a kernel per operator; dense copies between equal types are the driver's."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in SILENT and not (name in ("copy_", "_to_copy", "clone") and _by_driver(args, result)):
            self.count += SEVERAL.get(name, 1)
        return result


def _by_driver(args: Any, result: torch.Tensor) -> bool:
    source = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
    return source.dtype == result.dtype and source.is_contiguous() and result.is_contiguous()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Counts the launches of a call whose Triton kernels do nothing."""
    own: list[Any] = []
    monkeypatch.setattr(_triton.triton.runtime.jit.JITFunction, "run", lambda self, *args, **kwargs: own.append(self))

    def count(kernel: Any, row: str, shape: Any, dtype: str) -> int:
        inputs = kernel.module.inputs(shape, dtype, "cpu", 0)
        own.clear()
        with torch.no_grad(), Counted() as around:
            kernel.implementations[row].run(shape, **inputs)
        return len(own) + around.count

    return count


# Recurrences declare their steps and products only, not how weights and states are turned and converted before them.
# The block normalises 16-bit inputs in another way on a CPU. Lengths are looked at on a CPU only.
LEFT_OUT = {"encoder_decoder", "gru", "lstm", "rnn", "gated_conv_block"}
CASES = [
    (name, row)
    for name in _catalog.kernel_names()
    for row in _catalog.load(name).implementations
    if row.startswith("triton") and name not in LEFT_OUT
]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "row"), CASES)
def test_as_many_kernels_start_as_are_declared(launched: Callable[..., int], name: str, row: str, dtype: str) -> None:
    kernel = _catalog.load(name)
    implementation = kernel.implementations[row]
    # Of one row of one step, as the first shape and a seventh have it, nothing is copied by being turned or cut; nor is
    # it of one head.
    shapes = [s for s in kernel.suite("odd")[1:6] if not getattr(s, "ragged", 0) and getattr(s, "N", 2) > 1]
    taken = [shape for shape in shapes if not implementation.supports(shape, dtype, "cuda")]
    assert taken
    declared = [implementation.launches_for(shape, dtype, "cuda") for shape in taken]
    assert [launched(kernel, row, shape, dtype) for shape in taken] == declared
