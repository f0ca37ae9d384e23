"""Ceilings on a real GPU: all gauges run, none beats what the driver's widths and clocks allow, and the copy agrees."""

import pytest
import torch

from seqroof.profiler import ceilings, gauge
from seqroof.profiler.calibration_copy import timed_copy
from seqroof.profiler.ceilings_cuda_chain import program_counts
from seqroof.profiler.devices import open_device
from seqroof.profiler.identity import roof_identity
from seqroof.roofline.calibration import disagreement
from seqroof.roofline.machine import Machine

# Four short rounds and a fifth of a second of load: all gauges, a few seconds.
BRIEF = gauge.Effort(rounds=4, round_s=0.005, most_bytes=2**31, load_s=0.2)


@pytest.fixture(scope="module")
def measured():
    said: list[str] = []
    return ceilings.measure("cuda:0", BRIEF, said.append), said


def machine(measured):
    return Machine(id="x", name="x", machine_class="datacentre", device="cuda", ceilings=tuple(measured[0]))


def test_no_gauge_is_left_out(measured):
    assert [text for text in measured[1] if "left out" in text] == []


def test_roofs_are_measured_where_little_memory_is_free():
    """Three arrays of 2 GiB find no room in four: their roofs are left out, and all others are there."""
    said: list[str] = []
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(4 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = ceilings.measure("cuda:0", BRIEF, said.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "bandwidth of DRAM left out: too little memory is free" in said
    levels = {ceiling.level for ceiling in found if ceiling.provenance == "measured"}
    assert {"cache", "simt", "special", "launch", "graph", "barrier", "inside", "pointwise"} <= levels


def test_every_pattern_level_dtype_and_unit_is_there(measured):
    major, minor = torch.cuda.get_device_capability(0)
    places = {(c.quantity, c.level, c.dtype, c.pattern) for c in measured[0] if c.provenance == "measured"}
    for level in ("dram", "cache"):
        assert {("bandwidth", level, "", pattern) for pattern in ("read", "copy", "write", "triad")} <= places
        assert ("bandwidth", level, "fp32", "gemv") in places
    tensor = {dtype for quantity, level, dtype, _ in places if (quantity, level) == ("rate", "tensor")}
    wanted = {"tf32", "fp16", "bf16"} | ({"fp8"} if (major, minor) >= (8, 9) else set())
    assert major < 8 or tensor == wanted
    assert {("rate", "simt", "fp32", ""), ("rate", "special", "", "")} <= places
    assert {level for quantity, level, *_ in places if quantity == "latency"} == {
        "launch",
        "launch_waited",
        "graph",
        "barrier",
        "inside",
        "pointwise",
    }


def test_the_barrier_is_a_curve_over_programs_and_floors_take_its_lowest(measured):
    curve = {c.pattern: c.value for c in measured[0] if (c.quantity, c.level) == ("latency", "barrier")}
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    assert set(curve) == {f"programs={count}" for count in program_counts(sms)}
    best = machine(measured).best("latency", "barrier")
    assert best is not None and best.value == min(curve.values())


def test_nothing_measured_is_above_what_the_driver_states(measured):
    derived = {(c.level, c.dtype): c.value for c in measured[0] if c.pattern == "driver"}
    if not derived:
        pytest.skip("this torch does not pass clocks and bus width on")
    for (level, dtype), most in derived.items():
        quantity = "bandwidth" if level == "dram" else "rate"
        best = machine(measured).best(quantity, level, dtype or None)
        assert best is not None and best.value <= 1.05 * most, (level, dtype)


def test_a_load_has_a_burst_and_a_sustained_rate(measured):
    scopes = {(c.level, c.scope) for c in measured[0] if c.scope}
    assert {(level, scope) for level in ("dram", "simt") for scope in ("burst", "sustained")} <= scopes


def test_a_multiply_add_takes_a_few_clocks_and_a_small_product_many(measured):
    found = {c.level: c.value for c in measured[0] if c.quantity == "latency" and c.level in ("inside", "pointwise")}
    assert 5e-10 < found["pointwise"] < 1e-8 and found["pointwise"] < found["inside"] / 5


def test_all_roofs_but_the_barrier_and_fixed_figures_are_timed_again(measured):
    again = {(c.quantity, c.level, c.pattern) for c in ceilings.remeasure("cuda:0", measured[0])}
    assert {("bandwidth", "dram", pattern) for pattern in ("read", "copy", "write", "triad", "gemv")} <= again
    assert {("bandwidth", "cache", "read"), ("rate", "simt", ""), ("latency", "launch", "")} <= again
    assert "barrier" not in {level for _, level, _ in again}


def test_the_calibration_copy_agrees_with_the_copy_roof(measured):
    look = timed_copy(open_device("cuda:0"))
    roof = next(c for c in measured[0] if c.scope == "calibration")
    assert look.moved_bytes >= 2 * 512 * 2**20
    # The roof is the best of few rounds here, and the copy a median.
    assert abs(disagreement(look, roof)) < 0.05


def test_roofs_are_known_by_the_device_and_the_limits_of_its_clocks():
    identity = roof_identity(open_device("cuda:0"))
    assert identity["device"] and identity == roof_identity(open_device("cuda:0"))
