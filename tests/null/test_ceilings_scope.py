"""Rows of fewer threads, of a load and of a driver are information: they are named, kept, and never make a floor."""

from types import SimpleNamespace

import pytest
from round_machine import ROUND, ceiling, work

from seqroof.profiler import ceilings, ceilings_load, gauge, host_layout
from seqroof.roofline.catalogue import by_driver_name, measured_machine
from seqroof.roofline.floors import best_floors, own_floors
from seqroof.roofline.table import ceiling_cells

# As favourable as no roof of ROUND: whoever took one of them would get a shorter floor.
TEMPTING = (
    ceiling("bandwidth", "dram", 1e6, scope="threads=1"),
    ceiling("bandwidth", "dram", 1e6, pattern="copy", scope="burst"),
    ceiling("bandwidth", "cache", 1e6, scope="sustained"),
    ceiling("rate", "simt", 1e9, "fp32", "product", "FLOP/s", scope="threads=1"),
    ceiling("rate", "tensor", 1e9, "bf16", "product", "FLOP/s", scope="burst"),
    ceiling("rate", "special", 1e9, unit="op/s", scope="threads=1"),
    ceiling("latency", "barrier", 1e-9, unit="s", scope="threads=2"),
    ceiling("capacity", "cache", 1e9, unit="B", pattern="knee", scope="threads=1"),
)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize("chain", ["launch", "barrier", "inside"])
def test_no_floor_is_taken_from_a_narrower_scope(dtype, cache, chain):
    whole = ROUND.model_copy(update={"ceilings": (*TEMPTING, *ROUND.ceilings, *TEMPTING)})
    task = work(depth=7, weights=4000, recurrent=4000, matmul_flops=10**6, pointwise_flops=10**4, special_ops=10**4)
    assert own_floors(task, dtype, "reread", chain, whole, cache) == own_floors(
        task, dtype, "reread", chain, ROUND, cache
    )
    assert best_floors(task, dtype, whole, cache) == best_floors(task, dtype, ROUND, cache)


def test_find_leaves_out_narrower_scopes_even_where_nothing_else_is_known():
    bare = ROUND.model_copy(update={"ceilings": TEMPTING})
    assert bare.find("bandwidth", "dram") == () and bare.best("rate", "simt", "fp32") is None
    assert bare.bandwidth("cache", 1, 1) is None


def test_floors_take_the_lowest_point_of_the_barriers_curve():
    curve = [
        ceiling("latency", "barrier", value, pattern=f"programs={n}", unit="s") for n, value in ((8, 0.9), (132, 1.4))
    ]
    machine = ROUND.model_copy(update={"ceilings": (*[c for c in ROUND.ceilings if c.level != "barrier"], *curve)})
    own = own_floors(work(depth=10), "fp32", "kept", "barrier", machine, "warm")
    assert own.floors.serial == 9.0


def test_scopes_are_places_of_their_own_and_named_in_the_table():
    whole, one = ceiling("bandwidth", "dram", 10.0), ceiling("bandwidth", "dram", 12.0, scope="threads=1")
    assert gauge.best_of([whole, one]) == [whole, one]
    assert ceilings.merge([whole], [one]) == [whole, one]
    assert ceiling_cells(one)[0] == "dram bandwidth, read, threads=1"


def loaded(times, load_s):
    """Two rates of a scripted gauge whose samples are the only thing that takes time."""
    now, queue = [0.0], iter(times)

    def sample():
        time_s = next(queue)
        now[0] += time_s
        return time_s

    slow = gauge.Gauge("bandwidth", "dram", "B/s", sample, "scripted", 100.0, pattern="copy")
    return ceilings_load.burst_and_sustained([slow], load_s, lambda text: None, lambda: now[0])


def test_burst_is_the_first_tenth_and_sustained_the_last_quarter():
    # After one warm-up: 20 samples of 1 s, 108 of 2 s, 21 of 4 s; in all 320 s, of which 32 and 80 s are looked at.
    burst, sustained = loaded([9.0] + [1.0] * 20 + [2.0] * 108 + [4.0] * 21, 320.0)
    assert (burst.scope, burst.value, burst.low, burst.high) == ("burst", 100.0, 50.0, 100.0)
    assert (sustained.scope, sustained.value, sustained.low, sustained.high) == ("sustained", 25.0, 25.0, 25.0)


def test_a_load_of_few_long_samples_still_has_two_ends():
    burst, sustained = loaded([5.0, 1.0, 1.0, 1.0, 8.0, 8.0, 8.0], 2.0)
    assert (burst.value, sustained.value) == (100.0, 12.5)


def test_without_a_load_nothing_is_sampled_and_a_failure_is_named():
    def broken():
        raise RuntimeError("no such product\nhere")

    said = []
    bad = gauge.Gauge("rate", "tensor", "FLOP/s", broken, "a product")
    assert ceilings_load.burst_and_sustained([bad], 0.0, said.append) == [] and said == []
    assert ceilings_load.burst_and_sustained([bad], 1.0, said.append) == []
    assert said[-1] == "a product under load left out: no such product"


def test_thread_counts_double_and_stay_below_all():
    threads = pytest.importorskip("seqroof.profiler.ceilings_cpu_threads", exc_type=ImportError)
    assert [threads.thread_counts(n) for n in (1, 2, 3, 8, 12)] == [[], [1], [1, 2], [1, 2, 4], [1, 2, 4, 8]]


