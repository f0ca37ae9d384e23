"""The checker is tested with wrong results of every kernel: none may pass, and the right one must."""

from __future__ import annotations

import pytest
import torch
from mutants import LONG_SUMS, HalfAccumulate, kernels, of_mathematics, of_output, shape_of

from seqroof.profiler import devices, truths
from seqroof.profiler.calls import Group, call_of, grad_mode

KERNELS = {kernel.name: kernel for kernel in kernels()}
RAGGED = [
    (name, shape)
    for name, kernel in KERNELS.items()
    for shape in [s for s in kernel.suite("odd") + kernel.suite("quick") if getattr(s, "ragged", 0)][:1]
]
TRAINED = [name for name, kernel in KERNELS.items() if any(row.grad for row in kernel.implementations.values())]
# How many mutants were tried and accepted, over all tests of this file.
TALLY = {"tried": 0, "accepted": 0}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Small tensors gain nothing from more, and wait for one another where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # opening the device would take all
    yield
    monkeypatch.undo()
    torch.set_num_threads(before)


def case(name, dtype, direction, shape=None):
    """A group on the CPU with inputs, what results are held against, and the right result."""
    kernel = KERNELS[name]
    group = Group(devices.open_device("cpu"), kernel, shape or shape_of(kernel), dtype, direction, seed=0)
    inputs = group.inputs(0)
    with grad_mode(direction):
        found = truths.problems(group, inputs, 0.0)
        right = tuple(call_of(kernel.reference, group.shape, inputs, direction)())
    return group, inputs, found, right


def accepted(mutants, found):
    """Names of the mutants that pass; a mutant that equals the right result is none."""
    passed, right = [], mutants["right"]
    for name, outputs in mutants.items():
        if name == "right" or all(torch.equal(a, b) for a, b in zip(outputs, right)):
            continue
        TALLY["tried"] += 1
        if truths.verdict_on(outputs, found).passed:
            passed.append(name)
    TALLY["accepted"] += len(passed)
    return passed


def of_outputs(right, inputs):
    """The right outputs with one of them wrong, for each of them and each way."""
    return {"right": right} | {
        f"output {index}: {name}": (*right[:index], wrong, *right[index + 1 :])
        for index, output in enumerate(right)
        for name, wrong in of_output(output, inputs)
    }


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", KERNELS)
def test_wrong_outputs_are_rejected(name, dtype):
    _, inputs, found, right = case(name, dtype, "forward")
    assert truths.verdict_on(right, found).passed
    assert accepted(of_outputs(right, inputs), found) == []


@pytest.mark.parametrize(
    "name", [n for n, kernel in KERNELS.items() if any(i.grad for i in kernel.implementations.values())]
)
def test_wrong_gradients_are_rejected(name):
    _, inputs, found, right = case(name, "fp32", "backward")
    assert truths.verdict_on(right, found).passed
    assert accepted(of_outputs(right, inputs), found) == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "shape"), [(name, None) for name in KERNELS] + RAGGED)
def test_wrong_mathematics_is_rejected(name, shape, dtype):
    group, inputs, found, right = case(name, dtype, "forward", shape)
    wrong = {
        title: tuple(call_of(group.kernel.reference, other, given, "forward")())
        for title, other, given in of_mathematics(group.kernel, group.shape, inputs)
    }
    assert accepted({"right": right} | wrong, found) == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", KERNELS)
def test_accumulation_in_half_precision_is_rejected(name, dtype):
    shape = KERNELS[name].shape(**LONG_SUMS[name])
    group, inputs, found, right = case(name, dtype, "forward", shape)
    mode = HalfAccumulate(torch.bfloat16)
    with torch.no_grad(), mode:
        wrong = tuple(call_of(group.kernel.reference, group.shape, inputs, "forward")())
    assert mode.longest >= 512, "this shape has no sum that is long enough to tell"
    assert accepted({"right": right, "half accumulate": wrong}, found) == []


def test_wrong_outputs_are_rejected_where_plain_pytorch_overflows():
    """Gates far beyond float16 make the plain result NaN; what float64 says is finite, and only that is right."""
    kernel = KERNELS["gated_conv"]
    group, inputs, found, plain = case("gated_conv", "fp16", "forward")
    loud = {name: value * 600 if value.is_floating_point() else value for name, value in inputs.items()}
    with grad_mode("forward"):
        found = truths.problems(group, loud, 0.0)
        plain = tuple(call_of(kernel.reference, group.shape, loud, "forward")())
    (truth,) = found[0].truth.outputs
    assert truth.isfinite().all() and not plain[0].isfinite().all(), "these inputs do not overflow"
    right = (truth.to(plain[0].dtype),)
    assert truths.verdict_on(right, found).passed
    assert accepted(of_outputs(right, loud) | {"plain": plain}, found) == []


def test_how_many():
    print(f"{TALLY['tried']} mutants, accepted {TALLY['accepted']}")
    assert TALLY["accepted"] == 0
