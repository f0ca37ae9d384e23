"""Gauges of a processor: what torch runs there, its own loops, MKL and oneDNN, sampled by the monotonic clock.

Bytes are those that the operation names: what a cache reads before it overwrites is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..roofline.units import binary_bytes
from . import host, host_layout, libc_moves
from .gauge import Effort, Gauge

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
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
# Lengths of the two running sums whose difference is the cost of an addition: both stay in the first-level cache.
SUM_LENGTHS = (512, 4608)
# Either side of a difference is the shortest of five blocks of so many calls: disturbances only add to a time, and one
# that met the smaller side alone would make the difference too small. Five pairs of blocks take about a millisecond.
DIFFERENCE_TRIES, DIFFERENCE_REPEATS = 5, 30


@dataclass(frozen=True)
class Sizes:
    """What the sizes of all arrays follow from: threads, bytes of private and last caches, bytes per DRAM stream.

    dram : 0 where so little memory is free that the arrays would stay in the last cache, and pass for DRAM.
    """

    threads: int
    private: int
    last: int
    dram: int

    @staticmethod
    def here(effort: Effort) -> Sizes:
        """Read from the host: reported caches, free memory."""
        caches = host.caches()
        threads, last, room = torch.get_num_threads(), caches["last"], array_room()
        dram = min(DRAM_CACHES * last, host.most_array_bytes(effort.most_bytes, threads), room) if room > last else 0
        return Sizes(threads, caches["private"] * threads, last, dram)

    @property
    def shortfall(self) -> str:
        """A remark for DRAM streams that had to stay below four times the last cache; empty where they did not."""
        times = self.dram / self.last
        return "" if times >= DRAM_CACHES else f", only {times:.1f} times the reported last cache"

    @property
    def on(self) -> str:
        """The threads in words."""
        return f"{self.threads} thread" + ("s" if self.threads > 1 else "")


def array_room() -> int:
    """Bytes that one array may take of the memory that is free now."""
    return int(host.available_memory_bytes() * MEMORY_SHARE)


def seconds_per_call(call: Callable[[], object], repeats: int = 1) -> float:
    """Time a block of calls with the monotonic clock."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) * 1e-9 / repeats


def timed(call: Callable[[], object], repeats: int = 1) -> Callable[[], float]:
    """A sample that times a block of calls."""
    return lambda: seconds_per_call(call, repeats)


def difference(more: Callable[[], object], less: Callable[[], object], repeats: int = DIFFERENCE_REPEATS) -> float:
    """Seconds by which one call takes longer than another, the two being timed in turn."""
    pairs = [[seconds_per_call(call, repeats) for call in (more, less)] for _ in range(DIFFERENCE_TRIES)]
    return min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs)


