"""Every implementation that runs on this GPU, and its gradients, against float64, on the odd and the quick shapes."""

import dataclasses

import pytest
import torch

from seqroof.kernels import _catalog
from seqroof.profiler import truths
from seqroof.profiler.calls import Group, grad_mode
from seqroof.profiler.devices import open_device

CASES = [
    (name, suite, index, dtype, direction)
    for name in _catalog.kernel_names()
    for suite in ("odd", "quick")
    for index in range(len(_catalog.load(name).suite(suite)))
    for dtype in ("fp32", "tf32", "fp16", "bf16")
    for direction in ("forward", "backward")
]


@pytest.mark.parametrize(("name", "suite", "index", "dtype", "direction"), CASES)
def test_results_agree_with_the_reference(name, suite, index, dtype, direction):
    device = open_device("cuda:0")
    kernel = _catalog.load(name)
    shape = kernel.suite(suite)[index]
    rows = [
        row
        for row, implementation in kernel.implementations.items()
        if row not in ("reference", "compile")
        and (direction == "forward" or implementation.grad)
        and not implementation.supports(shape, dtype, "cuda")
    ]
    if not rows:
        pytest.skip("no implementation runs this case")
    group = Group(device, kernel, shape, dtype, direction, seed=0)
    inputs = group.inputs(0)
    device.allow_tf32(dtype == "tf32")
    with grad_mode(direction):
        found = truths.problems(group, inputs, kernel.module.work(shape, dtype, direction).matmul_flops)
    failures = {}
    for row in rows:
        result = truths.checked(group, row, inputs, found)
        if not result.passed:
            failures[row] = result.detail
    assert failures == {}, dataclasses.asdict(shape)


@pytest.mark.parametrize("name", _catalog.kernel_names())
def test_strided_inputs_give_the_same_results(name):
    """Between neighbouring values of every input, lengths among them, lies one that is wrong."""
    kernel = _catalog.load(name)
    for shape in kernel.suite("quick"):
        inputs = kernel.module.inputs(shape, "bf16", "cuda:0", 0)
        strided = {key: torch.stack([tensor, tensor - 1], -1)[..., 0] for key, tensor in inputs.items()}
        for row, implementation in kernel.implementations.items():
            if not row.startswith("triton") or implementation.supports(shape, "bf16", "cuda"):
                continue
            plain, other = implementation.run(shape, **inputs), implementation.run(shape, **strided)
            for a, b in zip(plain, other, strict=True):
                torch.testing.assert_close(a.double(), b.double(), rtol=2e-2, atol=2e-2)
