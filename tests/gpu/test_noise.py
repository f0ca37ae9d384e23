"""Identical code against itself on a GPU: pairs by events and by graphs, none of them a verdict."""

import pytest

from seqroof.kernels import _catalog
from seqroof.profiler.calls import Group
from seqroof.profiler.devices import open_device
from seqroof.profiler.twins import time_twins
from seqroof.roofline.ratio import paired, verdict


@pytest.mark.parametrize("clock", [("cold", "events"), ("warm", "events"), ("warm", "graph")])
def test_twins_are_neither_faster_nor_slower(clock):
    kernel = _catalog.load("gated_conv")
    group = Group(open_device("cuda:0"), kernel, kernel.suite("quick")[0], "bf16", "forward", 0)
    found = []
    time_twins(group, "torch", clock, 20, 0.5, 5, lambda event, **data: found.append(paired(*data["rounds_s"])))
    assert len(found) == 5 and all(ratio.rounds == 20 for ratio in found)
    assert {verdict(ratio) for ratio in found} <= {"SAME", "AMBIGUOUS"}
