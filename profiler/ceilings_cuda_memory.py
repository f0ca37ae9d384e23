"""Bandwidth gauges of a GPU: streams through DRAM, streams inside the L2 cache, and the sweep that finds its knee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from ..roofline.machine import Ceiling
from ..roofline.units import binary_bytes
from . import microbench
from ._triton import AVAILABLE
from .cuda_events import TORCH_DTYPES, Facts, launch, random_values, timed
from .gauge import Effort, Gauge, cache_ceilings, geometric, take
from .microbench import STREAM_BLOCKS

# Streams of this size take hundreds of microseconds, against which a launch is lost.
STREAM_BYTES = 2 * 2**30
# Streams must exceed the L2 by so much; the sweep must pass it by so much for the curve to have fallen.
DRAM_CACHES = 4
SWEEP_CACHES = 4
# Of the free memory, for each of the three arrays.
MEMORY_SHARE = 1 / 8
# Programs per SM of a stream; each goes over many blocks.
PROGRAMS_PER_SM = 8
# Inside the cache one launch moves this much in all: at 10 TB/s it takes 0.4 ms, of which starting is less than 1 %.
CACHE_SAMPLE_BYTES = 2**32
# Blocks by which each pass over a cached array moves on: a prime, so that no program meets its blocks again soon.
SHIFT = 7919
# Columns of the matrix of a weight-streaming product: the K of an LSTM of H = 4096 with its input product.
GEMV_COLUMNS = 8192
# Products in one queue whose weights stay in the cache: each takes microseconds, so the queue must dwarf its ends.
CACHE_GEMVS = 20

PATTERNS = ("read", "copy", "write", "triad")
# Arrays that a pattern reads or writes.
MOVED = {"read": 1, "copy": 2, "write": 1, "triad": 3}


def stream_bytes(facts: Facts) -> int:
    """Bytes of each array of a DRAM stream."""
    return min(max(STREAM_BYTES, DRAM_CACHES * facts.cache), int(facts.free * MEMORY_SHARE))


def dram_streams(facts: Facts, patterns: Sequence[str] = PATTERNS) -> list[Gauge]:
    """Streams over arrays far larger than the L2 cache, by torch and by Triton, and a weight-streaming product."""
    size = stream_bytes(facts)
    if size < DRAM_CACHES * facts.cache:
        return []  # so little memory is free that the arrays would stay in the L2 cache, and pass for DRAM
    arrays = [random_values(size // 4, facts.device) for _ in range(3)]
    a, b, c = arrays
    operations = {
        "copy": ("copy_", partial(b.copy_, a)),
        "write": ("fill_", partial(c.fill_, 1.7)),
        "triad": ("add with a factor", partial(torch.add, a, b, alpha=1.3, out=c)),
    }
    gauges = [
        Gauge(
            quantity="bandwidth",
            level="dram",
            unit="B/s",
            sample=timed(call),
            how=f"{name}, {binary_bytes(size)} per array",
            amount=MOVED[pattern] * a.nbytes,
            pattern=pattern,
        )
        for pattern, (name, call) in operations.items()
        if pattern in patterns
    ]
    if "read" in patterns:
        gauges += [_gemv("dram", facts, a, dtype, 3) for dtype in _gemv_dtypes(facts)]
    if AVAILABLE:
        gauges += [_stream("dram", p, block, arrays, size, 1, facts) for p in patterns for block in STREAM_BLOCKS]
    return gauges


def cache_streams(facts: Facts, footprint: int) -> list[Gauge]:
    """Copy, write and triad with all their arrays inside the L2 cache."""
    arrays = [random_values(footprint // 4, facts.device) for _ in range(3)]
    gauges = []
    for pattern in ("copy", "write", "triad"):
        size = footprint // MOVED[pattern]
        passes = max(1, CACHE_SAMPLE_BYTES // footprint)
        gauges += [_stream("cache", pattern, block, arrays, size, passes, facts) for block in STREAM_BLOCKS]
    return gauges


def cache_reads(facts: Facts, footprint: int) -> list[Gauge]:
    """Reads of one array inside the L2 cache by blocks of either size; the sweep takes those of one size."""
    arrays = [random_values(footprint // 4, facts.device)] * 3
    passes = max(1, CACHE_SAMPLE_BYTES // footprint)
    return [_stream("cache", "read", block, arrays, footprint, passes, facts) for block in STREAM_BLOCKS]


def sweep(facts: Facts, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Read bandwidth over rising working sets: the L2's bandwidth, and its capacity where the curve has a knee."""
    step = 4 * max(STREAM_BLOCKS)
    working_sets = geometric(facts.cache / 8, SWEEP_CACHES * facts.cache, 2**0.25, step)
    arrays = [random_values(working_sets[-1] // 4, facts.device)] * 3
    block = min(STREAM_BLOCKS)
    gauges = [
        _stream("cache", "read", block, arrays, size, max(1, CACHE_SAMPLE_BYTES // size), facts)
        for size in working_sets
    ]
    taken = take(gauges, effort, progress, what="sizes of the last cache")
    return cache_ceilings(working_sets, taken, facts.cache, progress)


def _stream(
    level: str, pattern: str, block: int, arrays: list[torch.Tensor], size: int, passes: int, facts: Facts
) -> Gauge:
    """The Triton stream over `size` bytes of each of its arrays, `passes` times in one launch."""
    blocks = size // (4 * block)
    programs = min(facts.sms * PROGRAMS_PER_SM, blocks)
    sums = torch.empty(programs, device=facts.device)
    reads, writes = microbench.STREAMS[pattern]
    arguments = (*arrays, sums, blocks, passes, SHIFT, 1.3)
    options = {"READS": reads, "WRITES": writes, "BLOCK": block, "num_warps": microbench.STREAM_WARPS}
    times = f", {passes} times in one launch, past the first-level cache" if level == "cache" else ""
    return Gauge(
        quantity="bandwidth",
        level=level,
        unit="B/s",
        sample=timed(partial(launch, microbench.stream, programs, *arguments, **options)),
        how=f"Triton {pattern}, {binary_bytes(4 * block * blocks)} per array, blocks of {block} values{times}",
        amount=4 * block * blocks * MOVED[pattern] * passes,
        pattern=pattern,
    )


def cache_gemvs(facts: Facts, footprint: int) -> list[Gauge]:
    """Weight-streaming products whose weights, `footprint` bytes, stay in the L2 cache."""
    gauges = []
    for dtype in _gemv_dtypes(facts):
        values = random_values(footprint // TORCH_DTYPES[dtype].itemsize, facts.device, dtype)
        gauges.append(_gemv("cache", facts, values, dtype, CACHE_GEMVS))
    return gauges


def _gemv_dtypes(facts: Facts) -> tuple[str, ...]:
    return ("fp32", "bf16") if "bf16" in facts.tensor_dtypes else ("fp32",)


def _gemv(level: str, facts: Facts, values: torch.Tensor, dtype: str, repeats: int) -> Gauge:
    """One vector times a matrix made of `values`, the access pattern of a recurrent step at batch 1."""
    rows = values.numel() // GEMV_COLUMNS
    x = random_values(GEMV_COLUMNS, facts.device, dtype)
    weights = values[: rows * GEMV_COLUMNS].view(rows, GEMV_COLUMNS).to(x.dtype)
    sample = timed(partial(torch.mv, weights, x), repeats)
    how = f"torch.mv, {rows} x {GEMV_COLUMNS}"
    return Gauge("bandwidth", level, "B/s", sample, how, weights.nbytes, dtype, "gemv")
