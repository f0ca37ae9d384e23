"""Right first: compares a result with the float64 reference before anything is timed.

The rule. Inputs are drawn in the low precision and raised to float64 for the reference, so all sides see the same
values. A result passes when, for every output, its largest error and its root-mean-square error are at most twice
(three times for gradients, four times for the largest error of a recurrence in fp32) those of plain PyTorch in the
same dtype, plus a few units in the last place. Both are needed: the largest error alone lets one outlier hide a shift,
the mean alone lets one wrong row pass. Nor may elements be zero where the reference is not, but for a few: a tile of
small values that is missing hides among large ones. What fails of a kernel that says it is sensitive is looked at
again: where a value lies within a rounding of the kink of a ReLU, its gradient may come out on either side, for PyTorch
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..roofline.record import Correctness
from .copies import converted

# A kernel may sum in another order than PyTorch; twice its error is the margin that published attention kernels use.
FACTOR = {"forward": 2.0, "backward": 3.0, "both": 3.0}
# A recurrence carries an early rounding through all later steps, and one element may collect it: oneDNN's LSTM in fp32
# was seen at 5.6 times PyTorch's largest error with its mean within bounds. Four times, and the units below, hold that.
FACTOR_OF_CHAINS = 4.0
# Units in the last place that a result may be off where PyTorch is exact. 16-bit results are accumulated in float32 and
# rounded once, which costs half a unit at most and 0.29 on average. In fp32 the order of summation shows: over 4096
# terms, single ones of half a million elements were seen 17 units off with oneDNN and 3 to 5 with MKL, which is 8 and
# more above twice MKL's; on average oneDNN's were within twice MKL's and a tenth of a unit.
ULPS_OF_LARGEST = {"fp64": 8.0, "fp32": 16.0, "tf32": 2.0, "fp16": 2.0, "bf16": 2.0}
ULPS_OF_RMS = {"fp64": 1.0, "fp32": 1.0, "tf32": 0.5, "fp16": 0.5, "bf16": 0.5}
# The gradient of a parameter in fp32 sums over all tokens, and one right order is a running sum, as PyTorch's own bias
# and layer norm on a CPU have it. Rounding n partial sums of random terms, each by 0.29 of its unit, leaves
# 0.29 √(n / 2) units of the result: 18.5 for 8192 tokens, where 12.7 to 18.8 were seen and pairwise sums had 3.
ULPS_OF_RUNNING_SUM = 0.29 / math.sqrt(2)
# Triton's interpreter cuts bfloat16 off where a GPU rounds, which doubles the error of every rounding.
CUT_OFF = 2.0
# Moved inputs on which a failed result is looked at again: a value on a kink stays on its side in one of 256 cases.
NEIGHBOURS = 8
# Elements of which a mean says more than the largest: of fewer, one or two roundings may all go one way.
LEAST_FOR_MEAN = 16
EPSILON = {"fp64": 2**-52, "fp32": 2**-23, "tf32": 2**-10, "fp16": 2**-10, "bf16": 2**-7}

# Elements that may be exactly zero where the truth is not, beside twice those of plain PyTorch: half a tile of 16. A
# tile of small values that was never written hides in the errors of large ones.
LEAST_FOR_ZEROS = 8

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Truth:
    """The float64 outputs of one input set, with what the rule allows at each output.

    allowed_zeros : elements that may be zero where the truth is above `resolved`, a rounding of a typical value.
    forms : the dtype and device of each output as plain PyTorch returns it. overflowed : elements of each output at
    which plain PyTorch in this dtype is not finite and the truth is; they say nothing of what is allowed.
    """

    outputs: tuple[torch.Tensor, ...]
    allowed_max: tuple[float, ...]
    allowed_rms: tuple[float, ...]
    allowed_zeros: tuple[int, ...]
    resolved: tuple[float, ...]
    forms: tuple[tuple[torch.dtype, torch.device], ...]
    overflowed: tuple[int, ...]


def upcast(inputs: dict[str, Any]) -> dict[str, Any]:
    """Copies of a dict of inputs with every floating-point tensor raised to float64."""
    return converted(inputs, torch.float64)


def errors(outputs: Tensors, truth: Tensors) -> tuple[list[float], list[float]]:
    """Largest and root-mean-square error of each output, in absolute terms.

    Equal infinities and NaN at the same places count as no error, and so does the infinity that the truth rounds to in
    the dtype of the output; a NaN or an infinity elsewhere is an infinite error.
    """
    return _sizes_of([_differences(output, true) for output, true in zip(outputs, truth)])


def _differences(output: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The absolute error of every element, in float64; infinite where one side is not finite and the other differs."""
    given = output.double()
    most = torch.finfo(output.dtype).max if output.is_floating_point() else float("inf")
    beyond = true.isfinite() & (true.abs() > most) & (given == true.sign() * float("inf"))
    same = (given == true) | (given.isnan() & true.isnan()) | beyond
    return torch.where(same, 0.0, (given - true).abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))


