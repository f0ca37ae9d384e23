"""Ceilings of a processor, measured with what torch runs there: its own loops, MKL and oneDNN.

Units of a CPU in the record: "simt" is the vector units, measured as the best float32 product; "tensor" is whatever
serves products of 16-bit matrices. A CPU may compute 16-bit data in float32, so a 16-bit roof is never below the
float32 one. Bytes are those that the operation names: what a cache reads before it overwrites is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..roofline.machine import Ceiling
from ..roofline.units import binary_bytes
from . import host
from .gauge import RECHECK, Effort, Gauge, best_of, cache_ceilings, geometric, take

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Streams of this many times the last cache leave at most a quarter of their bytes there.
DRAM_CACHES = 4
# Of the memory that is free, so that three arrays leave most of it alone.
MEMORY_SHARE = 1 / 8
# torch splits an elementwise operation over its threads from this many elements on (at::internal::GRAIN_SIZE).
GRAIN = 32768
# Columns of the matrix of a weight-streaming product: the K of an LSTM of H = 2048 with its input product.
GEMV_COLUMNS = 4096
# 1 MiB in and 1 MiB out per thread: stays in the caches, and dwarfs the cost of starting the operation.
SPECIAL_ELEMENTS = 2**18
# Square products, those of at most so many operations per thread: a tenth of a second on a slow core.
MATMUL_SIZES = (512, 1024, 2048, 4096)
MATMUL_FLOPS_PER_THREAD = 2.2e9
# fp16 products run on a slow path of many CPUs (1 GFLOP/s); 256 keeps a sample under 50 ms there.
SLOW_MATMUL_SIZE = 256
# Operations of less than a microsecond are timed in a block, far above the clock's resolution.
TINY_REPEATS = 300
# Lengths of the two recurrences whose difference is the cost of a step, and the size of their state.
CHAIN_LENGTHS = (64, 576)
CHAIN_HIDDEN = 8


@dataclass(frozen=True)
class Sizes:
    """What the sizes of all arrays follow from: threads, bytes of private and last cache, bytes per DRAM stream."""

    threads: int
    private: int
    last: int
    dram: int

    @staticmethod
    def here(effort: Effort) -> Sizes:
        """Read from the host: reported caches, free memory."""
        caches = host.caches()
        threads = torch.get_num_threads()
        most = min(effort.most_bytes, int(host.available_memory_bytes() * MEMORY_SHARE))
        return Sizes(threads, caches["private"] * threads, caches["last"], min(DRAM_CACHES * caches["last"], most))

    @property
    def shortfall(self) -> str:
        """A remark for DRAM streams that had to stay below four times the last cache; empty where they did not."""
        times = self.dram / self.last
        return "" if times >= DRAM_CACHES else f", only {times:.1f} times the reported last cache"

    @property
    def on(self) -> str:
        """The threads in words."""
        return f"{self.threads} thread" + ("s" if self.threads > 1 else "")


def everything(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """All ceilings of the processor, several per place where operations compete."""
    sizes = Sizes.here(effort)
    with torch.inference_mode():
        swept = _sweep(sizes, effort, progress)
        capacity = next((c.value for c in swept if c.quantity == "capacity"), sizes.last)
        inside = max(int(min(capacity, sizes.last)) // 2, 2**20)
        gauges = [
            *_streams("dram", sizes.dram, sizes.dram, sizes),
            *_gemvs("dram", sizes.dram, sizes),
            # In the cache all arrays of an operation must fit together.
            *_streams("cache", inside // 3, inside, sizes),
            *_gemvs("cache", inside, sizes),
            *_matmuls(sizes),
            *_special(sizes),
            *_latencies(sizes),
            *_private(sizes),
        ]
        taken = best_of(take(gauges, effort, progress))
    return [*_reported(sizes), *swept, *_half_at_least_single(taken)]


PARTS = (everything,)


def remeasure(device: str, ceilings: list[Ceiling]) -> list[Ceiling]:
    """DRAM read and copy and the products of matrices, once more."""
    sizes = Sizes.here(RECHECK)
    with torch.inference_mode():
        streams = _streams("dram", sizes.dram, sizes.dram, sizes)
        streams = [gauge for gauge in streams if gauge.pattern in ("read", "copy")]
        # The slow fp16 product cannot raise its roof above the float32 one.
        products = [gauge for gauge in _matmuls(sizes) if gauge.dtype != "fp16"]
        return _half_at_least_single(best_of(take([*streams, *products], RECHECK, lambda text: None)))


def seconds_per_call(call: Callable[[], object], repeats: int = 1) -> float:
    """Time a block of calls with the monotonic clock."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) * 1e-9 / repeats


