"""Every Triton implementation gives right results and gradients in Triton's interpreter: odd sizes, three dtypes, NaN,
strided input.

Run as a script, this file is an interpreted child process: it prints one JSON line per case. TRITON_INTERPRET must be
set before triton is imported, and the kernels of such a process cannot be compiled, hence the children.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

from seqroof.kernels import _catalog, _triton
from seqroof.kernels._torch import DTYPES, generator
from seqroof.profiler.check import SecondLook, compare, truth_of, upcast
from seqroof.roofline.contract import Implementation

# (kernel, implementation, shape, dtype, kind)
Case = tuple[_catalog.Kernel, str, Any, str, str]


# The interpreter needs about a second for this many.
INTERPRETED_FLOPS = 10**7
# Of shapes with at most so many the largest stands for memory order and NaN, in three runs.
MOST_FLOPS = 3 * INTERPRETED_FLOPS
# Of longer chains, gradients by one launch per step, and other dtypes of what has no gradients, are left to the long
# run: they take a minute of interpreting.
LONG_CHAIN = 64
# The interpreter works on one core.
CHILDREN = 2


def _odd_shapes(kernel: _catalog.Kernel) -> list[Any]:
    """The ODD shapes of the kernel file, or small shapes of its quick suite with an odd size, which no tile divides."""
    quick = [shape for shape in kernel.suite("quick") if any(s > 1 and s % 2 for s in dataclasses.astuple(shape))]
    small = [shape for shape in quick if _flops(kernel, shape) <= INTERPRETED_FLOPS]
    return list(getattr(kernel.module, "ODD", ())) or small


def _flops(kernel: _catalog.Kernel, shape: Any) -> int:
    return kernel.module.work(shape, "fp32", "forward").matmul_flops


def _cases(everything: bool) -> Iterator[Case]:
    for name in _catalog.kernel_names():
        kernel = _catalog.load(name)
        rows = [row for row in kernel.implementations if row.startswith("triton")]
        shapes = _odd_shapes(kernel) if rows else []
        for row in rows:
            assert shapes, f"{name} needs a small odd shape in SHAPES['quick'] or ODD, for the interpreter"
            for index, shape in enumerate(shapes):
                yield from _cases_of(kernel, row, shape, index, everything)
            small = [shape for shape in shapes if _flops(kernel, shape) <= MOST_FLOPS]
            largest = max(small or shapes, key=lambda shape: _flops(kernel, shape))
            yield from ((kernel, row, largest, "fp32", kind) for kind in ("NaN", "strided"))


def _cases_of(kernel: _catalog.Kernel, row: str, shape: Any, index: int, everything: bool) -> Iterator[Case]:
    """Results in all dtypes; with gradients, both in fp32 and the 16-bit types: in both of these where no step waits
    for another, else in one of them in turn, unless `everything`.

    A pass that keeps nothing for gradients is another program than one that does, so both are run.
    """
    work = kernel.module.work(shape, "fp32", "forward")
    if not kernel.implementations[row].grad:
        dtypes = ("fp32",) if work.depth > LONG_CHAIN and not everything else ("fp32", "fp16", "bf16")
        yield from ((kernel, row, shape, dtype, "values") for dtype in dtypes)
        return
    launched = kernel.implementations[row].weights_for(shape, "fp32", "cpu") == "reread"
    halves = ("bf16", "fp16") if work.depth == 1 else (("bf16", "fp16")[index % 2],)
    both = [] if launched and work.depth > LONG_CHAIN else ["fp32", *halves]
    yield from (
        (kernel, row, shape, dtype, "values") for dtype in (["fp32", "fp16", "bf16"] if everything else ["fp32"])
    )
    yield from (
        (kernel, row, shape, dtype, "gradients") for dtype in (["fp32", "fp16", "bf16"] if everything else both)
    )


def _name(case: Case) -> str:
    kernel, row, shape, dtype, kind = case
    sizes = ",".join(f"{field.name}={getattr(shape, field.name)}" for field in dataclasses.fields(shape))
    return f"{kernel.name} {row} {sizes} {dtype} {kind}"


def _failures(case: Case) -> list[str]:
    """Say what is wrong with one case, in sentences."""
    kernel, row, shape, dtype, kind = case
    implementation = kernel.implementations[row]
    tensors = kernel.module.inputs(shape, dtype, "cpu", seed=1)
    check = {"values": _wrong_values, "gradients": _wrong_gradients, "NaN": _lost_nan, "strided": _wrong_strides}[kind]
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


def _wrong_gradients(
    kernel: _catalog.Kernel, implementation: Implementation, shape: Any, tensors: dict[str, torch.Tensor], dtype: str
) -> list[str]:
    """By the rules of profiler/check.py, results and gradients; a gradient has the dtype of its tensor."""
    chained = kernel.module.work(shape, dtype, "both").depth > 1
    actual = _with_gradients(implementation.run, shape, tensors)
    wrong = [f"{index} is {got.dtype}" for index, got in enumerate(actual) if got.dtype != DTYPES[dtype]]
    forward = partial(kernel.reference, shape)
    truth = truth_of(lambda given: forward(**given), tensors, dtype, "forward", chained, interpreted=True)
    outputs = len(truth.outputs)
    values = compare(actual[:outputs], truth)

    def compute(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return _with_gradients(kernel.reference, shape, given)[outputs:]

    summed = _summed(kernel, shape, tensors, dtype)
    truth = truth_of(compute, tensors, dtype, "backward", chained, interpreted=True, summed=summed)
    gradients = compare(actual[outputs:], truth)
    if not gradients.passed and getattr(kernel.module, "SENSITIVE", False):
        gradients = SecondLook(truth, compute, tensors, dtype, "backward").compare(actual[outputs:])
    found = {"values": values, "gradients": gradients}
    return wrong + [f"{name}: {verdict.detail}" for name, verdict in found.items() if not verdict.passed]


def _summed(kernel: _catalog.Kernel, shape: Any, tensors: dict[str, torch.Tensor], dtype: str) -> tuple[int, ...]:
    """For the gradient of every tensor the tokens it sums over: all for a parameter, of one size in any batch, or 0."""
    other = kernel.module.inputs(dataclasses.replace(shape, B=2 if shape.B == 1 else 1), dtype, "cpu", seed=1)
    tokens = kernel.module.work(shape, dtype, "both").tokens
    floating = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    return tuple(tokens if tensors[name].shape == other[name].shape else 0 for name in floating)


def _with_gradients(run: Any, shape: Any, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Outputs, and the gradients of all inputs for random gradients of the outputs."""
    given = {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}
    outputs = run(shape, **given)
    source = generator("cpu", 2)
    # The same in every dtype, up to rounding.
    above = [torch.randn(output.shape, generator=source).to(output.dtype) for output in outputs]
    leaves = [tensor for tensor in given.values() if tensor.requires_grad]
    return *(output.detach() for output in outputs), *torch.autograd.grad(outputs, leaves, above)


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


