"""How the roofs of a GPU are measured, on a machine without one: parts, what they say, memory that is short."""

import contextlib
import dataclasses

import pytest
from round_machine import ROUND

from seqroof.profiler import gauge
from seqroof.profiler._triton import AVAILABLE
from seqroof.profiler.microbench import STREAM_BLOCKS

torch = pytest.importorskip("torch")

from seqroof.profiler import ceilings_cuda, ceilings_cuda_memory, cuda_events  # noqa: E402  (needs torch)

needs_triton = pytest.mark.skipif(not AVAILABLE, reason="triton is not installed here")

# Enough memory for streams that exceed the last cache, and too little for any product.
SMALL = cuda_events.Facts("cpu", sms=9, cache=2**17, shared_per_sm=2**16, free=2**22, tensor_dtypes=("bf16",))
TWO_ROUNDS = gauge.Effort(rounds=2, round_s=0.0, most_bytes=2**20)


@pytest.fixture
def pretended(monkeypatch):
    """A GPU whose memory is the host's. It has no clock, so every gauge is left out at its first sample."""
    monkeypatch.setattr(ceilings_cuda, "fresh_facts", lambda device: SMALL)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())


@needs_triton
def test_no_round_of_a_gpu_is_told_in_the_words_of_an_earlier_one(pretended):
    """The parent takes a worker that says nothing new for hung, and one request measures all parts."""
    said: list[str] = []
    for part in ceilings_cuda.PARTS:
        part("cpu", TWO_ROUNDS, said.append)
    rounds = [text for text in said if ", round " in text]
    # The last cache, all that is no chain, chains, barriers.
    assert len(rounds) == 4 * TWO_ROUNDS.rounds and len(set(rounds)) == len(rounds)


def no_memory(*arguments, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")


@pytest.mark.parametrize(
    ("free", "dtype", "sizes"),
    [
        (2**37, "tf32", [2048, 4096, 8192]),
        (2**37, "fp8", [2048, 4096, 8192]),
        (5 * 2**30, "fp32", [2048, 4096]),
        (5 * 2**30, "tf32", [2048, 4096]),
        (5 * 2**30, "bf16", [2048, 4096]),
        (2**30, "fp32", [2048]),
        (2**28, "bf16", []),
    ],
)
def test_products_take_a_share_of_the_memory_that_is_free(free, dtype, sizes):
    said: list[str] = []
    facts = dataclasses.replace(SMALL, free=free)
    assert ceilings_cuda.product_sizes(facts, dtype, said.append) == sizes
    left = len(ceilings_cuda.SIMT_SIZES if dtype == "fp32" else ceilings_cuda.TENSOR_SIZES) - len(sizes)
    assert len(said) == left and all("left out: too little memory is free" in text for text in said)


@pytest.mark.parametrize("free_gib", [1, 2, 5, 12, 24, 80, 141])
def test_all_arrays_together_leave_memory_for_the_caches_and_the_libraries(free_gib):
    """Every array of every gauge is alive at once: streams take three of theirs, and half of one in bf16."""
    facts = dataclasses.replace(SMALL, free=free_gib * 2**30, tensor_dtypes=("tf32", "fp16", "bf16", "fp8"))
    taken = 3.5 * ceilings_cuda_memory.stream_bytes(facts)
    for dtype in ceilings_cuda.dtypes_of(facts):
        for size in ceilings_cuda.product_sizes(facts, dtype, lambda text: None):
            taken += ceilings_cuda.PRODUCT_BYTES[dtype] * size**2
    assert taken < 0.75 * facts.free


@pytest.mark.parametrize(
    ("family", "lost"),
    [
        ("dram_streams", {"dram"}),
        ("launch_latencies", {"launch", "launch_waited", "graph"}),
        ("products", {"simt", "tensor"}),
        pytest.param("special", {"special"}, marks=needs_triton),
    ],
)
def test_a_family_that_finds_no_memory_costs_no_other(monkeypatch, family, lost):
    monkeypatch.setattr(ceilings_cuda, "SIMT_SIZES", (8,))  # 8 x 8: their matrices fit into a share of 4 MiB
    monkeypatch.setattr(ceilings_cuda, "TENSOR_SIZES", (8,))
    whole = {gauge.level for gauge in ceilings_cuda._unchained(SMALL, 2**16, lambda text: None)}
    monkeypatch.setattr(ceilings_cuda, family, no_memory)
    said: list[str] = []
    rest = {gauge.level for gauge in ceilings_cuda._unchained(SMALL, 2**16, said.append)}
    assert whole - rest == lost
    assert said and all("left out: too little memory is free" in text for text in said)


@needs_triton
def test_a_sweep_that_finds_no_memory_leaves_all_other_roofs(pretended, monkeypatch):
    monkeypatch.setattr(ceilings_cuda, "sweep", no_memory)
    said: list[str] = []
    found = ceilings_cuda.streams_and_rates("cpu", TWO_ROUNDS, said.append)
    assert "the read of the last cache left out: too little memory is free" in said
    assert {ceiling.quantity for ceiling in found} == {"capacity"} and "ceilings, round 2 of 2" in said


@pytest.mark.parametrize("part", ["under_load", "remeasure"])
def test_later_looks_at_roofs_survive_a_lack_of_memory(pretended, monkeypatch, part):
    for family in ("dram_streams", "cache_reads", "products", "launch_latencies"):
        monkeypatch.setattr(ceilings_cuda, family, no_memory)
    if part == "remeasure":
        assert ceilings_cuda.remeasure("cpu", list(ROUND.ceilings)) == []
    else:
        assert ceilings_cuda.under_load("cpu", dataclasses.replace(TWO_ROUNDS, load_s=1e-3), lambda text: None) == []


@needs_triton
def test_every_pattern_inside_the_cache_is_tried_with_blocks_of_either_size():
    """Which is faster depends on the part; a launch moves so much that its start is less than 1 % at 10 TB/s."""
    facts = dataclasses.replace(SMALL, cache=2**25, free=2**26)  # no room for DRAM streams and products
    gauges = ceilings_cuda._unchained(facts, 2**24, lambda text: None)
    streams = [gauge for gauge in gauges if gauge.level == "cache" and gauge.pattern != "gemv"]
    tried = {(gauge.pattern, gauge.how.split(" of ")[1].split()[0]) for gauge in streams}
    assert tried == {(pattern, str(block)) for pattern in ceilings_cuda_memory.PATTERNS for block in STREAM_BLOCKS}
    assert len(streams) == len(tried) and all(gauge.amount > 0.99 * 2**32 for gauge in streams)
