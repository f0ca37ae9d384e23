"""The checker itself: every mutant of a right result is rejected, and right results of every dtype pass."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from mutants import kernels

from seqroof.kernels import attention, gated_conv, lstm_step
from seqroof.profiler import check, devices, truths
from seqroof.profiler.calls import Group, call_of
from seqroof.profiler.gradients import Operands

KERNELS = {kernel.name: kernel for kernel in kernels()}

LSTM = lstm_step.Shape(B=5, I=33, H=600)  # K >= 512, so that half-precision accumulation shows
ATTENTION = attention.Shape(B=2, N=2, S=70, P=32)
CONV = gated_conv.Shape(B=2, T=70, C=24, O=24, W=3)


def truth_and_result(kernel, shape, dtype):
    inputs = kernel.inputs(shape, dtype, "cpu", 0)
    truth = check.truth_of(lambda given: kernel.reference(shape, **given), inputs, dtype)
    return inputs, truth, tuple(kernel.reference(shape, **inputs))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("kernel", "shape"), [(lstm_step, LSTM), (attention, ATTENTION), (gated_conv, CONV)])
def test_the_plain_result_passes(kernel, shape, dtype):
    _, truth, result = truth_and_result(kernel, shape, dtype)
    assert check.compare(result, truth).passed


def swapped_gates(inputs):
    def swap(tensor):
        i, f, g, o = tensor.chunk(4)
        return torch.cat([f, i, g, o])

    return {k: swap(v) if k in ("weight_ih", "weight_hh", "bias") else v for k, v in inputs.items()}


def accumulate_in_half(inputs):
    """Sum the gates over K in bf16, as a kernel with a low-precision accumulator would."""
    x = torch.cat([inputs["x"], inputs["h"]], 1)
    w = torch.cat([inputs["weight_ih"], inputs["weight_hh"]], 1)
    total = inputs["bias"].expand(x.shape[0], -1).clone()
    for k in range(x.shape[1]):
        total = (total + x[:, k : k + 1] * w[:, k]).to(x.dtype)
    i, f, g, o = total.chunk(4, 1)
    c = torch.sigmoid(f) * inputs["c"] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def mutants(result):
    first = result[0].contiguous()
    missing = first.clone()
    missing[..., -16:] = 0
    one_wrong = first.clone()
    one_wrong.view(-1)[-1] += 0.5
    unwritten = first.clone()
    unwritten.view(-1)[3] = float("nan")
    return {
        "zeros": torch.zeros_like(first),
        "constant": torch.full_like(first, first.float().mean().item()),
        "shuffled": first.flatten()[torch.randperm(first.numel(), generator=torch.Generator().manual_seed(1))].view_as(
            first
        ),
        "one step off": first.roll(1, dims=-2),
        "last tile missing": missing,
        "one element wrong": one_wrong,
        "never written": unwritten,
        "slightly scaled": first * 1.02,
        "slightly shifted": first + 0.02 * first.float().std().to(first.dtype),
    }


@pytest.mark.parametrize("name", list(mutants([torch.zeros(20, 20)])))
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("kernel", "shape"), [(lstm_step, LSTM), (attention, ATTENTION), (gated_conv, CONV)])
def test_mutants_of_the_output_are_rejected(kernel, shape, dtype, name):
    _, truth, result = truth_and_result(kernel, shape, dtype)
    mutant = (mutants(result)[name], *result[1:])
    assert not check.compare(mutant, truth).passed


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_mutants_of_the_mathematics_are_rejected(dtype):
    inputs, truth, _ = truth_and_result(lstm_step, LSTM, dtype)
    assert not check.compare(lstm_step.reference(LSTM, **swapped_gates(inputs)), truth).passed
    inputs, truth, _ = truth_and_result(attention, ATTENTION, dtype)
    unmasked = attention.Shape(**(vars(ATTENTION) | {"causal": 0}))
    assert not check.compare(attention.reference(unmasked, **inputs), truth).passed
    inputs, truth, _ = truth_and_result(gated_conv, CONV, dtype)
    assert not check.compare((inputs["x"].contiguous(),), truth).passed, "the input itself"


def test_low_precision_accumulation_is_rejected():
    inputs, truth, _ = truth_and_result(lstm_step, LSTM, "bf16")
    assert not check.compare(accumulate_in_half(inputs), truth).passed


def test_wrong_forms_get_a_sentence():
    _, truth, result = truth_and_result(attention, ATTENTION, "fp32")
    assert "tuple" in check.compare(result[0], truth).detail
    assert "outputs" in check.compare((*result, result[0]), truth).detail
    assert "shape" in check.compare((result[0][..., :-1], *result[1:]), truth).detail
    assert "plain torch.Tensor" in check.compare((torch.nn.Parameter(result[0]), *result[1:]), truth).detail


def test_infinities_at_the_same_place_are_no_error():
    truth = torch.tensor([1.0, float("inf"), float("nan")], dtype=torch.float64)
    assert check.errors([truth.float()], [truth]) == ([0.0], [0.0])
    assert check.errors([torch.zeros(3)], [truth])[0] == [float("inf")]


def _overflows(given):
    """A product that is beyond float16 on the way, and fits again afterwards."""
    return (given["x"] * given["x"] * given["x"].new_tensor(1e-3),)


def test_where_plain_pytorch_overflows_nothing_but_the_right_result_passes():
    x = torch.linspace(1, 400, 64, dtype=torch.float16)
    truth = check.truth_of(_overflows, {"x": x}, "fp16")
    (plain,) = _overflows({"x": x})
    (count,) = truth.overflowed
    assert 0 < count == plain.isinf().sum() < 40 and all(map(math.isfinite, truth.allowed_max + truth.allowed_rms))
    (right,) = _overflows({"x": x.double()})
    assert check.compare((right.half(),), truth).passed
    for wrong in (plain, torch.full_like(x, 7.0), right.half().where(plain.isfinite(), 1.0), right.half() * 2):
        found = check.compare((wrong,), truth)
        assert not found.passed and f"not finite at {count} elements" in found.detail
    unwritten = right.half().where(plain.isfinite(), float("nan"))
    assert not check.compare((unwritten,), truth).passed


def test_a_result_beyond_the_range_of_its_dtype_is_infinite():
    x = torch.tensor([300.0, -300.0, 2.0], dtype=torch.float16)
    truth = check.truth_of(lambda given: (given["x"] * given["x"].abs(),), {"x": x}, "fp16")
    infinity = float("inf")
    assert truth.overflowed == (0,)
    for values, passes in (([infinity, -infinity, 4], True), ([-infinity, infinity, 4], False), ([9, 9, 4], False)):
        assert check.compare((torch.tensor(values, dtype=torch.float16),), truth).passed == passes


def test_overwritten_inputs_are_named():
    before = {"x": torch.ones(3), "n": 4}
    assert Operands({"x": torch.ones(3), "n": 4}).changed(before, 0) == []
    assert Operands({"x": torch.zeros(3), "n": 4}).changed(before, 0) == ["x"]


def test_a_recurrence_may_collect_its_rounding_in_one_element_but_not_on_average():
    inputs = {"x": torch.full((1000,), 1.0)}

    def compute(given):
        return (given["x"] + (0.0 if given["x"].dtype == torch.float64 else 1e-3),)

    single, chained = (check.truth_of(compute, inputs, "fp32", chained=flag) for flag in (False, True))
    outlier = torch.full((1000,), 1.001)
    outlier[7] = 1.0035
    assert not check.compare((outlier,), single).passed
    assert check.compare((outlier,), chained).passed
    assert not check.compare((torch.full((1000,), 1.0035),), chained).passed


def test_a_gradient_may_be_a_running_sum_over_all_tokens():
    rows = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
    inputs = {"rows": rows}
    running = torch.zeros(64)
    for row in rows:
        running = running + row

    def truth(dtype, summed):
        return check.truth_of(lambda given: (given["rows"].sum(0),), inputs, dtype, "both", summed=(summed,))

    assert check.compare((running,), truth("fp32", 8192)).passed
    assert not check.compare((running,), truth("fp32", 0)).passed  # an output that sums nothing has no such excuse
    assert not check.compare((rows[1:].sum(0),), truth("fp32", 8192)).passed
    cut = torch.round(rows * 2**11) / 2**11
    assert not check.compare((cut.sum(0),), truth("fp32", 8192)).passed
    assert truth("bf16", 8192).allowed_rms == truth("bf16", 0).allowed_rms


def test_only_gradients_of_parameters_may_be_sums_over_all_tokens():
    kernel = KERNELS["gated_conv"]
    group = Group(devices.open_device("cpu"), kernel, gated_conv.Shape(B=8, T=512, C=4, O=4, W=2), "fp32", "both", 0)
    inputs = group.inputs(0)
    found = truths.problems(group, inputs, 0.0)
    assert not isinstance(found, str)
    right = call_of(kernel.reference, group.shape, inputs, "both")()
    assert truths.verdict_on(right, found).passed
    for name, output, allowed in zip(["y", *inputs], right, found[0].truth.allowed_rms, strict=True):
        units = allowed / (2**-23 * output.double().square().mean().sqrt().item())
        assert (units > 10) == (name not in ("y", "x")), f"{name}: {units} units"
    y, dx, *parameters = right
    assert not truths.verdict_on((y, dx * (1 + 10 * 2**-23), *parameters), found).passed


@pytest.mark.parametrize("kernel", ["attention", "attention_decode", "memory_attention"])
def test_what_has_no_parameters_has_no_gradient_that_sums_over_all_tokens(kernel):
    found = KERNELS[kernel]
    group = Group(devices.open_device("cpu"), found, found.suite("odd")[0], "fp32", "backward", 0)
    assert not any(truths._summed(group, group.inputs(0), 10**6))


def test_a_file_without_shapes_of_another_batch_may_have_parameters_anywhere():
    group = Group(devices.open_device("cpu"), KERNELS["attention"], ATTENTION, "fp32", "backward", 0)
    inputs = group.inputs(0)

    @dataclass(frozen=True)
    class Only:
        B: int

        def __post_init__(self):
            if self.B != 3:
                raise ValueError("B must be 3")

    for shape in (Only(3), SimpleNamespace(N=3)):
        assert set(truths._summed(replace(group, shape=shape), inputs, 77)) == {77}
    assert set(truths._summed(group, inputs, 77)) == {0}


def _through_a_kink(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
    """The gradient of relu(x - 1): it jumps where x is 1."""
    return ((inputs["x"] > 1).to(inputs["x"].dtype),)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_gradient_may_fall_on_either_side_of_a_kink(dtype):
    x = torch.tensor([1.0, 3.0, 0.2])
    truth = check.truth_of(_through_a_kink, {"x": x}, dtype, "backward")
    other_side, flipped = (torch.tensor([1.0, 1.0, 0.0]),), (torch.tensor([0.0, 1.0, 9.0]),)
    assert not check.compare(other_side, truth).passed
    seen = []
    look = check.SecondLook(truth, _through_a_kink, {"x": x}, dtype, "backward", lambda: seen.append(1))
    assert look.compare(other_side).passed and 1 <= len(seen) <= check.NEIGHBOURS
    before = len(seen)
    assert look.compare(other_side).passed and len(seen) == before  # what is known is not computed again
    assert not look.compare(flipped).passed
    assert len(seen) == check.NEIGHBOURS


def test_only_bfloat16_is_coarser_in_the_interpreter():
    for dtype, factor in (("bf16", check.CUT_OFF), ("fp16", 1.0), ("fp32", 1.0)):
        x = torch.linspace(0.1, 2, 9).to({"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32))
        usual, coarse = (
            check.truth_of(lambda given: (given["x"].sin(),), {"x": x}, dtype, interpreted=interpreted)
            for interpreted in (False, True)
        )
        assert coarse.allowed_max == tuple(factor * allowed for allowed in usual.allowed_max)
        assert coarse.allowed_rms == tuple(factor * allowed for allowed in usual.allowed_rms)


def test_what_cancels_to_zero_may_leave_a_rounding_of_the_other_outputs():
    """The gradient of a softmax over one key is zero; an implementation that rounds its terms comes close to it."""
    x = torch.linspace(-2, 2, 32)
    truth = check.truth_of(lambda given: (given["x"] * 0, given["x"]), {"x": x}, "fp32")
    assert check.compare((torch.full_like(x, 1e-7), x), truth).passed
    assert not check.compare((torch.full_like(x, 1e-5), x), truth).passed
    alone = check.truth_of(lambda given: (given["x"] * 0,), {"x": x}, "fp32")
    assert not check.compare((torch.full_like(x, 1e-7),), alone).passed


@pytest.mark.parametrize(("elements", "passes"), [(check.LEAST_FOR_MEAN - 1, True), (check.LEAST_FOR_MEAN, False)])
def test_the_mean_of_a_few_elements_is_not_judged(elements, passes):
    x = torch.ones(elements, dtype=torch.bfloat16)
    truth = check.truth_of(lambda given: (given["x"],), {"x": x}, "bf16")
    one_unit = check.EPSILON["bf16"]  # within the two units of the largest error, beyond the half unit of the mean
    assert check.compare((x * (1 + one_unit),), truth).passed == passes
