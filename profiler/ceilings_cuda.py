"""Ceilings of an NVIDIA GPU, measured with Triton micro-kernels and with torch's own operations.

Float32 is measured with TF32 off, on the vector units; TF32 is a rate of the tensor cores. Torch's switch is put back
after every sample, and no setting of the device is changed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from ..roofline.machine import Ceiling
from . import microbench
from ._triton import AVAILABLE
from .ceilings_cuda_chain import barrier_latencies, inside_latencies, launch_latencies
from .ceilings_cuda_memory import cache_gemvs, cache_reads, cache_streams, dram_streams, sweep
from .ceilings_load import burst_and_sustained
from .cuda_events import REGISTER_BYTES_PER_SM, Facts, event_seconds, launch, random_values, timed
from .driver_figures import driver_ceilings
from .gauge import RECHECK, Effort, Gauge, best_of, holding, take, with_calibration

# Sizes of square products. Vector units are busy at 4096; the tensor cores of a large part need 8192.
SIMT_SIZES = (2048, 4096)
TENSOR_SIZES = (2048, 4096, 8192)
# Of the free memory, for the matrices of one product. Those of five dtypes and three sizes exist at the same time, a
# third of the memory in all, beside streams that take nearly half of it.
PRODUCT_SHARE = 1 / 16
# Bytes per element of a product's three matrices. fp8: two are drawn in fp32, one after the other, the result is bf16.
PRODUCT_BYTES = {"fp32": 3 * 4, "tf32": 3 * 4, "fp16": 3 * 2, "bf16": 3 * 2, "fp8": 4 + 1 + 1 + 2}
SHORT_MEMORY = "too little memory is free"
# Vector units and tensor cores draw power differently, so both are held under load.
LOADED_DTYPES = ("fp32", "bf16")
# 4096 exponentials in each lane of eight programs per SM: hundreds of microseconds, against which a launch is lost.
SPECIAL_STEPS = 4096
SPECIAL_PROGRAMS_PER_SM = 8


def streams_and_rates(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Bandwidths, rates, capacities and the latencies of launches; several per place where operations compete."""
    facts = fresh_facts(device)
    with torch.inference_mode(), torch.cuda.device(device):
        swept: list[Ceiling] = []
        if AVAILABLE:
            swept = where_it_fits("the read of the last cache", partial(sweep, facts, effort, progress), progress)
        else:
            progress("without triton there is no cache bandwidth, no special functions, no barrier and no chip latency")
        taken = with_calibration(take(_unchained(facts, _inside(facts, swept), progress), effort, progress))
    torch.cuda.empty_cache()
    if facts.mig:
        progress("this is a MIG slice: everything is measured on the slice, and figures of the whole GPU do not count")
    return [*capacities(facts), *driver_ceilings(facts), *swept, *best_of(taken)]


def _unchained(facts: Facts, inside: int, progress: Callable[[str], None]) -> list[Gauge]:
    """The gauges of streams, rates and launches; a family whose arrays find no memory is left out.

    inside : bytes that are well inside the L2 cache.
    """
    families: dict[str, Callable[[], list[Gauge]]] = {
        "bandwidth of DRAM": lambda: dram_streams(facts),
        "products of one vector in the last cache": lambda: cache_gemvs(facts, inside),
        "launches": lambda: launch_latencies(facts),
    }
    if AVAILABLE:
        families["bandwidth of the last cache"] = lambda: [*cache_streams(facts, inside), *cache_reads(facts, inside)]
        families["special functions"] = lambda: [special(facts)]
    found = [gauge for name, made in families.items() for gauge in where_it_fits(name, made, progress)]
    return [*found, *matmuls(facts, dtypes_of(facts), progress)]


def where_it_fits(name: str, made: Callable[[], list[Any]], progress: Callable[[str], None]) -> list[Any]:
    """What is made; nothing, and a sentence, where its arrays find no memory: that must not cost the others."""
    try:
        return made()
    except torch.OutOfMemoryError:
        progress(f"{name} left out: {SHORT_MEMORY}")
        return []


