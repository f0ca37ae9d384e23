"""Every Triton implementation gives right results in Triton's interpreter: odd sizes, three dtypes, NaN, strided input.

Run as a script, this file is the interpreted child process: it prints one JSON line per case. TRITON_INTERPRET must be
set before triton is imported, and the kernels of such a process cannot be compiled, hence the child.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from seqroof.kernels import _catalog, _triton
from seqroof.kernels._torch import DTYPES
from seqroof.profiler.check import upcast
from seqroof.roofline.contract import Implementation

# (kernel, implementation, shape, dtype, kind)
Case = tuple[_catalog.Kernel, str, Any, str, str]


# The interpreter needs about a second for this many.
INTERPRETED_FLOPS = 10**7


def _odd_shapes(kernel: _catalog.Kernel) -> list[Any]:
    """Small shapes of the quick suite with an odd size, which no tile divides, and the ODD ones of the kernel file."""
    quick = [shape for shape in kernel.suite("quick") if any(s > 1 and s % 2 for s in dataclasses.astuple(shape))]
    small = [shape for shape in quick if _flops(kernel, shape) <= INTERPRETED_FLOPS]
    return small + list(getattr(kernel.module, "ODD", ()))


def _flops(kernel: _catalog.Kernel, shape: Any) -> int:
    return kernel.module.work(shape, "fp32", "forward").matmul_flops


def _cases() -> Iterator[Case]:
    for name in _catalog.kernel_names():
        kernel = _catalog.load(name)
        rows = [row for row in kernel.implementations if row.startswith("triton")]
        shapes = _odd_shapes(kernel) if rows else []
        for row in rows:
            assert shapes, f"{name} needs a small odd shape in SHAPES['quick'] or ODD, for the interpreter"
            yield from ((kernel, row, shape, dtype, "values") for shape in shapes for dtype in ("fp32", "fp16", "bf16"))
            largest = max(shapes, key=lambda shape: _flops(kernel, shape))
            yield from ((kernel, row, largest, "fp32", kind) for kind in ("NaN", "strided"))


def _name(case: Case) -> str:
    kernel, row, shape, dtype, kind = case
    sizes = ",".join(f"{field.name}={getattr(shape, field.name)}" for field in dataclasses.fields(shape))
    return f"{kernel.name} {row} {sizes} {dtype} {kind}"


def _failures(case: Case) -> list[str]:
    """Say what is wrong with one case, in sentences."""
    kernel, row, shape, dtype, kind = case
    implementation = kernel.implementations[row]
    refused = implementation.supports(shape, dtype, "cpu")
    if refused:
        return [f"refused: {refused}"]
    tensors = kernel.module.inputs(shape, dtype, "cpu", seed=1)
    check = {"values": _wrong_values, "NaN": _lost_nan, "strided": _wrong_strides}[kind]
    return check(kernel, implementation, shape, tensors, dtype)


def _wrong_values(
    kernel: _catalog.Kernel, implementation: Implementation, shape: Any, tensors: dict[str, torch.Tensor], dtype: str
) -> list[str]:
    """At most twice the error that plain PyTorch makes in the same dtype, and four units in the last place."""
    exact = kernel.reference(shape, **upcast(tensors))
    plain = kernel.reference(shape, **tensors)
    actual = implementation.run(shape, **tensors)
    failures = []
    for index, (want, usual, got) in enumerate(zip(exact, plain, actual, strict=True)):
        if got.shape != want.shape or got.dtype != DTYPES[dtype]:
            failures.append(f"output {index} is {tuple(got.shape)} {got.dtype}")
            continue
        allowed = 2 * (usual.double() - want).abs().max() + 4 * torch.finfo(got.dtype).eps * want.abs().max()
        error = (got.double() - want).abs().max()
        if not error <= allowed:
            failures.append(f"output {index} is off by {error:.3g}, allowed {allowed:.3g}")
    return failures


def _lost_nan(
    kernel: _catalog.Kernel, implementation: Implementation, shape: Any, tensors: dict[str, torch.Tensor], dtype: str
) -> list[str]:
    """A NaN in the first input must reach exactly the outputs that it reaches in the reference."""
    first = next(iter(tensors.values()))
    first.view(-1)[0] = float("nan")
    want = [output.isnan() for output in kernel.reference(shape, **tensors)]
    got = [output.isnan() for output in implementation.run(shape, **tensors)]
    if not any(mask.any() for mask in want):
        return ["the reference itself loses the NaN"]
    return [
        f"output {index}: NaN in other places" for index, pair in enumerate(zip(want, got)) if not torch.equal(*pair)
    ]


def _wrong_strides(
    kernel: _catalog.Kernel, implementation: Implementation, shape: Any, tensors: dict[str, torch.Tensor], dtype: str
) -> list[str]:
    """The same values in another memory order must give the same result, or be refused with a sentence."""
    turned = {
        name: tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if tensor.dim() > 1 else tensor
        for name, tensor in tensors.items()
    }
    try:
        got = implementation.run(shape, **turned)
    except ValueError as refusal:
        return [] if str(refusal).endswith(".") else [f"refused without a sentence: {refusal}"]
    want = implementation.run(shape, **tensors)
    return [f"output {index} differs" for index, pair in enumerate(zip(want, got)) if not torch.equal(*pair)]


def _run_all() -> None:
    for case in _cases():
        try:
            failures = _failures(case)
        except Exception as error:  # reported as this case's failure; the others still run
            failures = [f"{type(error).__name__}: {error}"]
        print(json.dumps({"case": _name(case), "failures": failures}), flush=True)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[str]]:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    # Silenced: numpy's overflow of exp, which is how the sigmoid of a very negative number becomes zero.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", __file__]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    return {line["case"]: line["failures"] for line in map(json.loads, child.stdout.splitlines())}


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("case_name", [_name(case) for case in _cases()])
def test_interpreted(case_name: str, interpreted: dict[str, list[str]]) -> None:
    assert interpreted[case_name] == []


if __name__ == "__main__":
    _run_all()
