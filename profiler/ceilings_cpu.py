"""Ceilings of a processor, measured with what torch runs there: its own loops, MKL, oneDNN and the C library.

Units of a CPU in the record: "simt" is the vector units, measured as the best float32 product; "tensor" is whatever
serves products of 16-bit matrices. A CPU may compute 16-bit data in float32, so a 16-bit roof is never below the
float32 one. Bytes are those that the operation names: what a cache reads before it overwrites is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ..roofline.machine import Ceiling
from ..roofline.units import binary_bytes
from . import host
from .ceilings_cpu_gauges import (
    Sizes,
    array_room,
    dram_gauges,
    gemvs,
    latencies,
    matmuls,
    private_reads,
    random_values,
    special,
    streams,
    timed,
)
from .ceilings_cpu_threads import by_threads
from .ceilings_load import burst_and_sustained
from .gauge import RECHECK, Effort, Gauge, best_of, cache_ceilings, geometric, holding, take, with_calibration

# Working sets go up to this much even where nothing is said to be free: a process has that.
LEAST_SWEEP_BYTES = 2**20


def everything(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """All ceilings of the processor, several per place where operations compete."""
    sizes = Sizes.here(effort)
    with torch.inference_mode():
        swept = _sweep(sizes, effort, progress)
        inside = _inside(sizes, swept)
        gauges = [
            *dram_gauges(sizes),
            # In the cache all arrays of an operation must fit together.
            *streams("cache", inside // 3, inside, sizes),
            *gemvs("cache", inside, sizes),
            *matmuls(sizes),
            *special(sizes),
            *latencies(sizes),
            *private_reads(sizes),
        ]
        taken = best_of(with_calibration(take(gauges, effort, progress)))
    return [*_reported(sizes), *swept, *_half_at_least_single(taken)]


def under_load(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Copy and the float32 product in the first moments of a load and after seconds of it."""
    if effort.load_s <= 0:
        return []
    sizes = Sizes.here(effort)
    with torch.inference_mode():
        found = streams("dram", sizes.dram, sizes.dram, sizes) if sizes.dram else []
        copies = [gauge for gauge in found if gauge.pattern == "copy"]
        products = [gauge for gauge in matmuls(sizes) if gauge.dtype == "fp32"]
        return burst_and_sustained([*copies[:1], products[-1]], effort.load_s, progress)


PARTS = (everything, by_threads, under_load)


def remeasure(device: str, ceilings: list[Ceiling]) -> list[Ceiling]:
    """The bandwidths of DRAM, the read of the last cache, products and latencies once more, where they are known."""
    sizes = Sizes.here(RECHECK)
    inside = _inside(sizes, ceilings)
    families: dict[tuple[str, str], Callable[[], list[Gauge]]] = {
        ("bandwidth", "dram"): lambda: dram_gauges(sizes),
        ("bandwidth", "cache"): lambda: [
            g for g in streams("cache", inside // 3, inside, sizes) if g.pattern == "read"
        ],
        # The slow fp16 product cannot raise its roof above the float32 one.
        ("rate", "simt"): lambda: [gauge for gauge in matmuls(sizes) if gauge.dtype != "fp16"],
        ("latency", "launch"): lambda: latencies(sizes),
    }
    known = {(ceiling.quantity, ceiling.level) for ceiling in ceilings}
    with torch.inference_mode():
        gauges = [gauge for family, made in families.items() if family in known for gauge in made()]
        taken = take(holding(gauges, ceilings), RECHECK, lambda text: None)
        return _half_at_least_single(best_of(with_calibration(taken)))


def _inside(sizes: Sizes, known: Iterable[Ceiling]) -> int:
    """Bytes that are well inside the last cache: half of its knee, or of its size where it has shown none."""
    capacity = next((c.value for c in known if (c.quantity, c.level, c.pattern) == ("capacity", "cache", "knee")), None)
    return max(int(min(capacity or sizes.last, sizes.last)) // 2, 2**20)


def _reported(sizes: Sizes) -> list[Ceiling]:
    how = "all last caches as the operating system reports them; on a virtual machine they can be the host's"
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
    most = host.most_array_bytes(effort.most_bytes, sizes.threads)
    last = max(min(8 * sizes.last, most, array_room()), LEAST_SWEEP_BYTES)
    # Three steps are the least that can show a knee, whatever the caches are said to be.
    first = min(2 * sizes.private or 2**20, last // 8)
    working_sets = geometric(first, last, 2**0.5, 4096)
    data = random_values(working_sets[-1] // 4)

    def gauge(size: int) -> Gauge:
        view = data[: size // 4]
        how = f"sum of {binary_bytes(size)} read again and again, {sizes.on}"
        return Gauge("bandwidth", "cache", "B/s", timed(view.sum), how, size, pattern="read")

    taken = take([gauge(size) for size in working_sets], effort, progress, what="sizes of the last cache")
    return cache_ceilings(working_sets, taken, sizes.last, progress)


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
