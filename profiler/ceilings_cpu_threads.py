"""What fewer threads of a processor reach: copy bandwidth, rate of products and thread-pool round trip by their number.

They show where a limit of the whole processor comes from: a memory that one core cannot fill, or cores that add up.
Floors use the limits of all threads; these rows carry their number in `scope` and are information.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..roofline.machine import Ceiling
from ..roofline.units import binary_bytes
from .ceilings_cpu_gauges import (
    DTYPES,
    GRAIN,
    MATMUL_FLOPS_PER_THREAD,
    MATMUL_SIZES,
    Sizes,
    difference,
    random_values,
    seconds_per_call,
)
from .gauge import Effort, Gauge, best_of, take

# These rows are information, so two rounds of one sample each have to do in the quick effort, six in the full one.
ROUNDS = {"quick": 2, "full": 6}


def by_threads(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Ceilings of 1, 2, 4, ... threads, fewer than all; the limits of all threads are measured elsewhere."""
    sizes = Sizes.here(effort)
    brief = Effort(min(effort.rounds, ROUNDS["full" if effort.load_s > 1 else "quick"]), 0.0, effort.most_bytes)
    with torch.inference_mode():
        # One pair of arrays for all numbers of threads: each may be as large as memory allows.
        source = random_values(max(sizes.dram // 4, 1))
        target = torch.empty_like(source)
        gauges = [gauge for count in thread_counts(sizes.threads) for gauge in _of(count, sizes, source, target)]
        return best_of(take(gauges, brief, progress, what="fewer threads"))


def thread_counts(threads: int) -> list[int]:
    """Powers of two below the number of all threads."""
    return [1 << power for power in range(threads.bit_length()) if 1 << power < threads]


def limited(count: int, measured: Callable[[], float]) -> Callable[[], float]:
    """A sample under `count` threads; all are given back. The pool is rebuilt by a call that is not timed."""

    def sample() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            measured()
            return measured()
        finally:
            torch.set_num_threads(before)

    return sample


def _of(count: int, sizes: Sizes, source: torch.Tensor, target: torch.Tensor) -> list[Gauge]:
    scope = f"threads={count}"
    on = f"{count} of {sizes.on}"
    copies = [_copy(count, scope, on, source, target)] if sizes.dram else []
    return [*copies, _product(count, scope, on), *_round_trip(count, scope, on)]


def _copy(count: int, scope: str, on: str, source: torch.Tensor, target: torch.Tensor) -> Gauge:
    sample = limited(count, lambda: seconds_per_call(lambda: target.copy_(source)))
    how = f"copy_, {binary_bytes(source.nbytes)} per array, {on}"
    moved = source.nbytes + target.nbytes
    return Gauge("bandwidth", "dram", "B/s", sample, how, moved, pattern="copy", scope=scope)


def _product(count: int, scope: str, on: str) -> Gauge:
    size = max(size for size in MATMUL_SIZES if 2 * size**3 <= MATMUL_FLOPS_PER_THREAD * count)
    a, b = (random_values(size * size, DTYPES["fp32"]).view(size, size) for _ in range(2))
    sample = limited(count, lambda: seconds_per_call(lambda: torch.mm(a, b)))
    how = f"torch.mm of {size} x {size}, {on}"
    return Gauge("rate", "simt", "FLOP/s", sample, how, 2 * size**3, "fp32", scope=scope)


def _round_trip(count: int, scope: str, on: str) -> list[Gauge]:
    if count == 1:
        return []
    alone, together = random_values(GRAIN - 1), random_values(GRAIN * count)

    def round_trip() -> float:
        return difference(together.neg_, alone.neg_)

    how = f"neg_ of {GRAIN} values in each of {on}, less the same in one thread"
    return [Gauge("latency", "barrier", "s", limited(count, round_trip), how, difference=True, scope=scope)]
