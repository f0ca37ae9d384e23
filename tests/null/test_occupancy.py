"""How many programs fit on a multiprocessor, by the arithmetic of NVIDIA's occupancy calculator."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqroof.roofline import catalogue
from seqroof.roofline.inspection import Inspected, remark
from seqroof.roofline.occupancy import TARGETS, Resources, occupancy, room_for, target_named

KIB = 1024
NEEDS = st.builds(
    Resources,
    registers=st.integers(16, 255),
    shared_bytes=st.integers(0, 227 * KIB),
    threads=st.sampled_from((32, 64, 128, 256, 512, 1024)),
    tensor_columns=st.sampled_from((0, 32, 128, 512)),
)
TARGET = st.sampled_from(list(TARGETS.values()))


@pytest.mark.parametrize(
    ("capability", "needs", "programs", "by"),
    [
        (80, Resources(32, 0, 1024), 2, ("registers", "threads")),
        (80, Resources(32, 0, 64), 32, ("registers", "threads", "blocks")),
        # 65 registers are 9 units of 256 for a warp; a part of the file holds 7 warps of them, four parts 28.
        (90, Resources(65, 0, 128), 7, ("registers",)),
        (90, Resources(255, 0, 256), 1, ("registers",)),
        (90, Resources(255, 0, 512), 0, ("registers",)),
        (90, Resources(40, 48 * KIB, 128), 4, ("shared memory",)),
        # 114 KiB with the 1 KiB of the system twice are 230 KiB; 113 KiB fit.
        (90, Resources(40, 114 * KIB, 128), 1, ("shared memory",)),
        (90, Resources(40, 113 * KIB, 128), 2, ("shared memory",)),
        (86, Resources(40, 100 * KIB, 128), 0, ("shared memory",)),
        (89, Resources(40, 0, 32), 24, ("blocks",)),
        (100, Resources(40, 0, 128, 256), 2, ("tensor memory",)),
    ],
)
def test_the_smallest_limit_counts(capability, needs, programs, by):
    found = occupancy(needs, TARGETS[capability])
    assert (found.programs, found.limited_by) == (programs, by)
    assert found.share == programs * needs.threads / TARGETS[capability].threads <= 1


@given(NEEDS, TARGET)
def test_less_of_a_resource_never_admits_fewer(needs, target):
    held = occupancy(needs, target).programs
    for less in (
        dataclasses.replace(needs, registers=needs.registers - 8),
        dataclasses.replace(needs, shared_bytes=needs.shared_bytes // 2),
    ):
        assert occupancy(less, target).programs >= held


@given(NEEDS, TARGET, st.integers(1, 8))
def test_the_room_that_is_named_is_the_most_that_fits(needs, target, programs):
    for resource, field in (("registers", "registers"), ("shared memory", "shared_bytes")):
        room = room_for(needs, target, programs, resource)
        if room is None:
            continue
        assert occupancy(dataclasses.replace(needs, **{field: room}), target).limits[resource] >= programs
        if room < (255 if field == "registers" else target.block_shared_bytes):
            more = dataclasses.replace(needs, **{field: room + 1})
            assert occupancy(more, target).limits[resource] < programs


def test_targets_are_named_as_the_compiler_does_and_have_a_machine():
    assert target_named("sm_90") == target_named("90") == target_named("sm_90a") == TARGETS[90]
    for wrong in ("sm_70", "sm_87", "h200", ""):
        with pytest.raises(ValueError, match="sm_100"):
            target_named(wrong)
    machines = [target.machine for target in TARGETS.values() if target.machine]
    assert len(machines) == 7 and all(catalogue.multiprocessors(machine) for machine in machines)


def inspected(registers=40, shared=1 * KIB, threads=128, stack=0, grid=None, capability=90):
    needs = Resources(registers, shared, threads)
    return Inspected("tile", "kernel", TARGETS[capability], 132, needs, stack, (), grid=grid, count=1 if grid else None)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (inspected(shared=200 * KIB, capability=89), "cannot be launched: it needs too much of shared memory (200 KiB"),
        (inspected(stack=264), "spills: 264 B of stack per thread"),
        (inspected(grid=(32, 1, 1)), "32 programs for 132 multiprocessors: 100 stand idle"),
        (inspected(grid=(132, 1, 1)), "all its programs at once"),
        (
            inspected(shared=128 * KIB),
            "1 program per multiprocessor (6.2 % of the warps) by shared memory: 2 would fit",
        ),
        (inspected(shared=128 * KIB, grid=(9999, 1, 1)), "at most 113 KiB each, not 128 KiB; try fewer stages"),
        (inspected(registers=65), "8 would fit with at most 64 registers per thread, not 65"),
        (inspected(registers=32), "fills its multiprocessors with 16 programs"),
        (inspected(registers=16, threads=32), "by blocks; try more warps"),
    ],
)
def test_the_closing_sentence_says_what_limits_and_what_to_try(one, says):
    assert says in remark([inspected(registers=32), one])


def test_a_spill_is_told_before_an_idle_multiprocessor():
    idle, spilling = inspected(grid=(1, 1, 1)), inspected(stack=8)
    assert "spills" in remark([idle, spilling]) and "spills" in remark([spilling, idle])
    both = remark([spilling, inspected(stack=16)])
    assert "16 B" in both and "(1 more like it)" in both