def _run(number: int, everything: bool) -> None:
    """Run every case whose turn it is in the child `number`."""
    for case in itertools.islice(_cases(everything), number, None, CHILDREN):
        kernel, row, shape, dtype, _ = case
        refused = kernel.implementations[row].supports(shape, dtype, "cpu")
        try:
            failures = [] if refused else _failures(case)
        except Exception as error:  # reported as this case's failure; the others still run
            failures = [f"{type(error).__name__}: {error}"]
        print(json.dumps({"case": _name(case), "refused": refused, "failures": failures}), flush=True)


def _child(number: int, everything: bool) -> dict[str, dict[str, Any]]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    # Silenced: numpy's overflow of exp, which is how the sigmoid of a very negative number becomes zero.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", __file__, str(number), *["--long"] * everything]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    return {line["case"]: line for line in map(json.loads, child.stdout.splitlines())}


@pytest.fixture(scope="module")
def interpreted(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    everything = request.config.getoption("--long")
    with ThreadPoolExecutor(CHILDREN) as pool:
        found = pool.map(_child, range(CHILDREN), [everything] * CHILDREN)
    return {case: line for results in found for case, line in results.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        cases = _cases(metafunc.config.getoption("--long"))
        metafunc.parametrize("case_name", [_name(case) for case in cases])


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
def test_interpreted(case_name: str, interpreted: dict[str, dict[str, Any]]) -> None:
    if refused := interpreted[case_name]["refused"]:
        pytest.skip(refused)
    assert interpreted[case_name]["failures"] == []


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
def test_every_row_is_interpreted(interpreted: dict[str, dict[str, Any]]) -> None:
    """A row that refuses all odd shapes, or most of them, would be checked nowhere."""
    asked, refused = Counter[str](), Counter[str]()
    for case, line in interpreted.items():
        row = " ".join(case.split()[:2])
        asked[row] += 1
        refused[row] += bool(line["refused"])
    assert {row for row, count in asked.items() if refused[row] > count / 2} == set()


if __name__ == "__main__":
    _run(int(sys.argv[1]), "--long" in sys.argv)
