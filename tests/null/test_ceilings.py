"""Ceilings: the logic on synthetic values, a small real measurement on this CPU, and the GPU's micro-kernels compiled
and interpreted in child processes (an interpreted kernel cannot be compiled). No test looks at how long anything took.

Run as a script, this file is the child: `compile` or `interpret`; it prints one JSON line per finding.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from seqroof.profiler import ceilings, gauge, microbench
from seqroof.profiler._triton import AVAILABLE
from seqroof.roofline.machine import READ_SHARE, Ceiling, Machine

needs_triton = pytest.mark.skipif(not AVAILABLE, reason="triton is not installed here")

# One round of one sample over small arrays: all paths, little time.
TINY = gauge.Effort(rounds=2, round_s=0.0, most_bytes=16 * 2**20)


def ceiling(value=1.0, quantity="bandwidth", level="dram", provenance="measured", **more):
    unit = {"bandwidth": "B/s", "latency": "s", "capacity": "B", "rate": "FLOP/s"}[quantity]
    how = more.pop("how", "test")
    return Ceiling(quantity=quantity, level=level, value=value, unit=unit, provenance=provenance, how=how, **more)


def test_knee_is_the_largest_working_set_at_80_percent_of_the_plateau():
    sizes = [1, 2, 4, 8, 16, 32, 64]
    assert gauge.knee(sizes, [100, 101, 99, 98, 81, 60, 30]) == 16
    assert gauge.knee(sizes, [100, 101, 99, 98, 79, 60, 30]) == 8


def test_one_lucky_size_does_not_raise_the_plateau():
    # Measured against 300 the whole plateau would lie outside the cache.
    assert gauge.knee([1, 2, 4, 8, 16, 32], [100, 300, 100, 98, 40, 30]) == 8


def test_slow_start_of_small_working_sets_does_not_move_the_knee():
    assert gauge.knee([1, 2, 4, 8, 16, 32], [50, 70, 100, 100, 50, 30]) == 8


def test_a_curve_that_never_falls_has_no_knee():
    assert gauge.knee([1, 2, 4, 8], [100, 100, 95, 90]) is None


@pytest.mark.parametrize(("sizes", "bandwidths"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2])])
def test_knee_refuses_what_is_no_curve(sizes, bandwidths):
    with pytest.raises(ValueError, match="three or more sizes"):
        gauge.knee(sizes, bandwidths)


def test_cache_ceilings_keep_only_what_is_inside_the_knee():
    sizes = [1, 2, 4, 8, 16]
    taken = [ceiling(value, level="cache", how=str(size)) for size, value in zip(sizes, [100, 110, 105, 50, 30])]
    capacity, *readings = gauge.cache_ceilings(sizes, taken, 16, lambda text: None)
    assert (capacity.quantity, capacity.pattern, capacity.value, capacity.high) == ("capacity", "knee", 4, 8)
    assert [reading.how for reading in readings] == ["1", "2", "4"]


def test_cache_ceilings_without_a_knee_claim_no_capacity_and_say_so():
    said = []
    taken = [ceiling(100, level="cache", how=str(size)) for size in (1, 2, 4, 8)]
    readings = gauge.cache_ceilings([1, 2, 4, 8], taken, 4, said.append)
    assert [reading.how for reading in readings] == ["1", "2", "4"]
    assert "cannot be told from memory" in said[0]


def test_geometric_sizes_rise_are_rounded_and_reach_the_end():
    sizes = gauge.geometric(1000, 16000, 2**0.5, 64)
    assert sizes[0] >= 1000 and sizes[-1] == 16000
    assert sizes == sorted(set(sizes)) and all(size % 64 == 0 for size in sizes)


def scripted(times, **more):
    """A gauge whose samples are given; 1000 bytes each unless it is a latency."""
    queue = iter(times)
    fields = {"quantity": "bandwidth", "level": "dram", "unit": "B/s", "how": "scripted", "amount": 1000.0}
    return gauge.Gauge(sample=lambda: next(queue), **(fields | more))


def test_value_is_the_best_round_and_the_interval_the_better_half():
    # The first sample warms up; with no time for more, each round is worth one sample.
    found = gauge.take([scripted([9, 4, 1, 2, 8, 3, 6])], gauge.Effort(6, 0.0, 0), lambda text: None)[0]
    assert found is not None
    assert (found.value, found.low, found.high) == (1000, 1000 / 3, 1000)


def test_latency_is_the_smallest_and_is_inside_its_interval():
    slow = scripted([1, 4, 2, 3], quantity="latency", level="launch", unit="s", amount=1.0)
    found = gauge.take([slow], gauge.Effort(3, 0.0, 0), lambda text: None)[0]
    assert found is not None
    assert (found.value, found.low, found.high) == (2, 2, 3)


def test_a_difference_that_noise_made_negative_counts_for_nothing():
    gauges = [scripted([1, -1, 5, -2], difference=True), scripted([1, -1, -5, 0], difference=True)]
    found = gauge.take(gauges, gauge.Effort(3, 0.0, 0), lambda text: None)
    assert found[0] is not None and found[0].value == 200
    assert found[1] is None


def test_a_gauge_that_fails_is_named_and_costs_no_other():
    def broken() -> float:
        raise RuntimeError("this build lacks it\nand more")

    said = []
    bad = gauge.Gauge("rate", "tensor", "FLOP/s", broken, "a product", dtype="fp16")
    found = gauge.take([bad, scripted([1] * 9)], TINY, said.append)
    assert found[0] is None and found[1] is not None
    assert said[1] == "rate tensor fp16 by a product left out: this build lacks it"


def test_a_gauge_that_fails_in_a_later_round_keeps_its_rounds_and_costs_no_other():
    def failing(after: int) -> Callable[[], float]:
        times = iter([4.0] * after)

        def sample() -> float:
            if (time_s := next(times, None)) is None:
                raise RuntimeError("CUDA out of memory")
            return time_s

        return sample

    said: list[str] = []
    # One sample warms up, and one is taken in each round.
    gauges = [dataclasses.replace(scripted([]), sample=failing(after)) for after in (1, 2, 3, 9)]
    found = gauge.take(gauges, gauge.Effort(3, 0.0, 0), said.append)
    assert found[0] is None and [one.value for one in found[1:] if one] == [250.0] * 3
    assert said.count("bandwidth dram  by scripted left out: CUDA out of memory") == 3


def test_a_gauge_is_named_before_its_first_call_which_may_hang():
    said: list[str] = []
    heard: list[str] = []

    def hanging() -> float:
        heard.append(said[-1])
        return 1.0

    gauge.take([gauge.Gauge("latency", "barrier", "s", hanging, "all programs")], gauge.Effort(1, 0.0, 0), said.append)
    assert heard[0] == "latency barrier  by all programs" and said[1:] == ["ceilings, round 1 of 1"]


def test_barriers_between_programs_come_last_and_by_themselves():
    """What may hang a device costs nothing that a single program can tell."""
    from seqroof.profiler import ceilings_cuda, ceilings_cuda_chain, cuda_events

    facts = cuda_events.Facts("cpu", sms=9, cache=2**14, shared_per_sm=2**16, free=2**20, tensor_dtypes=("bf16",))
    streams, chains, load, barriers = ceilings_cuda.PARTS
    assert (streams, chains) == (ceilings_cuda.streams_and_rates, ceilings_cuda.chains)
    assert (load, barriers) == (ceilings_cuda.under_load, ceilings_cuda.barriers)
    assert {gauge.level for gauge in ceilings_cuda_chain.inside_latencies(facts)} == {"inside", "pointwise"}
    assert {gauge.level for gauge in ceilings_cuda_chain.barrier_latencies(facts)} == {"barrier"}


def test_competing_gauges_leave_the_best():
    best = gauge.best_of([ceiling(1), None, ceiling(3, how="winner"), ceiling(2), ceiling(5, pattern="read")])
    assert [(c.how, c.value) for c in best] == [("winner", 3), ("test", 5)]
    assert gauge.best_of([ceiling(2, "latency", "launch"), ceiling(1, "latency", "launch")])[0].value == 1


def test_merge_keeps_the_larger_bandwidth_with_the_interval_of_its_own_rounds():
    """A disturbed re-timing says nothing about the limit: it must not widen what the undisturbed one knows."""
    (merged,) = ceilings.merge([ceiling(10, low=9, high=10, how="old")], [ceiling(12, low=11, high=12, how="new")])
    assert (merged.value, merged.low, merged.high, merged.how) == (12, 11, 12, "new")
    (merged,) = ceilings.merge([ceiling(10, low=9, high=10, how="old")], [ceiling(6, low=3, high=6, how="new")])
    assert (merged.value, merged.low, merged.high, merged.how) == (10, 9, 10, "old")


def test_merge_keeps_the_smaller_latency():
    old, new = (ceiling(value, "latency", "launch", low=value, high=2 * value) for value in (2.0, 1.0))
    (merged,) = ceilings.merge([old], [new])
    assert (merged.value, merged.low, merged.high) == (1, 1, 2)


def test_a_recheck_has_rounds_enough_for_an_interval():
    found = gauge.take([scripted([9, 1, 2, 3])], gauge.Effort(gauge.RECHECK.rounds, 0.0, 0), lambda text: None)[0]
    assert found is not None and found.spread > 0


def test_merge_keeps_what_is_in_one_list_only_and_does_not_mix_provenances():
    old = [ceiling(10), ceiling(20, provenance="datasheet", pattern="datasheet"), ceiling(3, pattern="write")]
    merged = ceilings.merge(old, [ceiling(5), ceiling(4, pattern="read"), ceiling(7, provenance="replayed")])
    assert [(c.pattern, c.provenance, c.value) for c in merged] == [
        ("", "measured", 10),
        ("datasheet", "datasheet", 20),
        ("write", "measured", 3),
        ("read", "measured", 4),
        ("", "replayed", 7),
    ]
    assert ceilings.merge(merged, merged) == merged


@pytest.fixture(scope="module")
def told():
    """The ceilings of this CPU, and what was said while they were measured."""
    pytest.importorskip("torch", reason="ceilings of a CPU are measured with torch")
    said: list[str] = []
    return ceilings.measure("cpu", TINY, said.append), said


@pytest.fixture(scope="module")
def measured(told):
    return told[0]


def test_no_round_is_told_in_the_words_of_an_earlier_one(told):
    """The parent takes a worker that says nothing new for hung, and one request measures all parts."""
    rounds = [text for text in told[1] if ", round " in text]
    assert len(rounds) >= 3 * TINY.rounds and len(set(rounds)) == len(rounds)


def test_cpu_gives_every_ceiling_that_the_floors_ask_for(measured):
    torch = pytest.importorskip("torch")
    names = {(c.quantity, c.level, c.dtype, c.pattern) for c in measured}
    expected = {
        *(("bandwidth", "dram", "", pattern) for pattern in ("read", "copy", "write", "triad")),
        *(("bandwidth", "cache", "", pattern) for pattern in ("read", "copy", "write", "triad")),
        *(("bandwidth", level, dtype, "gemv") for level in ("dram", "cache") for dtype in ("fp32", "bf16")),
        ("rate", "simt", "fp32", ""), ("rate", "tensor", "bf16", ""), ("rate", "tensor", "fp16", ""),
        ("rate", "special", "", ""), ("latency", "launch", "", ""), ("latency", "inside", "", ""),
        ("latency", "pointwise", "", ""), ("capacity", "cache", "", "reported"),
    }  # fmt: skip
    # Differences of two times, and the capacity of a curve, may be lost to noise on a busy machine.
    lost_to_noise = {("latency", "inside", "", ""), ("latency", "pointwise", "", "")}
    assert expected - names <= lost_to_noise
    optional = {
        ("capacity", "cache", "", "knee"),
        ("capacity", "private", "", "reported"),
        ("bandwidth", "private", "", "read"),
    }
    optional |= {("latency", "barrier", "", "")} if torch.get_num_threads() > 1 else set()
    assert names - expected <= optional


def test_cpu_ceilings_are_positive_ordered_unique_and_say_how(measured):
    assert len({gauge.place(c) for c in measured}) == len(measured)
    for c in measured:
        assert c.value > 0 and len(c.how) > 5
        if c.provenance == "measured":
            assert c.when and c.low is not None and c.high is not None
            assert 0 < c.low <= c.value <= c.high, c
        if c.quantity == "bandwidth":
            assert c.pattern in READ_SHARE


def test_the_operation_of_the_calibration_copy_has_a_row_of_its_own(measured):
    (same,) = (c for c in measured if c.scope == "calibration")
    (roof,) = (c for c in measured if (c.level, c.pattern, c.scope) == ("dram", "copy", ""))
    assert same.how.startswith("copy_") and same.value <= roof.value


def test_the_c_library_moves_every_byte():
    torch = pytest.importorskip("torch")
    from seqroof.profiler.libc_moves import copying, filling

    for count in (5, 4096, 10_001):
        for threads in (1, 3):
            source, target = torch.randn(count), torch.full((count,), torch.nan)
            copying(target, source, threads)()
            assert torch.equal(source, target)
            filling(target, threads)()
            assert target.unique().numel() == 1 and 0.5 < float(target[0]) < 1.0


def test_sixteen_bit_rates_of_a_cpu_are_not_below_the_float32_rate(measured):
    machine = Machine(id="here", name="here", machine_class="cpu", device="cpu", ceilings=tuple(measured))
    single = machine.best("rate", "simt", "fp32")
    for dtype in ("bf16", "fp16"):
        half = machine.best("rate", "tensor", dtype)
        assert single and half and half.value >= single.value


def test_remeasure_repeats_known_ceilings_only(measured):
    pytest.importorskip("torch")
    known = [c for c in measured if c.pattern == "copy" and c.level == "dram" and not c.scope]
    again = ceilings.remeasure("cpu", known)
    assert [gauge.place(c) for c in again] == [gauge.place(c) for c in known]


def test_every_roof_that_floors_hang_on_is_timed_again(measured):
    pytest.importorskip("torch")
    floors = {(c.quantity, c.level, c.dtype, c.pattern) for c in measured if c.provenance == "measured" and not c.scope}
    again = {(c.quantity, c.level, c.dtype, c.pattern) for c in ceilings.remeasure("cpu", measured) if not c.scope}
    dram = {kept for kept in floors if kept[:2] == ("bandwidth", "dram")}
    assert len(dram) >= 6 and dram <= again
    assert {("bandwidth", "cache", "", "read"), ("rate", "simt", "fp32", ""), ("latency", "launch", "", "")} <= again


def test_a_roof_is_timed_again_by_the_operation_that_holds_it():
    rivals = [scripted([], how=f"{name}, 1 MiB", pattern="copy") for name in ("copy_", "memmove")]
    others = [scripted([], how="sum, 1 MiB", pattern="read")]
    held = ceiling(pattern="copy", how="memmove, 1 MiB; used again on 2026-12-24")
    assert [found.how for found in gauge.holding([*rivals, *others], [held])] == ["memmove, 1 MiB"]
    of_other_size = ceiling(pattern="copy", how="memmove, 2 MiB")
    assert gauge.holding([*rivals, *others], [of_other_size]) == rivals
    calibration = ceiling(pattern="copy", how="copy_, 1 MiB", scope="calibration")
    assert gauge.holding(rivals, [held, calibration]) == rivals
    fewer_threads = ceiling(pattern="copy", how="copy_, 1 MiB", scope="threads=1")
    assert gauge.holding(rivals, [fewer_threads]) == []


def test_a_dependent_addition_is_far_faster_than_a_dispatched_one(measured):
    found = {c.level: c.value for c in measured if c.quantity == "latency"}
    if "pointwise" not in found:
        pytest.skip("the difference of two times was lost to noise on a busy machine")
    assert found["pointwise"] < found["launch"] / 10


def test_streams_smaller_than_four_caches_say_so():
    cpu = pytest.importorskip("seqroof.profiler.ceilings_cpu_gauges", exc_type=ImportError)
    assert cpu.Sizes(2, 2**21, last=2**25, dram=2**27).shortfall == ""
    assert "2.0 times" in cpu.Sizes(2, 2**21, last=2**25, dram=2**26).shortfall


def test_a_disturbance_of_one_side_makes_no_difference_too_small(monkeypatch):
    """The smaller side is disturbed in most tries: the difference of two single times would be far too small."""
    cpu = pytest.importorskip("seqroof.profiler.ceilings_cpu_gauges", exc_type=ImportError)
    times = {"more": [9.0, 8.0, 7.0, 7.5, 9.0], "less": [6.5, 6.0, 2.0, 6.5, 6.9]}
    queues = {name: iter(values) for name, values in times.items()}
    monkeypatch.setattr(cpu, "seconds_per_call", lambda call, repeats: next(queues[call()]))
    assert cpu.difference(lambda: "more", lambda: "less") == 5.0


def test_random_values_repeat_no_constant():
    cpu = pytest.importorskip("seqroof.profiler.ceilings_cpu_gauges", exc_type=ImportError)
    values = cpu.random_values(3 * 2**20 + 5)
    assert values.numel() == 3 * 2**20 + 5
    assert values.std() > 0.9 and values[: 2**20].unique().numel() > 2**19


def test_unknown_device_and_effort_are_refused_with_a_sentence():
    with pytest.raises(ValueError, match="devices are cpu and cuda:N"):
        ceilings.measure("tpu")
    with pytest.raises(ValueError, match="efforts are quick, full"):
        ceilings.measure("cpu", "long")


def test_measuring_needs_no_torch_until_it_measures():
    code = "import sys, seqroof.profiler.ceilings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def properties(major=9):
    return SimpleNamespace(
        name="NVIDIA H200",
        major=major,
        multi_processor_count=132,
        L2_cache_size=60 * 2**20,
        shared_memory_per_multiprocessor=228 * 1024,
    )


@pytest.mark.parametrize(
    ("major", "dtypes"), [(6, ()), (7, ("fp16",)), (8, ("tf32", "fp16", "bf16")), (10, ("tf32", "fp16", "bf16", "fp8"))]
)
def test_tensor_dtypes_follow_the_compute_capability(major, dtypes):
    events = pytest.importorskip("seqroof.profiler.cuda_events", exc_type=ImportError)
    assert events.Facts.of("cuda:0", properties(major), 2**37).tensor_dtypes == dtypes


def test_capacities_and_sizes_of_a_gpu():
    events = pytest.importorskip("seqroof.profiler.cuda_events", exc_type=ImportError)
    from seqroof.profiler import ceilings_cuda, ceilings_cuda_chain, ceilings_cuda_memory

    facts = events.Facts.of("cuda:0", properties(), 2**37)
    cache, chip = ceilings_cuda.capacities(facts)
    assert (cache.level, cache.value) == ("cache", 60 * 2**20)
    assert (chip.level, chip.value) == ("chip", 132 * (228 + 256) * 1024)
    assert ceilings_cuda_memory.stream_bytes(facts) == 2 * 2**30
    small = events.Facts.of("cuda:0", properties(), 2**32)
    assert ceilings_cuda_memory.stream_bytes(small) == 2**29
    assert ceilings_cuda_chain.program_counts(132) == [8, 16, 32, 64, 128, 132]
    assert ceilings_cuda_chain.program_counts(16) == [8, 16]


def child(task, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__, task], capture_output=True, text=True, env=kept | environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_triton
def test_every_micro_kernel_compiles_within_the_limits():
    lines = child("compile")
    assert {line["case"] for line in lines} == {case.label for case in microbench.COMPILE}
    assert [line for line in lines if line["failures"]] == []


@needs_triton
def test_micro_kernels_do_what_they_say_when_interpreted():
    pytest.importorskip("torch")
    findings = {line["what"]: line for line in child("interpret", TRITON_INTERPRET="1")}
    if "refused" in findings:
        pytest.skip(findings["refused"]["reason"])
    assert findings["barrier atomic"] == {"what": "barrier atomic", "counter": 50, "last": 50, "errors": 0}
    assert findings["barrier volatile"] == {"what": "barrier volatile", "counter": 50, "last": 50, "errors": 0}
    for what in ("read", "copy", "write", "triad", "special", "chain", "pointwise"):
        assert findings[what]["error"] < findings[what]["allowed"], what
    # The gauges launch the same kernels with arguments that fit.
    assert findings["gauges"]["left_out"] == []
    assert findings["gauges"]["taken"] >= 18


@needs_triton
def test_no_count_is_specialised_so_that_what_is_launched_is_what_was_compiled():
    """Triton makes another program of a count that is 1 or a multiple of 16."""
    specialised = set()
    for case in microbench.COMPILE:
        counts = {name for name, kind in case.signature.items() if kind == "i32"}
        parameters = {parameter.name: parameter for parameter in case.kernel.params}
        specialised |= {(case.label, name) for name in counts if not parameters[name].do_not_specialize}
    assert specialised == set()


def test_micro_kernels_can_be_imported_without_triton():
    code = "import sys; sys.modules['triton'] = None\nfrom seqroof.profiler import microbench\nprint(microbench.stream)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("<function stream"), done.stderr


def _compile_all():
    from seqroof.profiler.compiled import compile_case, gates

    for case in microbench.COMPILE:
        for target in case.targets if case.representative else (90,):
            print(json.dumps({"case": case.label, "failures": gates(case, compile_case(case, target), target)}))


def _interpret():
    import torch

    def tell(what, **numbers):
        print(json.dumps({"what": what, **numbers}))

    for poll in ("atomic", "volatile"):  # the third poll is inline assembly
        counter, slots, errors = (torch.full((1,), start, dtype=torch.int32) for start in (0, 0, 9))
        try:
            microbench.grid_barrier[(1,)](counter, slots, errors, 50, CHECK=True, POLL=poll)
        except Exception as error:
            if "0-dimensional" not in str(error):
                raise
            # Triton 3.6 turns one-element arrays into loop bounds, which NumPy 2.4 no longer allows.
            return tell("refused", reason=f"this Triton's interpreter cannot loop under this NumPy: {error}")
        tell(f"barrier {poll}", counter=int(counter), last=int(slots), errors=int(errors))
    block, blocks, passes, scale = 1024, 5, 3, 1.5
    x, y = torch.randn(block * blocks), torch.randn(block * blocks)
    right = {"copy": x, "write": torch.full_like(x, scale), "triad": x + scale * y}
    for pattern, (reads, writes) in microbench.STREAMS.items():
        out, sums = torch.full_like(x, torch.nan), torch.full((2,), torch.nan)
        microbench.stream[(2,)](x, y, out, sums, blocks, passes, 7, scale, READS=reads, WRITES=writes, BLOCK=block)
        wrong = (out - right[pattern]).abs().max() if writes else (sums.sum() - passes * x.sum()).abs()
        tell(pattern, error=float(wrong), allowed=1e-6 if writes else 1e-2)
    values = torch.randn(2 * microbench.SPECIAL_BLOCK)
    expected = torch.exp2(-torch.exp2(-values))
    microbench.special[(2,)](values, 2, BLOCK=microbench.SPECIAL_BLOCK)
    tell("special", error=float((values - expected).abs().max()), allowed=1e-5)
    rows, size = microbench.CHAIN_ROWS, microbench.CHAIN_SIZE
    weights, state = torch.randn(size, size).half(), torch.randn(rows, size).half()
    expected = state
    for _ in range(3):
        expected = torch.sigmoid(expected.float() @ weights.float()).half()
    microbench.dependent_chain[(1,)](weights, state, 3, ROWS=rows, SIZE=size)
    tell("chain", error=float((state.float() - expected.float()).abs().max()), allowed=2e-3)
    start = torch.randn(microbench.POINTWISE_LANES)
    values, expected = start.clone(), start
    for _ in range(2 * 3):
        expected = 0.5 * expected + 1.0
    microbench.pointwise_chain[(1,)](values, 2, 0.5, 1.0, LANES=microbench.POINTWISE_LANES, UNROLLED=3)
    tell("pointwise", error=float((values - expected).abs().max()), allowed=1e-6)
    _interpret_gauges(tell)


def _interpret_gauges(tell):
    """Take the gauges of a pretended GPU of one SM whose memory is the host's and whose events count calls."""
    import torch

    from seqroof.profiler import ceilings_cuda, ceilings_cuda_chain, ceilings_cuda_memory, cuda_events

    def pretended(call, repeats, sleep_cycles=0):
        call()
        return 1e-3

    cuda_events.event_seconds = pretended
    ceilings_cuda_chain.BARRIER_STEPS = ceilings_cuda_chain.CHAIN_STEPS = (2, 4)
    ceilings_cuda_chain.POINTWISE_ROUNDS = (1, 2)
    ceilings_cuda.SPECIAL_STEPS = 2
    ceilings_cuda_memory.CACHE_SAMPLE_BYTES = 2**17
    facts = cuda_events.Facts("cpu", sms=1, cache=2**14, shared_per_sm=2**16, free=2**20, tensor_dtypes=("bf16",))
    torch.set_num_threads(1)
    said = []
    gauges = [
        *ceilings_cuda_memory.dram_streams(facts),
        *ceilings_cuda_memory.cache_streams(facts, 2**17),
        *ceilings_cuda_memory.cache_gemvs(facts, 2**17),
        ceilings_cuda._eight_bit_product(facts, 64),
        ceilings_cuda.special(facts),
        *(ceilings_cuda_chain._barrier(facts, 1, poll) for poll in ("atomic", "volatile")),
        *ceilings_cuda_memory.cache_reads(facts, 2**17),
        *ceilings_cuda_chain.inside_latencies(facts),
    ]
    taken = gauge.take(gauges, gauge.Effort(1, 0.0, 0), said.append)
    tell("gauges", left_out=[text for text in said if "left out" in text], taken=sum(c is not None for c in taken))


if __name__ == "__main__":
    {"compile": _compile_all, "interpret": _interpret}[sys.argv[1]]()