def chains(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Latencies of dependent steps of one program."""
    return _latencies("chains of steps", inside_latencies, device, effort, progress)


def barriers(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Latencies of steps that all programs of a launch wait for, which may hang, so this comes last and by itself."""
    return _latencies("barriers", barrier_latencies, device, effort, progress)


def _latencies(
    what: str,
    gauges: Callable[[Facts], list[Gauge]],
    device: str,
    effort: Effort,
    progress: Callable[[str], None],
) -> list[Ceiling]:
    facts = fresh_facts(device)
    with torch.inference_mode(), torch.cuda.device(device):
        return best_of(take(gauges(facts), effort, progress, what=what)) if AVAILABLE else []


def under_load(device: str, effort: Effort, progress: Callable[[str], None]) -> list[Ceiling]:
    """Copy and the fastest products in the first moments of a load and after seconds of it."""
    if effort.load_s <= 0:
        return []
    facts = fresh_facts(device)
    with torch.inference_mode(), torch.cuda.device(device):
        copies = where_it_fits("copy under load", lambda: dram_streams(facts, ("copy",)), progress)[:1]
        loaded = [dtype for dtype in LOADED_DTYPES if dtype in dtypes_of(facts)]
        # Of the two layouts of a product the last one stands for both.
        fastest = {gauge.dtype: gauge for gauge in matmuls(facts, loaded, progress, largest_only=True)}
        found = burst_and_sustained([*copies, *fastest.values()], effort.load_s, progress)
    torch.cuda.empty_cache()
    return found


# A death ends all later parts, so what floors need precedes what is only information, and what may hang comes last.
PARTS = (streams_and_rates, chains, under_load, barriers)


def fresh_facts(device: str) -> Facts:
    """Facts of a device after torch has given back what it only caches, which else counts as taken."""
    gc.collect()  # dropped CUDA graphs hold memory pools
    torch.cuda.empty_cache()
    return Facts.here(device)


def remeasure(device: str, ceilings: list[Ceiling]) -> list[Ceiling]:
    """The bandwidths of DRAM, the read of the L2 cache, products and latencies once more, where they are known.

    All but the barrier, which could hang a device that has gone well so far.
    """
    facts = fresh_facts(device)
    inside = _inside(facts, ceilings)

    def silent(text: str) -> None:
        """Say nothing: what is left out now was measured before."""

    families: dict[tuple[str, str], Callable[[], list[Gauge]]] = {
        ("bandwidth", "dram"): lambda: dram_streams(facts),
        ("bandwidth", "cache"): lambda: cache_reads(facts, inside) if AVAILABLE else [],
        ("rate", "simt"): lambda: matmuls(facts, dtypes_of(facts), silent),
        ("latency", "launch"): lambda: [*launch_latencies(facts), *(inside_latencies(facts) if AVAILABLE else [])],
    }
    known = {(ceiling.quantity, ceiling.level) for ceiling in ceilings}
    wanted = [made for family, made in families.items() if family in known]
    with torch.inference_mode(), torch.cuda.device(device):
        gauges = [gauge for made in wanted for gauge in where_it_fits("", made, silent)]
        again = best_of(with_calibration(take(holding(gauges, ceilings), RECHECK, silent)))
        del gauges
    torch.cuda.empty_cache()
    return again


def _inside(facts: Facts, known: Iterable[Ceiling]) -> int:
    """Bytes that are well inside the L2 cache: half of its knee, or of its size where it has shown none."""
    found = (c.value for c in known if (c.quantity, c.level, c.pattern) == ("capacity", "cache", "knee"))
    return int(next(found, facts.cache)) // 2


def capacities(facts: Facts) -> list[Ceiling]:
    """L2 as the driver reports it, and on-chip memory by arithmetic."""
    how = f"{facts.sms} SMs x ({facts.shared_per_sm // 1024} KB shared + {REGISTER_BYTES_PER_SM // 1024} KB registers)"
    found = (("cache", facts.cache, "L2 size as the driver reports it"), ("chip", facts.chip_bytes, how))
    return [
        Ceiling(
            quantity="capacity", level=level, pattern="reported", value=value, unit="B", provenance="derived", how=how
        )
        for level, value, how in found
    ]


def dtypes_of(facts: Facts) -> tuple[str, ...]:
    """What a GPU multiplies: float32 on the vector units, the others on the tensor cores."""
    return ("fp32", *facts.tensor_dtypes)


def matmuls(
    facts: Facts, dtypes: Iterable[str], progress: Callable[[str], None], largest_only: bool = False
) -> list[Gauge]:
    """Products of square matrices in some of the GPU's dtypes, of all sizes that fit into the memory that is free."""
    gauges = []
    for dtype in dtypes:
        fitting = product_sizes(facts, dtype, progress)
        for size in fitting[-1:] if largest_only else fitting:
            gauges += where_it_fits(_product_name(dtype, size), partial(products, facts, dtype, size), progress)
    return gauges


def _product_name(dtype: str, size: int) -> str:
    return f"{dtype} product of {size} x {size}"


def product_sizes(facts: Facts, dtype: str, progress: Callable[[str], None]) -> list[int]:
    """The sizes of which a product's matrices stay within `PRODUCT_SHARE`; says which ones do not."""
    sizes = SIMT_SIZES if dtype == "fp32" else TENSOR_SIZES
    fitting = [size for size in sizes if PRODUCT_BYTES[dtype] * size**2 <= PRODUCT_SHARE * facts.free]
    for size in sizes[len(fitting) :]:
        progress(f"{_product_name(dtype, size)} left out: {SHORT_MEMORY}")
    return fitting


def products(facts: Facts, dtype: str, size: int) -> list[Gauge]:
    """One product of square matrices, as it is and with its second matrix transposed, for which libraries differ."""
    if dtype == "fp8":
        return [_eight_bit_product(facts, size)]
    a, b = (random_values(size * size, facts.device, dtype).view(size, size) for _ in range(2))
    out = torch.empty_like(a)
    level = "simt" if dtype == "fp32" else "tensor"
    gauges = []
    for name, right in (("", b), (" transposed", b.t())):
        how = f"torch.mm of {size} x {size}{name}" + (", TF32 off" if dtype == "fp32" else "")
        sample = _product(a, right, out, dtype == "tf32")
        gauges.append(Gauge("rate", level, "FLOP/s", sample, how, 2 * size**3, dtype))
    return gauges


def _eight_bit_product(facts: Facts, size: int) -> Gauge:
    """A product of 8-bit floats; its second matrix has to be stored by columns."""
    a, b = (random_values(size * size, facts.device).to(torch.float8_e4m3fn).view(size, size) for _ in range(2))
    one, product = torch.ones((), device=facts.device), torch.ops.aten._scaled_mm
    options = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16, "use_fast_accum": True}
    how = f"torch._scaled_mm of {size} x {size}, e4m3, fast accumulation"
    return Gauge("rate", "tensor", "FLOP/s", timed(lambda: product(a, b.t(), **options)), how, 2 * size**3, "fp8")


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, tf32: bool) -> Callable[[], float]:
    """A sample of one product with the TF32 switch as asked, put back afterwards."""

    def sample() -> float:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            return event_seconds(lambda: torch.mm(a, b, out=out), 3)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return sample


def special(facts: Facts) -> Gauge:
    """Base-2 exponentials in registers, many independent ones per thread."""
    programs = SPECIAL_PROGRAMS_PER_SM * facts.sms
    count = programs * microbench.SPECIAL_BLOCK
    values = random_values(count, facts.device)

    def exponentials() -> None:
        options = {"BLOCK": microbench.SPECIAL_BLOCK, "num_warps": microbench.SPECIAL_WARPS}
        launch(microbench.special, programs, values, SPECIAL_STEPS, **options)

    how = f"exp2 of {count} fp32 values in registers, {SPECIAL_STEPS} times each, Triton"
    return Gauge("rate", "special", "op/s", timed(exponentials), how, count * SPECIAL_STEPS)