def random_values(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`count` normal numbers: one random block of a million, repeated, as drawing them is slow."""
    block = torch.randn(min(count, 2**20)).to(dtype)
    return block.repeat(-(-count // block.numel()))[:count].contiguous()


def streams(level: str, size: int, footprint: int, sizes: Sizes) -> list[Gauge]:
    """Read, copy, write and triad over arrays of `size` bytes; those that read one array take `footprint` bytes."""
    whole = random_values(footprint // 4)
    a = whole[: size // 4]
    b, c = random_values(size // 4), torch.empty(size // 4)
    operations = [
        ("read", whole.nbytes, "sum", whole.sum),
        ("read", whole.nbytes, "max", whole.max),
        ("copy", 2 * a.nbytes, "copy_", lambda: b.copy_(a)),
        ("write", c.nbytes, "fill_", lambda: c.fill_(1.7)),
        ("triad", 3 * a.nbytes, "add with a factor", lambda: torch.add(a, b, alpha=1.3, out=c)),
    ]
    if level == "dram":
        operations += [
            ("copy", 2 * a.nbytes, "memmove", libc_moves.copying(b, a, sizes.threads)),
            ("write", c.nbytes, "memset", libc_moves.filling(c, sizes.threads)),
        ]
    where = f"{sizes.on}{sizes.shortfall if level == 'dram' else ''}"
    arrays = {"copy": 2, "triad": 3}
    return [
        Gauge(
            quantity="bandwidth",
            level=level,
            unit="B/s",
            sample=timed(call),
            how=f"{name}, {binary_bytes(moved // arrays.get(pattern, 1))} per array, {where}",
            amount=moved,
            pattern=pattern,
        )
        for pattern, moved, name, call in operations
    ]


def dram_gauges(sizes: Sizes) -> list[Gauge]:
    """Streams and weight-streaming products over arrays beyond the last cache; none where memory is too short."""
    if not sizes.dram:
        return []
    return [*streams("dram", sizes.dram, sizes.dram, sizes), *gemvs("dram", sizes.dram, sizes)]


def gemvs(level: str, size: int, sizes: Sizes) -> list[Gauge]:
    """Products of one vector with weights of `size` bytes, the access pattern of a recurrent step at batch 1."""
    gauges = []
    for dtype in ("fp32", "bf16"):
        torch_dtype = DTYPES[dtype]
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


def matmuls(sizes: Sizes) -> list[Gauge]:
    """Products of square matrices by dtype and size."""
    square = [size for size in MATMUL_SIZES if 2 * size**3 <= MATMUL_FLOPS_PER_THREAD * sizes.threads]
    return [
        gauge
        for dtype in DTYPES
        for size in (square if dtype != "fp16" else (SLOW_MATMUL_SIZE,))
        for gauge in square_products(dtype, size, sizes)
    ]


def square_products(dtype: str, size: int, sizes: Sizes) -> list[Gauge]:
    """One product of square matrices, through torch.mm and through oneDNN."""
    a, b = (random_values(size * size, DTYPES[dtype]).view(size, size) for _ in range(2))
    bias = random_values(size, DTYPES[dtype])
    calls: list[tuple[str, Callable[[], object]]] = [("torch.mm", partial(torch.mm, a, b))]
    if _has_onednn(dtype):
        calls.append(("oneDNN linear", partial(_onednn_linear, a, b, bias)))
    level = "simt" if dtype == "fp32" else "tensor"
    on = f"{size} x {size}, {sizes.on}; {host_layout.units().serving(dtype)}"
    return [Gauge("rate", level, "FLOP/s", timed(call), f"{name} of {on}", 2 * size**3, dtype) for name, call in calls]


def special(sizes: Sizes) -> list[Gauge]:
    """Elementwise functions on arrays that stay in the caches; the fastest is the roof."""
    gauges = []
    count = SPECIAL_ELEMENTS * sizes.threads
    for dtype in ("fp32", "bf16"):
        x = random_values(count, DTYPES[dtype])
        out = torch.empty_like(x)
        for function in (torch.exp, torch.exp2, torch.tanh, torch.sigmoid):
            how = f"{function.__name__} of {count} {dtype} values, {sizes.on}"
            gauges.append(Gauge("rate", "special", "op/s", timed(partial(function, x, out=out)), how, count))
    return gauges


def latencies(sizes: Sizes) -> list[Gauge]:
    """One dispatched operation, one round trip to the thread pool, one dependent step inside compiled code.

    Such a step is a small product with its functions, or the least that there is: an addition.
    """
    one = torch.randn(1)
    alone, together = random_values(GRAIN - 1), random_values(GRAIN * sizes.threads)
    gauges = [
        Gauge("latency", "launch", "s", timed(one.neg_, TINY_REPEATS), "neg_ of one value, in a chain"),
        Gauge(
            "latency", "inside", "s", _recurrence(), f"a step of nn.LSTM, H = {CHAIN_HIDDEN}, B = 1", difference=True
        ),
    ]
    how = "an addition of torch.cumsum, which waits for the one before"
    gauges.append(Gauge("latency", "pointwise", "s", _running_sum(), how, difference=True))
    if sizes.threads > 1:
        # Each thread of the larger operation does what the smaller one does alone; the rest is the round trip. Where
        # noise makes the difference negative, the round counts for nothing.
        def round_trip() -> float:
            return difference(together.neg_, alone.neg_)

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
            more = difference(lambda: layer(long), lambda: layer(short), repeats=1)
        return more / (CHAIN_LENGTHS[1] - CHAIN_LENGTHS[0])

    return sample


def _running_sum() -> Callable[[], float]:
    """Seconds per addition of a running sum, which has no faster order. Additions are the fastest of what can wait."""
    short, long = (random_values(length) for length in SUM_LENGTHS)
    out = [torch.empty_like(values) for values in (short, long)]
    sums = [partial(torch.cumsum, values, 0, out=target) for values, target in zip((short, long), out)]

    def sample() -> float:
        return difference(sums[1], sums[0]) / (SUM_LENGTHS[1] - SUM_LENGTHS[0])

    return sample


def private_reads(sizes: Sizes) -> list[Gauge]:
    """Read bandwidth of the private caches, listed for information: the difference of two working sets inside them."""
    if not sizes.private:
        return []
    data = random_values(sizes.private // 4)
    small, large = data[: data.numel() // 4], data[: data.numel() * 3 // 4]

    def sample() -> float:
        return difference(large.sum, small.sum, repeats=1)

    how = f"sum of {binary_bytes(large.nbytes)} less sum of {binary_bytes(small.nbytes)}, {sizes.on}"
    return [
        Gauge("bandwidth", "private", "B/s", sample, how, large.nbytes - small.nbytes, pattern="read", difference=True)
    ]