def test_all_numbers_of_threads_share_one_pair_of_arrays(monkeypatch):
    """Each pair may take what memory allows, and all gauges are alive at once."""
    torch = pytest.importorskip("torch")
    from seqroof.profiler import ceilings_cpu_threads as threads

    seen, made = [], threads._copy

    def noted(count, scope, on, source, target):
        seen.append((source.data_ptr(), target.data_ptr()))
        return made(count, scope, on, source, target)

    monkeypatch.setattr(threads, "_copy", noted)
    monkeypatch.setattr(threads, "take", lambda gauges, effort, progress, what: [])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    threads.by_threads("cpu", gauge.Effort(1, 0.0, 2**20), lambda text: None)
    assert len(seen) == 3 and len(set(seen)) == 1


def test_a_limited_sample_runs_under_its_threads_and_gives_all_back():
    torch = pytest.importorskip("torch")
    from seqroof.profiler.ceilings_cpu_threads import limited

    before, seen = torch.get_num_threads(), []

    def fails():
        seen.append(torch.get_num_threads())
        raise ValueError

    assert limited(1, lambda: seen.append(torch.get_num_threads()) or 2.0)() == 2.0
    with pytest.raises(ValueError):
        limited(1, fails)()
    assert seen == [1, 1, 1] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("flags", "text", "bf16"),
    [
        ("fpu avx avx2 fma", "vector units AVX2 without 16-bit arithmetic; matrix units none", "AVX2, no bf16 unit"),
        (
            "avx2 avx512f avx512_bf16 amx_bf16 amx_int8",
            "vector units AVX-512 with AVX512-BF16; matrix units AMX-BF16 and AMX-INT8",
            "AMX-BF16",
        ),
        ("avx2 avx512f avx512_bf16", "vector units AVX-512 with AVX512-BF16; matrix units none", "AVX512-BF16"),
        ("fp asimd bf16 sve", "vector units SVE with Arm BF16; matrix units none", "Arm BF16"),
    ],
)
def test_units_are_read_from_the_flags(tmp_path, flags, text, bf16):
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name : x\n{'Features' if 'asimd' in flags else 'flags'}\t\t: {flags}\n")
    assert host_layout.units(file).text == text and host_layout.units(file).serving("bf16") == bf16
    assert host_layout.units(tmp_path / "absent").text == "units not known"


def test_memory_nodes_say_what_may_be_used(tmp_path, monkeypatch):
    for node, cores in enumerate(("0-3", "4-7")):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(cores)
    status = tmp_path / "status"
    status.write_text("Name:\tx\nMems_allowed_list:\t1\n")
    monkeypatch.setattr(host_layout.os, "sched_getaffinity", lambda pid: {2, 3}, raising=False)
    text = host_layout.memory_nodes(tmp_path, status)
    assert text == "2 NUMA nodes; this process may use 2 of the 4 cores of node 0; memory of node 1"
    assert host_layout.memory_nodes(tmp_path / "absent", status) == "NUMA nodes not known"


H200 = {"name": "NVIDIA H200", "major": 9, "minor": 0, "multi_processor_count": 132, "L2_cache_size": 60 * 2**20}
H200 |= {"shared_memory_per_multiprocessor": 228 * 1024, "clock_rate": 1980000, "memory_clock_rate": 3201000}
H200 |= {"memory_bus_width": 6144, "uuid": "GPU-1"}


def driver_figures(**changes):
    events = pytest.importorskip("seqroof.profiler.cuda_events", exc_type=ImportError)
    from seqroof.profiler.driver_figures import driver_ceilings

    facts = events.Facts.of("cuda:0", SimpleNamespace(**(H200 | changes)), 2**37)
    return {(c.level, c.dtype): c for c in driver_ceilings(facts)}


def test_figures_of_a_driver_are_its_widths_times_its_clocks():
    found = driver_figures()
    assert found["dram", ""].value == pytest.approx(4.917e12, rel=1e-3)
    assert found["tensor", "bf16"].value == pytest.approx(1070e12, rel=1e-3)
    assert found["tensor", "fp8"].value == 2 * found["tensor", "bf16"].value == 4 * found["tensor", "tf32"].value
    assert found["simt", "fp32"].value == pytest.approx(66.9e12, rel=1e-3)
    assert {(c.provenance, c.pattern) for c in found.values()} == {("derived", "driver")}


def test_a_slice_has_no_bandwidth_of_the_whole_gpu_and_no_datasheet():
    name = "NVIDIA H200 MIG 1g.18gb"
    found = driver_figures(name=name, multi_processor_count=16)
    assert ("dram", "") not in found and found["simt", "fp32"].value == pytest.approx(66.9e12 * 16 / 132, rel=1e-3)
    assert ("dram", "") not in driver_figures(uuid="MIG-1")
    assert by_driver_name("NVIDIA H200") is not None and by_driver_name(name) is None
    sliced = measured_machine("nvidia-h200-mig-1g-18gb", name, "cuda", [ceiling("bandwidth", "dram", 1e11)])
    assert len(sliced.ceilings) == 1 and "MIG" in sliced.name


def test_what_a_driver_does_not_state_is_left_out():
    assert driver_figures(clock_rate=0, memory_bus_width=0) == {}
    assert ("tensor", "bf16") not in driver_figures(major=8, minor=6)