def timed(call: Callable[[], object], repeats: int = 1) -> Callable[[], float]:
    """A sample that times a block of calls."""
    return lambda: seconds_per_call(call, repeats)


def random_values(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`count` normal numbers: one random block of a million, repeated, as drawing them is slow."""
    block = torch.randn(min(count, 2**20)).to(dtype)
    return block.repeat(-(-count // block.numel()))[:count].contiguous()


def _reported(sizes: Sizes) -> list[Ceiling]:
    how = "as the operating system reports it; on a virtual machine it can be the host's"
    found = [("cache", sizes.last, how)]
    if sizes.private:
        found.append(("private", sizes.private, f"largest private cache of a core as reported, times {sizes.on}"))
    return [
        Ceiling(
            quantity="capacity", level=level, pattern="reported", value=value, unit="B", provenance="derived", how=how
        )
        for level, value, how in found
    ]


def _sweep(sizes: Sizes, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Read bandwidth over rising working sets: the cache's bandwidth, and its capacity where the curve has a knee."""
    last = min(8 * sizes.last, effort.most_bytes, int(MEMORY_SHARE * host.available_memory_bytes()))
    # Three steps are the least that can show a knee, whatever the caches are said to be.
    first = min(2 * sizes.private or 2**20, last // 8)
    working_sets = geometric(first, last, 2**0.5, 4096)
    data = random_values(working_sets[-1] // 4)

    def gauge(size: int) -> Gauge:
        view = data[: size // 4]
        how = f"sum of {binary_bytes(size)} read again and again, {sizes.on}"
        return Gauge("bandwidth", "cache", "B/s", timed(view.sum), how, size, pattern="read")

    taken = take([gauge(size) for size in working_sets], effort, progress)
    return cache_ceilings(working_sets, taken, sizes.last, progress)


def _streams(level: str, size: int, footprint: int, sizes: Sizes) -> list[Gauge]:
    """Read, copy, write and triad over arrays of `size` bytes; those that read one array take `footprint` bytes."""
    whole = random_values(footprint // 4)
    a = whole[: size // 4]
    b, c = random_values(size // 4), torch.empty(size // 4)
    operations = (
        ("read", whole.nbytes, "sum", whole.sum),
        ("read", whole.nbytes, "max", whole.max),
        ("copy", 2 * a.nbytes, "copy_", lambda: b.copy_(a)),
        ("write", c.nbytes, "fill_", lambda: c.fill_(1.7)),
        ("triad", 3 * a.nbytes, "add with a factor", lambda: torch.add(a, b, alpha=1.3, out=c)),
    )
    where = f"{binary_bytes(size)} per array, {sizes.on}{sizes.shortfall if level == 'dram' else ''}"
    return [
        Gauge("bandwidth", level, "B/s", timed(call), f"{name}, {where}", moved, pattern=pattern)
        for pattern, moved, name, call in operations
    ]


def _gemvs(level: str, size: int, sizes: Sizes) -> list[Gauge]:
    """Products of one vector with weights of `size` bytes, the access pattern of a recurrent step at batch 1."""
    gauges = []
    for dtype in ("fp32", "bf16"):
        torch_dtype = _DTYPES[dtype]
        rows = size // (GEMV_COLUMNS * torch_dtype.itemsize)
        weights = random_values(rows * GEMV_COLUMNS, torch_dtype).view(rows, GEMV_COLUMNS)
        x, bias = random_values(GEMV_COLUMNS, torch_dtype), random_values(rows, torch_dtype)
        calls: list[tuple[str, Callable[[], object]]] = [("torch.mv", partial(torch.mv, weights, x))]
        if _has_onednn(dtype):
            calls.append(("oneDNN linear of one row", partial(_onednn_linear, x[None], weights, bias)))
        for name, call in calls:
            how = f"{name}, {rows} x {GEMV_COLUMNS}, {sizes.on}"
            gauges.append(Gauge("bandwidth", level, "B/s", timed(call), how, weights.nbytes, dtype, "gemv"))
    return gauges


def _has_onednn(dtype: str) -> bool:
    """Whether this build of torch has oneDNN's linear and this processor its kernels for a dtype."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    supported = {"bf16": "_is_mkldnn_bf16_supported", "fp16": "_is_mkldnn_fp16_supported"}
    return dtype not in supported or bool(getattr(torch.ops.mkldnn, supported[dtype])())


def _onednn_linear(x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weights, bias, "none", [], "")


def _matmuls(sizes: Sizes) -> list[Gauge]:
    """Products of square matrices by dtype, through torch.mm and through oneDNN."""
    gauges = []
    square = [size for size in MATMUL_SIZES if 2 * size**3 <= MATMUL_FLOPS_PER_THREAD * sizes.threads]
    for dtype, torch_dtype in _DTYPES.items():
        for size in square if dtype != "fp16" else (SLOW_MATMUL_SIZE,):
            a, b = (random_values(size * size, torch_dtype).view(size, size) for _ in range(2))
            bias = random_values(size, torch_dtype)
            calls: list[tuple[str, Callable[[], object]]] = [("torch.mm", partial(torch.mm, a, b))]
            if _has_onednn(dtype):
                calls.append(("oneDNN linear", partial(_onednn_linear, a, b, bias)))
            level = "simt" if dtype == "fp32" else "tensor"
            for name, call in calls:
                how = f"{name} of {size} x {size}, {sizes.on}"
                gauges.append(Gauge("rate", level, "FLOP/s", timed(call), how, 2 * size**3, dtype))
    return gauges


def _half_at_least_single(ceilings: list[Ceiling]) -> list[Ceiling]:
    """Raise 16-bit rates to the float32 one, since 16-bit data may be computed in float32."""
    single = next((c for c in ceilings if c.quantity == "rate" and c.level == "simt" and c.dtype == "fp32"), None)
    if single is None:
        return ceilings
    kept = []
    for ceiling in ceilings:
        if ceiling.quantity == "rate" and ceiling.level == "tensor" and ceiling.value < single.value:
            how = f"float32 rate, as 16-bit data may be computed in it ({single.how}); {ceiling.dtype} itself is slower"
            ceiling = single.model_copy(update={"level": "tensor", "dtype": ceiling.dtype, "how": how})
        kept.append(ceiling)
    return kept


def _special(sizes: Sizes) -> list[Gauge]:
    """Elementwise functions on arrays that stay in the caches; the fastest is the roof."""
    gauges = []
    count = SPECIAL_ELEMENTS * sizes.threads
    for dtype in ("fp32", "bf16"):
        x = random_values(count, _DTYPES[dtype])
        out = torch.empty_like(x)
        for function in (torch.exp, torch.exp2, torch.tanh, torch.sigmoid):
            how = f"{function.__name__} of {count} {dtype} values, {sizes.on}"
            gauges.append(Gauge("rate", "special", "op/s", timed(partial(function, x, out=out)), how, count))
    return gauges


def _latencies(sizes: Sizes) -> list[Gauge]:
    """One dispatched operation, one round trip to the thread pool, one dependent step inside compiled code."""
    one = torch.randn(1)
    alone, together = random_values(GRAIN - 1), random_values(GRAIN * sizes.threads)
    gauges = [
        Gauge("latency", "launch", "s", timed(one.neg_, TINY_REPEATS), "neg_ of one value, in a chain"),
        Gauge(
            "latency", "inside", "s", _recurrence(), f"a step of nn.LSTM, H = {CHAIN_HIDDEN}, B = 1", difference=True
        ),
    ]
    if sizes.threads > 1:
        # Each thread of the larger operation does what the smaller one does alone; the rest is the round trip. Where
        # noise makes the difference negative, the round counts for nothing.
        def round_trip() -> float:
            return seconds_per_call(together.neg_, TINY_REPEATS) - seconds_per_call(alone.neg_, TINY_REPEATS)

        how = f"neg_ of {GRAIN} values in each of {sizes.on}, less the same in one thread"
        gauges.append(Gauge("latency", "barrier", "s", round_trip, how, difference=True))
    return gauges


def _recurrence() -> Callable[[], float]:
    """Seconds per step of a small recurrence. Gradients stay on: torch hands it to oneDNN only then."""
    with torch.inference_mode(False), torch.enable_grad():
        layer = torch.nn.LSTM(CHAIN_HIDDEN, CHAIN_HIDDEN)
        short, long = (torch.randn(length, 1, CHAIN_HIDDEN) for length in CHAIN_LENGTHS)

    def sample() -> float:
        with torch.inference_mode(False), torch.enable_grad():
            more = seconds_per_call(lambda: layer(long)) - seconds_per_call(lambda: layer(short))
        return more / (CHAIN_LENGTHS[1] - CHAIN_LENGTHS[0])

    return sample


def _private(sizes: Sizes) -> list[Gauge]:
    """Read bandwidth of the private caches, listed for information: the difference of two working sets inside them."""
    if not sizes.private:
        return []
    data = random_values(sizes.private // 4)
    small, large = data[: data.numel() // 4], data[: data.numel() * 3 // 4]

    def sample() -> float:
        return seconds_per_call(large.sum) - seconds_per_call(small.sum)

    how = f"sum of {binary_bytes(large.nbytes)} less sum of {binary_bytes(small.nbytes)}, {sizes.on}"
    return [
        Gauge("bandwidth", "private", "B/s", sample, how, large.nbytes - small.nbytes, pattern="read", difference=True)
    ]
