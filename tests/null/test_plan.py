"""The plan of a run: what a suite leaves to larger machines."""

from seqroof.kernels import _catalog
from seqroof.profiler.devices import SUITE_FLOPS_PER_CORE, CpuDevice
from seqroof.profiler.host import usable_cores
from seqroof.profiler.plan import groups_of

REQUEST = {"kind": "cpu", "compile": False, "implementations": []}


def planned(flops: int | None) -> tuple[list[str], set[str]]:
    """The planned rows of an attention of 3 million operations, and the reasons why rows were refused."""
    kernel = _catalog.load("attention")
    shape = kernel.shape(B=1, N=1, S=64, P=64, causal=0)
    work = kernel.module.work(shape, "fp32", "forward").flops
    most = None if flops is None else work + flops
    (group,) = groups_of(kernel, [shape], ["fp32"], ["forward"], {**REQUEST, "most_flops": most})
    return group["implementations"], set(group["refused"].values())


def test_a_suite_stops_at_calls_that_take_too_long() -> None:
    rows, reasons = planned(-1)
    assert rows == [] and any("name the sizes with --shape" in reason for reason in reasons)


def test_what_just_fits_and_named_sizes_are_measured() -> None:
    for flops in (0, None):
        rows, reasons = planned(flops)
        assert {"reference", "torch.math"} <= set(rows)
        assert not any("suites stop" in reason for reason in reasons)


def test_launches_are_told_of_the_forward_pass_alone() -> None:
    """What an implementation declares of a call without gradients says nothing of its gradients."""
    kernel = _catalog.load("attention")
    shape = kernel.shape(B=1, N=1, S=64, P=64, causal=0)
    directions = ["forward", "backward", "both"]
    groups = groups_of(kernel, [shape], ["fp32"], directions, {**REQUEST, "most_flops": None})
    assert [group["classes"]["triton"]["launches"] for group in groups] == [1, None, None]


def test_the_limit_grows_with_the_cores() -> None:
    assert CpuDevice().most_suite_flops == SUITE_FLOPS_PER_CORE * usable_cores()
