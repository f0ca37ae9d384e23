"""The plan of a run: what a suite leaves to larger machines, and what a kernel file may not say of itself."""

from pathlib import Path

import pytest
from user_kernels import GOOD, kernel_file

from seqroof.kernels import _catalog
from seqroof.profiler.devices import SUITE_FLOPS_PER_CORE, CpuDevice
from seqroof.profiler.host import usable_cores
from seqroof.profiler.plan import PlanError, check_sources, groups_of, shapes_of

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


def planned_file(folder: Path, before: str = "", after: str = "") -> list[dict]:
    """The groups of a user's file with lines before its Shape ends, and others at its end."""
    text = GOOD.replace("    N: int = 64\n", f"    N: int = 64\n{before}") + after
    kernel = _catalog.load(str(kernel_file(folder, text=text)))
    request = {**REQUEST, "most_flops": None}
    return groups_of(kernel, shapes_of(kernel, "quick", {}), ["fp32"], ["forward"], request)


DECLARED = "\nIMPLEMENTATIONS['fast'] = Implementation(reference, {})\n"


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (DECLARED.format("weights=lambda *case: 'resident'"), "of fast cannot be recorded: weights: .*'kept'"),
        (DECLARED.format("launches=1.5"), "of fast cannot be recorded: launches: .*integer"),
        (DECLARED.format("supports=lambda *case: True"), "of fast cannot be recorded: reason: .*string"),
        (DECLARED.format("depth=lambda *case: {}['x']"), "a declaration of fast raised KeyError: 'x'"),
        (DECLARED.format("supports=lambda shape: None"), r"supports\(\) of fast raised TypeError"),
        ("\ndef receptive_field(shape): return 3.5\n", "receptive_field: .*integer"),
        ("\ndef padding_waste(shape): return '10 %'\n", "padding_waste: .*number"),
        ("\ndef padding_waste(shape): return shape.T\n", r"padding_waste\(\) raised AttributeError"),
    ],
)
def test_a_wrong_declaration_is_refused_in_the_plan(tmp_path: Path, after: str, says: str) -> None:
    with pytest.raises(PlanError, match=f"mine.py: .*{says}"):
        planned_file(tmp_path, after=after)


def test_right_declarations_are_planned(tmp_path: Path) -> None:
    more = "weights='kept', launches=lambda *case: 2, supports=lambda *case: 'not today'"
    groups = planned_file(tmp_path, after=DECLARED.format(more) + "\ndef receptive_field(shape): return 3\n")
    assert [group["refused"] for group in groups] == [{"fast": "not today"}] * 2
    assert {group["receptive_field"] for group in groups} == {3}
    assert groups[0]["classes"]["fast"]["launches"] == 2


def test_an_option_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    """A worker gets sizes as integers: 0.125 would become another problem."""
    for value in ("0.125", "'relu'", "None", "float('inf')"):
        with pytest.raises(_catalog.ContractError, match=r"mine\.py: Shape\.scale is .*constant of the file"):
            planned_file(tmp_path, f"    scale: float = {value}\n")
    with pytest.raises(PlanError, match=r"mine\.py: Shape\.N is 2\.5; sizes and options are whole numbers"):
        planned_file(tmp_path, after="\nSHAPES = {'quick': [Shape(2, 2.5)]}\n")
    groups = planned_file(tmp_path, "    causal: bool = True\n    scale: float = 2.0\n")
    assert groups[0]["shape"] == {"B": 2, "N": 64, "causal": 1, "scale": 2}


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
    old, new = (_catalog.load(str(kernel_file(folder))) for folder in folders)
    check_sources([old, old, _catalog.load("attention")])
    with pytest.raises(PlanError, match=r"old/mine\.py and .*new/mine\.py are both the kernel 'mine'"):
        check_sources([old, new])