def _sizes_of(differences: Tensors) -> tuple[list[float], list[float]]:
    """Largest and root-mean-square value of each tensor, 0 of an empty one."""
    held = [difference if difference.numel() else difference.new_zeros(1) for difference in differences]
    return [each.max().item() for each in held], [each.square().mean().sqrt().item() for each in held]


def truth_of(
    compute: Callable[[dict[str, Any]], Tensors],
    inputs: dict[str, Any],
    dtype: str,
    direction: str = "forward",
    chained: bool = False,
    interpreted: bool = False,
    summed: Sequence[int] = (),
) -> Truth:
    """Run the reference in float64 and in the dtype itself, and derive what is allowed.

    `compute` maps copies of a dict of inputs, which it may overwrite, to the outputs (or gradients) of the plain
    PyTorch reference. Nothing is allowed for rounding at outputs that are integers or booleans. chained : its steps
    wait for one another. interpreted : the results come out of Triton's interpreter. summed : for the last outputs, the
    tokens that each is a sum over, as the gradient of a parameter is; 0 for any other.
    """
    factor = FACTOR_OF_CHAINS if chained and dtype == "fp32" else FACTOR[direction]
    coarser = CUT_OFF if interpreted and dtype == "bf16" else 1.0
    true = tuple(tensor.detach().double() for tensor in compute(upcast(inputs)))
    baseline = compute(converted(inputs))
    differences = [_differences(output, exact) for output, exact in zip(baseline, true)]
    baseline_max, baseline_rms = _sizes_of([each[each.isfinite()] for each in differences])
    overflowed = tuple(int(each.isinf().sum().item()) for each in differences)
    rounded = [output.is_floating_point() for output in baseline]
    sizes = [_size(output) if rounds else (0.0, 0.0) for output, rounds in zip(true, rounded)]
    terms = (0,) * (len(true) - len(summed)) + tuple(summed)
    ulps = [_ulps(dtype, count) if rounds else (0.0, 0.0) for count, rounds in zip(terms, rounded)]
    allowed_max, allowed_rms = [], []
    for output, (scale, level), worst, typical, (of_max, of_rms) in zip(true, sizes, baseline_max, baseline_rms, ulps):
        if scale == 0:  # nothing but zeros: what cancelled is as large as the other outputs, and may leave a rounding
            scale, level = max(sizes)
        largest = coarser * (factor * worst + of_max * EPSILON[dtype] * scale)
        mean = coarser * (FACTOR[direction] * typical + of_rms * EPSILON[dtype] * level)
        allowed_max.append(largest)
        allowed_rms.append(mean if output.numel() >= LEAST_FOR_MEAN else largest)
    forms = tuple((output.dtype, output.device) for output in baseline)
    resolved = tuple(EPSILON[dtype] * level for _, level in sizes)
    zeros = tuple(2 * count + LEAST_FOR_ZEROS for count in _zeros(baseline, true, resolved))
    return Truth(true, tuple(allowed_max), tuple(allowed_rms), zeros, resolved, forms, overflowed)


def _ulps(dtype: str, summed: int) -> tuple[float, float]:
    """Units in the last place that the largest and the mean error may have, of a sum over so many tokens."""
    in_turn = ULPS_OF_RUNNING_SUM * math.sqrt(summed) if dtype == "fp32" else 0.0
    # Twice as many units of the largest value, which is at least twice the typical one: four standard deviations.
    return max(ULPS_OF_LARGEST[dtype], 2 * in_turn), max(ULPS_OF_RMS[dtype], in_turn)


def _zeros(outputs: Tensors, truth: Tensors, resolved: Sequence[float]) -> list[int]:
    """How many elements of each output are exactly zero where the truth is above `resolved`."""
    return [
        int(((output == 0) & (true.abs() > least)).sum().item())
        for output, true, least in zip(outputs, truth, resolved)
    ]


def _size(output: torch.Tensor) -> tuple[float, float]:
    """Largest and root-mean-square value of the finite elements of an output."""
    finite = output[output.isfinite()]
    if not finite.numel():
        return 0.0, 0.0
    return finite.abs().max().item(), finite.square().mean().sqrt().item()


