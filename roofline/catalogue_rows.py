"""The data of the machine catalogue: one `Part` per accelerator, in SI units.

Sources: vendors' datasheets and architecture papers, the CUDA programming guide for on-chip sizes and
special-function rates by compute capability, cloud providers' pages for TPUs. Rates are dense (no sparsity) with
float32 accumulation. What could not be checked against the vendor's sheet is named in `unchecked` and printed as
assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .machine import MachineClass

_MB = 2**20
_KB = 2**10


@dataclass(frozen=True)
class Part:
    """One accelerator.

    dram : bytes/s. rates : tensor-unit FLOP/s by dtype. simt : float32 FLOP/s of the vector units.
    cache_bytes : the last cache that all units share. cache_bandwidth : bytes/s and where the figure is from.
    units : SMs, compute units or TensorCores. shared_bytes, register_bytes : per unit. boost_hz : largest clock.
    tensor_hz : the clock at which the vendor states the tensor rates, where that is known not to be the largest.
    tensor_fma, simt_fma : 16-bit and float32 multiply-adds per clock and unit, for the consistency check.
    special : special functions per clock and unit. latencies : level -> (seconds, where from).
    unchecked : fields whose value was not checked against the vendor's sheet.
    notes : field -> what else a reader of that value should know.
    drivers : names under which a driver reports the device.
    """

    id: str
    name: str
    vendor: str
    year: int
    machine_class: MachineClass
    dram: float
    rates: dict[str, float] = field(default_factory=dict)
    simt: float | None = None
    cache_bytes: int | None = None
    cache_bandwidth: tuple[float, str] | None = None
    units: int | None = None
    shared_bytes: int | None = None
    register_bytes: int | None = None
    boost_hz: float | None = None
    tensor_hz: float | None = None
    tensor_fma: int | None = None
    simt_fma: int | None = None
    special: int | None = None
    latencies: dict[str, tuple[float, str]] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    drivers: tuple[str, ...] = ()


def _half(rate: float, single: float | None = None) -> dict[str, float]:
    """Rates of a part whose tensor units serve fp16 and bf16 alike, and tf32 where that rate is given."""
    return {"fp16": rate, "bf16": rate, **({"tf32": single} if single else {})}


# Hopper figures that hold until a run on the device replaces them.
_HOPPER_CACHE = (7e12, "of the order of public L2 streaming benchmarks of H100 parts; a run on the device replaces it")
_HOPPER_LATENCIES = {
    "launch": (2.5e-6, "public small-kernel benchmarks, plain stream launches of 4 to 128 blocks: 2.4 to 2.5 us"),
    "graph": (1.3e-6, "public small-kernel benchmarks, kernel nodes of a CUDA graph: 1.26 to 1.37 us"),
    "barrier": (1.2e-6, "public small-kernel benchmarks, grid-wide barrier and a tiny sweep: 1.04 to 1.31 us"),
}
# Compute capability 9.0: 228 KB of shared memory and 256 KB of registers per SM, 4 tensor cores of 512 FMA each.
_HOPPER: dict[str, Any] = {
    "shared_bytes": 228 * _KB,
    "register_bytes": 256 * _KB,
    "tensor_fma": 2048,
    "simt_fma": 128,
    "special": 16,
    "cache_bandwidth": _HOPPER_CACHE,
    "latencies": _HOPPER_LATENCIES,
}
_AMPERE_100: dict[str, Any] = {
    "units": 108,
    "shared_bytes": 164 * _KB,
    "register_bytes": 256 * _KB,
    "boost_hz": 1410e6,
    "tensor_fma": 1024,
    "simt_fma": 64,
    "special": 16,
    "rates": _half(312e12, 156e12),
    "simt": 19.5e12,
    "cache_bytes": 40 * _MB,
}
_AMPERE_100_CACHE = (5.4e12, "public L2 streaming benchmark, working sets up to about 28 MB")
# Compute capabilities 8.6, 8.9 and 12.0: 100 KB of shared memory and 256 KB of registers per SM.
_GRAPHICS: dict[str, Any] = {"shared_bytes": 100 * _KB, "register_bytes": 256 * _KB, "simt_fma": 128, "special": 16}
_BLACKWELL: dict[str, Any] = {
    "units": 148,
    "shared_bytes": 228 * _KB,
    "register_bytes": 256 * _KB,
    "tensor_fma": 4096,
    "simt_fma": 128,
    "rates": _half(2250e12, 1125e12),
    "simt": 80e12,
    "dram": 8000e9,
    "cache_bytes": 126 * _MB,
}
_INFINITY = {"cache_bytes": "the Infinity Cache; the L2 of a chiplet is not shared with the others"}
_HOPPER_SXM: dict[str, Any] = {
    "units": 132,
    "rates": _half(989.4e12, 494.5e12),
    "simt": 67e12,
    "boost_hz": 1980e6,
    "tensor_hz": 1830e6,
}
_HOPPER_NVL: dict[str, Any] = {"units": 132, "rates": _half(835e12, 417.5e12), "simt": 60.3e12, "boost_hz": 1785e6}

_NVIDIA_OLD = (
    Part(
        "k80", "Tesla K80 (one of its two GPUs)", "NVIDIA", 2014, "datacentre", dram=240.6e9, simt=4.11e12,
        cache_bytes=1536 * _KB, units=13, shared_bytes=112 * _KB, register_bytes=512 * _KB, boost_hz=824e6,
        simt_fma=192, special=32, unchecked=("units",), notes={"boost_hz": "boards raise the clock to 875 MHz"},
        drivers=("Tesla K80",),
    ),
    Part(
        "titan-x-maxwell", "GeForce GTX TITAN X (Maxwell)", "NVIDIA", 2015, "consumer", dram=336.6e9, simt=6.69e12,
        cache_bytes=3 * _MB, units=24, shared_bytes=96 * _KB, register_bytes=256 * _KB, boost_hz=1089e6,
        simt_fma=128, special=32, drivers=("NVIDIA GeForce GTX TITAN X", "GeForce GTX TITAN X"),
    ),
    Part(
        "m40", "Tesla M40", "NVIDIA", 2015, "datacentre", dram=288.4e9, simt=6.83e12, cache_bytes=3 * _MB, units=24,
        shared_bytes=96 * _KB, register_bytes=256 * _KB, boost_hz=1112e6, simt_fma=128, special=32,
        drivers=("Tesla M40",),
    ),
    Part(
        "p100-sxm2", "Tesla P100 SXM2", "NVIDIA", 2016, "datacentre", dram=732e9, rates={"fp16": 21.2e12},
        simt=10.6e12, cache_bytes=4 * _MB, units=56, shared_bytes=64 * _KB, register_bytes=256 * _KB,
        boost_hz=1480e6, tensor_fma=128, simt_fma=64, special=16, unchecked=("shared_bytes",),
        notes={"rates": "no tensor cores: the 16-bit rate is that of packed pairs on the vector units; no bf16"},
        drivers=("Tesla P100-SXM2-16GB",),
    ),
    Part(
        "v100-sxm2", "Tesla V100 SXM2", "NVIDIA", 2017, "datacentre", dram=900e9, rates={"fp16": 125e12},
        simt=15.7e12, cache_bytes=6 * _MB, units=80, shared_bytes=96 * _KB, register_bytes=256 * _KB,
        boost_hz=1530e6, tensor_fma=512, simt_fma=64, special=16, notes={"rates": "no bf16"},
        drivers=("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"),
    ),
    Part(
        "t4", "Tesla T4", "NVIDIA", 2018, "datacentre", dram=320e9, rates={"fp16": 65e12}, simt=8.1e12,
        cache_bytes=4 * _MB, units=40, shared_bytes=64 * _KB, register_bytes=256 * _KB, boost_hz=1590e6,
        tensor_fma=512, simt_fma=64, special=16, notes={"rates": "no bf16"}, drivers=("Tesla T4",),
    ),
)  # fmt: skip

_NVIDIA_GRAPHICS = (
    Part(
        "rtx-3090", "GeForce RTX 3090", "NVIDIA", 2020, "consumer", dram=936e9, rates=_half(71.2e12, 35.6e12),
        simt=35.6e12, cache_bytes=6 * _MB, units=82, boost_hz=1695e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 3090",), **_GRAPHICS,
    ),
    Part(
        "rtx-4090", "GeForce RTX 4090", "NVIDIA", 2022, "consumer", dram=1008e9, rates=_half(165.2e12, 82.6e12),
        simt=82.6e12, cache_bytes=72 * _MB, units=128, boost_hz=2520e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 4090",), **_GRAPHICS,
    ),
    Part(
        "rtx-5090", "GeForce RTX 5090", "NVIDIA", 2025, "consumer", dram=1792e9, rates=_half(209.5e12, 104.8e12),
        simt=104.8e12, cache_bytes=96 * _MB, units=170, boost_hz=2407e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 5090",), **_GRAPHICS,
    ),
    Part(
        "l4", "L4", "NVIDIA", 2023, "datacentre", dram=300e9, rates=_half(121e12, 60e12), simt=30.3e12,
        cache_bytes=48 * _MB, units=58, boost_hz=2040e6, tensor_fma=512, drivers=("NVIDIA L4",), **_GRAPHICS,
    ),
    Part(
        "l40s", "L40S", "NVIDIA", 2022, "datacentre", dram=864e9, rates=_half(362e12, 183e12), simt=91.6e12,
        cache_bytes=96 * _MB, units=142, boost_hz=2520e6, tensor_fma=512, unchecked=("cache_bytes",),
        notes={"cache_bytes": "public tables give 48 or 96 MB of L2: ask the device"}, drivers=("NVIDIA L40S",),
        **_GRAPHICS,
    ),
)  # fmt: skip

_NVIDIA_DATACENTRE = (
    Part(
        "a100-sxm-40gb", "A100 SXM4 40 GB", "NVIDIA", 2020, "datacentre", dram=1555e9,
        drivers=("NVIDIA A100-SXM4-40GB",), **_AMPERE_100,
    ),
    Part(
        "a100-sxm-80gb", "A100 SXM4 80 GB", "NVIDIA", 2020, "datacentre", dram=2039e9,
        cache_bandwidth=_AMPERE_100_CACHE,
        latencies={"barrier": (1.3e-6, "public small-kernel benchmarks, grid-wide barrier: 1.3 to 1.6 us")},
        drivers=("NVIDIA A100-SXM4-80GB",), **_AMPERE_100,
    ),
    Part(
        "a100-pcie-80gb", "A100 PCIe 80 GB", "NVIDIA", 2021, "datacentre", dram=1935e9,
        drivers=("NVIDIA A100 80GB PCIe",), **_AMPERE_100,
    ),
    Part(
        "h100-pcie", "H100 PCIe 80 GB", "NVIDIA", 2022, "datacentre", dram=2039e9, rates=_half(756e12, 378e12),
        simt=51e12, cache_bytes=50 * _MB, units=114, boost_hz=1755e6, drivers=("NVIDIA H100 PCIe",), **_HOPPER,
    ),
    Part(
        "h100-sxm", "H100 SXM5 80 GB", "NVIDIA", 2022, "datacentre", dram=3350e9, cache_bytes=50 * _MB,
        drivers=("NVIDIA H100 80GB HBM3",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h100-nvl", "H100 NVL 94 GB", "NVIDIA", 2023, "datacentre", dram=3938e9, cache_bytes=50 * _MB,
        unchecked=("rates",), drivers=("NVIDIA H100 NVL",), **_HOPPER_NVL, **_HOPPER,
    ),
    Part(
        "gh200-96gb", "GH200 96 GB HBM3", "NVIDIA", 2023, "datacentre", dram=4000e9, cache_bytes=50 * _MB,
        unchecked=("boost_hz", "cache_bytes"), drivers=("NVIDIA GH200 480GB",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h20", "H20", "NVIDIA", 2024, "datacentre", dram=4000e9, rates=_half(148e12, 74e12), simt=44e12,
        cache_bytes=60 * _MB, units=78, boost_hz=1980e6, tensor_hz=1830e6,
        unchecked=("dram", "rates", "simt", "cache_bytes", "units", "boost_hz"), drivers=("NVIDIA H20",),
        **{**_HOPPER, "tensor_fma": 512},
    ),
    Part(
        "h200-sxm", "H200 SXM 141 GB", "NVIDIA", 2024, "datacentre", dram=4800e9, cache_bytes=50 * _MB,
        notes={"cache_bytes": "tables give 50 MB of L2, one device reported 60 MB: ask the device"},
        drivers=("NVIDIA H200",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h200-nvl", "H200 NVL 141 GB", "NVIDIA", 2024, "datacentre", dram=4800e9, cache_bytes=50 * _MB,
        unchecked=("rates",), drivers=("NVIDIA H200 NVL",), **_HOPPER_NVL, **_HOPPER,
    ),
    Part(
        "b200-sxm", "B200 SXM", "NVIDIA", 2024, "datacentre", boost_hz=1965e6, special=16, drivers=("NVIDIA B200",),
        **_BLACKWELL,
    ),
    Part(
        "b300-sxm", "B300 SXM", "NVIDIA", 2025, "datacentre", unchecked=("cache_bytes", "units"),
        drivers=("NVIDIA B300 SXM6 AC",), **_BLACKWELL,
    ),
)  # fmt: skip

_AMD = (
    Part(
        "mi250x", "Instinct MI250X (both dies)", "AMD", 2021, "datacentre", dram=3277e9, rates=_half(383e12),
        simt=47.9e12, cache_bytes=16 * _MB, units=220, shared_bytes=64 * _KB, register_bytes=512 * _KB,
        boost_hz=1700e6, tensor_fma=512, simt_fma=64, unchecked=("units", "shared_bytes", "register_bytes"),
        notes={"cache_bytes": "8 MB of L2 on each die, shared only inside it"},
    ),
    Part(
        "mi300x", "Instinct MI300X", "AMD", 2023, "datacentre", dram=5300e9, rates=_half(1307e12, 653.7e12),
        simt=163.4e12, cache_bytes=256 * _MB, units=304, shared_bytes=64 * _KB, register_bytes=512 * _KB,
        boost_hz=2100e6, tensor_fma=1024, simt_fma=128, unchecked=("units", "shared_bytes", "register_bytes"),
        notes=_INFINITY,
    ),
    Part(
        "mi325x", "Instinct MI325X", "AMD", 2024, "datacentre", dram=6000e9, rates=_half(1307e12, 653.7e12),
        simt=163.4e12, cache_bytes=256 * _MB, units=304, shared_bytes=64 * _KB, register_bytes=512 * _KB,
        boost_hz=2100e6, tensor_fma=1024, simt_fma=128,
        unchecked=("cache_bytes", "units", "shared_bytes", "register_bytes"), notes=_INFINITY,
    ),
    Part(
        "mi355x", "Instinct MI355X", "AMD", 2025, "datacentre", dram=8000e9, rates=_half(2500e12), simt=157.3e12,
        cache_bytes=256 * _MB, units=256, shared_bytes=160 * _KB, register_bytes=512 * _KB, boost_hz=2400e6,
        tensor_fma=2048, simt_fma=128, unchecked=("cache_bytes", "units", "shared_bytes", "register_bytes"),
        notes=_INFINITY,
    ),
)  # fmt: skip

# A TensorCore holds one to four matrix units of 128 x 128 multiply-adds per clock.
_MXU = 128 * 128
_TPU = (
    Part(
        "tpu-v2", "TPU v2", "Google", 2017, "tpu", dram=700e9, rates={"bf16": 46e12}, units=2, boost_hz=700e6,
        tensor_fma=_MXU, unchecked=("dram", "rates", "boost_hz"),
    ),
    Part(
        "tpu-v3", "TPU v3", "Google", 2018, "tpu", dram=900e9, rates={"bf16": 123e12}, units=2, boost_hz=940e6,
        tensor_fma=2 * _MXU, unchecked=("boost_hz",),
    ),
    Part(
        "tpu-v4", "TPU v4", "Google", 2020, "tpu", dram=1200e9, rates={"bf16": 275e12}, units=2, boost_hz=1050e6,
        tensor_fma=4 * _MXU, unchecked=("boost_hz",),
    ),
    Part("tpu-v5e", "TPU v5e", "Google", 2023, "tpu", dram=819e9, rates={"bf16": 197e12}, units=1),
    Part(
        "tpu-v5p", "TPU v5p", "Google", 2023, "tpu", dram=2765e9, rates={"bf16": 459e12}, units=2, boost_hz=1750e6,
        tensor_fma=4 * _MXU, unchecked=("boost_hz",),
    ),
    Part("tpu-v6e", "TPU v6e (Trillium)", "Google", 2024, "tpu", dram=1640e9, rates={"bf16": 918e12}, units=1),
)  # fmt: skip

_IN_MEMORY = (
    Part(
        "upmem-2556", "UPMEM, 2556 DPUs", "UPMEM", 2021, "compute-in-memory", dram=2556 * 628e6, units=2556,
        shared_bytes=64 * _KB, boost_hz=350e6, unchecked=("dram",),
        notes={"dram": "628 of 700 MB/s per DPU (PrIM, arXiv 2105.03814); float32 is emulated, so it has no rate"},
    ),
    Part(
        "hbm-pim-x4", "Aquabolt-XL HBM-PIM, four stacks", "Samsung", 2021, "compute-in-memory", dram=4 * 1.23e12,
        rates={"fp16": 4 * 1.2e12}, unchecked=("dram", "rates"),
        notes={"dram": "bandwidth beside the banks, four times the 1.23 TB/s that a host sees of four stacks"},
    ),
    Part(
        "gddr6-aim", "GDDR6-AiM, one chip", "SK hynix", 2022, "compute-in-memory", dram=1e12, rates={"bf16": 1e12},
        unchecked=("dram", "rates"),
        notes={"dram": "bandwidth inside the chip, over its 16 banks"},
    ),
)  # fmt: skip

PARTS = _NVIDIA_OLD + _NVIDIA_GRAPHICS + _NVIDIA_DATACENTRE + _AMD + _TPU + _IN_MEMORY