class SecondLook:
    """Results of a sensitive kernel once more: they may also move as the exact ones do between neighbouring inputs.

    compute, inputs, dtype, direction : as in `truth_of`. on_neighbour : called before each, for each takes as long as
    the reference.
    """

    def __init__(
        self,
        truth: Truth,
        compute: Callable[[dict[str, Any]], Tensors],
        inputs: dict[str, Any],
        dtype: str,
        direction: str,
        on_neighbour: Callable[[], object] = lambda: None,
    ) -> None:
        self._truths = [truth]
        self._compute = compute
        self._exact = upcast(inputs)
        self._step = EPSILON[dtype] / 2  # rounding moves by half the spacing at most
        self._factor = FACTOR[direction]
        self._on_neighbour = on_neighbour

    def compare(self, outputs: Any) -> Correctness:
        """Hold a result against the truth, widened by one neighbour after the other until it passes."""
        found = compare(outputs, self._truths[0])
        for seed in range(NEIGHBOURS):
            if found.passed:
                break
            found = compare(outputs, self._truth(seed))
        return found

    def _truth(self, seed: int) -> Truth:
        """What is allowed with the first `seed` + 1 neighbours: the usual, and times the factor what these move by."""
        if seed + 1 == len(self._truths):
            self._on_neighbour()
            before = self._truths[seed]
            neighbour = self._compute(_moved(self._exact, self._step, seed))
            differences = [_differences(output, true) for output, true in zip(neighbour, before.outputs)]
            moved = _sizes_of([each[each.isfinite()] for each in differences])
            limits = (before.allowed_max, before.allowed_rms)
            largest, mean = (
                tuple(max(limit, self._factor * error) for limit, error in zip(each, found))
                for each, found in zip(limits, moved)
            )
            zeros = _zeros(neighbour, before.outputs, before.resolved)
            more = tuple(max(limit, 2 * count + LEAST_FOR_ZEROS) for limit, count in zip(before.allowed_zeros, zeros))
            self._truths.append(replace(before, allowed_max=largest, allowed_rms=mean, allowed_zeros=more))
        return self._truths[seed + 1]


def _moved(inputs: dict[str, Any], share: float, seed: int) -> dict[str, Any]:
    """Every floating-point tensor with its elements moved by up to this share of their size."""
    moved = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            source = torch.Generator(device=value.device).manual_seed(seed)
            by = torch.rand(value.shape, generator=source, dtype=value.dtype, device=value.device)
            moved[name] = value.detach() * (1 + share * (2 * by - 1))
        else:
            moved[name] = value
    return moved


def compare(outputs: Any, truth: Truth) -> Correctness:
    """Hold a result against the truth."""
    shape_fault = _shape_fault(outputs, truth)
    if shape_fault:
        return Correctness(passed=False, detail=shape_fault)
    largest, rms = errors(outputs, truth.outputs)
    ratios = [
        max(_share(error, allowed), _share(mean, allowed_mean))
        for error, allowed, mean, allowed_mean in zip(largest, truth.allowed_max, rms, truth.allowed_rms)
    ]
    worst = max(range(len(ratios)), key=ratios.__getitem__)
    zeros = _zeros(outputs, truth.outputs, truth.resolved)
    unwritten = [index for index, count in enumerate(zeros) if count > truth.allowed_zeros[index]]
    passed = all(ratio <= 1.0 for ratio in ratios) and not unwritten
    detail = (
        ""
        if passed
        else (
            f"output {worst}: largest error {largest[worst]:.3g} (allowed {truth.allowed_max[worst]:.3g}), "
            f"root mean square {rms[worst]:.3g} (allowed {truth.allowed_rms[worst]:.3g})"
        )
    )
    if unwritten and all(ratio <= 1.0 for ratio in ratios):
        first = unwritten[0]
        detail = f"output {first}: {zeros[first]} elements are zero where the reference is not"
        detail += f" (allowed {truth.allowed_zeros[first]})"
    if not passed and any(truth.overflowed):
        detail += (
            f"; plain PyTorch in this dtype is not finite at {sum(truth.overflowed)} elements where the float64 result "
            "is, so nothing can be right there but that result: make the inputs smaller"
        )
    return Correctness(
        passed=passed,
        max_error=_finite(largest[worst]),
        rms_error=_finite(rms[worst]),
        allowed_max=_finite(truth.allowed_max[worst]),
        allowed_rms=_finite(truth.allowed_rms[worst]),
        detail=detail,
    )


def _shape_fault(outputs: Any, truth: Truth) -> str:
    """Say how a result differs in form from the reference, or nothing."""
    if not isinstance(outputs, (tuple, list)):
        return f"returned {type(outputs).__name__}; a tuple of {len(truth.outputs)} tensors was expected"
    if len(outputs) != len(truth.outputs):
        return f"returned {len(outputs)} outputs; {len(truth.outputs)} were expected"
    for index, (output, true) in enumerate(zip(outputs, truth.outputs)):
        # A tensor subclass could compute lazily, after the clock has stopped.
        if type(output) is not torch.Tensor:
            return f"output {index} is {type(output).__name__}; a plain torch.Tensor was expected"
        if output.shape != true.shape:
            return f"output {index} has shape {tuple(output.shape)}; {tuple(true.shape)} was expected"
        if (output.dtype, output.device) != truth.forms[index] or output.layout != torch.strided:
            dtype, device = truth.forms[index]
            return (
                f"output {index} is {output.layout} {output.dtype} on {output.device}; "
                f"torch.strided {dtype} on {device} was expected"
            )
    return ""


def _share(error: float, allowed: float) -> float:
    if error == 0:
        return 0.0
    return error / allowed if allowed > 0 else float("inf")


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None
