"""The catalogue's rows of NVIDIA; sources and what is listed: `catalogue_rows`."""

from __future__ import annotations

from typing import Any

from .catalogue_part import KB, MB, Part, half

# Compute capabilities 6.0 and 7.0: 64 and 96 KB of shared memory and 256 KB of registers per SM.
_PASCAL_100: dict[str, Any] = {
    "units": 56,
    "shared_bytes": 64 * KB,
    "register_bytes": 256 * KB,
    "tensor_fma": 128,
    "simt_fma": 64,
    "special": 16,
    "notes": {"rates": "no tensor cores: the 16-bit rate is that of packed pairs on the vector units; no bf16"},
}
_VOLTA: dict[str, Any] = {
    "cache_bytes": 6 * MB,
    "units": 80,
    "shared_bytes": 96 * KB,
    "register_bytes": 256 * KB,
    "tensor_fma": 512,
    "simt_fma": 64,
    "special": 16,
    "notes": {"rates": "no bf16"},
}
# Hopper figures that hold until a run on the device replaces them.
_HOPPER_CACHE = (7e12, "of the order of public L2 streaming benchmarks of H100 parts; a run on the device replaces it")
_HOPPER_LATENCIES = {
    "launch": (2.5e-6, "public small-kernel benchmarks, plain stream launches of 4 to 128 blocks: 2.4 to 2.5 us"),
    "graph": (1.3e-6, "public small-kernel benchmarks, kernel nodes of a CUDA graph: 1.26 to 1.37 us"),
    "barrier": (1.2e-6, "public small-kernel benchmarks, grid-wide barrier and a tiny sweep: 1.04 to 1.31 us"),
}
# Compute capability 9.0: 228 KB of shared memory and 256 KB of registers per SM, 4 tensor cores of 512 FMA each.
_HOPPER: dict[str, Any] = {
    "shared_bytes": 228 * KB,
    "register_bytes": 256 * KB,
    "tensor_fma": 2048,
    "simt_fma": 128,
    "special": 16,
    "cache_bandwidth": _HOPPER_CACHE,
    "latencies": _HOPPER_LATENCIES,
}
# Compute capability 8.0: 164 KB of shared memory and 256 KB of registers per SM, 4 tensor cores of 256 FMA each.
_AMPERE: dict[str, Any] = {
    "shared_bytes": 164 * KB,
    "register_bytes": 256 * KB,
    "tensor_fma": 1024,
    "simt_fma": 64,
    "special": 16,
}
_AMPERE_100: dict[str, Any] = {
    **_AMPERE,
    "units": 108,
    "boost_hz": 1410e6,
    "rates": half(312e12, 156e12),
    "simt": 19.5e12,
    "cache_bytes": 40 * MB,
}
_AMPERE_100_CACHE = (5.4e12, "public L2 streaming benchmark, working sets up to about 28 MB")
# Compute capabilities 8.6, 8.9 and 12.0: 100 KB of shared memory and 256 KB of registers per SM.
_GRAPHICS: dict[str, Any] = {"shared_bytes": 100 * KB, "register_bytes": 256 * KB, "simt_fma": 128, "special": 16}
_BLACKWELL: dict[str, Any] = {
    "units": 148,
    "shared_bytes": 228 * KB,
    "register_bytes": 256 * KB,
    "tensor_fma": 4096,
    "simt_fma": 128,
    "rates": half(2250e12, 1125e12),
    "simt": 80e12,
    "dram": 8000e9,
    "cache_bytes": 126 * MB,
}
_HOPPER_SXM: dict[str, Any] = {
    "units": 132,
    "rates": half(989.4e12, 494.5e12),
    "simt": 67e12,
    "boost_hz": 1980e6,
    "tensor_hz": 1830e6,
}
_HOPPER_NVL: dict[str, Any] = {"units": 132, "rates": half(835e12, 417.5e12), "simt": 60.3e12, "boost_hz": 1785e6}

_OLD_PARTS = (
    Part(
        "k80", "Tesla K80 (one of its two GPUs)", "NVIDIA", 2014, "datacentre", dram=240.6e9, simt=4.11e12,
        cache_bytes=1536 * KB, units=13, shared_bytes=112 * KB, register_bytes=512 * KB, boost_hz=824e6,
        simt_fma=192, special=32, unchecked=("units",), notes={"boost_hz": "boards raise the clock to 875 MHz"},
        drivers=("Tesla K80",),
    ),
    Part(
        "titan-x-maxwell", "GeForce GTX TITAN X (Maxwell)", "NVIDIA", 2015, "consumer", dram=336.6e9, simt=6.69e12,
        cache_bytes=3 * MB, units=24, shared_bytes=96 * KB, register_bytes=256 * KB, boost_hz=1089e6,
        simt_fma=128, special=32, drivers=("NVIDIA GeForce GTX TITAN X", "GeForce GTX TITAN X"),
    ),
    Part(
        "m40", "Tesla M40", "NVIDIA", 2015, "datacentre", dram=288.4e9, simt=6.83e12, cache_bytes=3 * MB, units=24,
        shared_bytes=96 * KB, register_bytes=256 * KB, boost_hz=1112e6, simt_fma=128, special=32,
        drivers=("Tesla M40",),
    ),
    Part(
        "p100-sxm2", "Tesla P100 SXM2", "NVIDIA", 2016, "datacentre", dram=732e9, rates={"fp16": 21.2e12},
        simt=10.6e12, cache_bytes=4 * MB, boost_hz=1480e6, unchecked=("shared_bytes",),
        drivers=("Tesla P100-SXM2-16GB",), **_PASCAL_100,
    ),
    Part(
        "p100-pcie-16gb", "Tesla P100 PCIe 16 GB", "NVIDIA", 2016, "datacentre", dram=732e9, rates={"fp16": 18.7e12},
        simt=9.3e12, cache_bytes=4 * MB, unchecked=("shared_bytes",), drivers=("Tesla P100-PCIE-16GB",), **_PASCAL_100,
    ),
    Part(
        "p100-pcie-12gb", "Tesla P100 PCIe 12 GB", "NVIDIA", 2016, "datacentre", dram=549e9, rates={"fp16": 18.7e12},
        simt=9.3e12, unchecked=("dram", "shared_bytes"), drivers=("Tesla P100-PCIE-12GB",), **_PASCAL_100,
    ),
    Part(
        "v100-sxm2", "Tesla V100 SXM2", "NVIDIA", 2017, "datacentre", dram=900e9, rates={"fp16": 125e12},
        simt=15.7e12, boost_hz=1530e6, drivers=("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"), **_VOLTA,
    ),
    Part(
        "v100-pcie", "Tesla V100 PCIe", "NVIDIA", 2017, "datacentre", dram=900e9, rates={"fp16": 112e12}, simt=14e12,
        boost_hz=1380e6, drivers=("Tesla V100-PCIE-16GB", "Tesla V100-PCIE-32GB"), **_VOLTA,
    ),
    Part(
        "t4", "Tesla T4", "NVIDIA", 2018, "datacentre", dram=320e9, rates={"fp16": 65e12}, simt=8.1e12,
        cache_bytes=4 * MB, units=40, shared_bytes=64 * KB, register_bytes=256 * KB, boost_hz=1590e6,
        tensor_fma=512, simt_fma=64, special=16, notes={"rates": "no bf16"}, drivers=("Tesla T4",),
    ),
    Part(
        "v100s-pcie", "Tesla V100S PCIe", "NVIDIA", 2019, "datacentre", dram=1134e9, rates={"fp16": 130e12},
        simt=16.4e12, drivers=("Tesla V100S-PCIE-32GB",), **_VOLTA,
    ),
)  # fmt: skip

_GRAPHICS_PARTS = (
    Part(
        "rtx-3090", "GeForce RTX 3090", "NVIDIA", 2020, "consumer", dram=936e9, rates=half(71.2e12, 35.6e12),
        simt=35.6e12, cache_bytes=6 * MB, units=82, boost_hz=1695e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 3090",), **_GRAPHICS,
    ),
    Part(
        "rtx-4090", "GeForce RTX 4090", "NVIDIA", 2022, "consumer", dram=1008e9, rates=half(165.2e12, 82.6e12),
        simt=82.6e12, cache_bytes=72 * MB, units=128, boost_hz=2520e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 4090",), **_GRAPHICS,
    ),
    Part(
        "rtx-5090", "GeForce RTX 5090", "NVIDIA", 2025, "consumer", dram=1792e9, rates=half(209.5e12, 104.8e12),
        simt=104.8e12, cache_bytes=96 * MB, units=170, boost_hz=2407e6, tensor_fma=256,
        notes={"rates": "fp16 accumulation doubles the 16-bit rate"}, drivers=("NVIDIA GeForce RTX 5090",), **_GRAPHICS,
    ),
    Part(
        "a40", "A40", "NVIDIA", 2021, "datacentre", dram=696e9, rates=half(149.7e12, 74.8e12), simt=37.4e12,
        cache_bytes=6 * MB, units=84, boost_hz=1740e6, tensor_fma=512, unchecked=("cache_bytes", "boost_hz"),
        drivers=("NVIDIA A40",), **_GRAPHICS,
    ),
    Part(
        "a10", "A10", "NVIDIA", 2021, "datacentre", dram=600e9, rates=half(125e12, 62.5e12), simt=31.2e12,
        cache_bytes=6 * MB, units=72, boost_hz=1695e6, tensor_fma=512, unchecked=("cache_bytes", "units", "boost_hz"),
        drivers=("NVIDIA A10",), **_GRAPHICS,
    ),
    Part(
        "a10g", "A10G", "NVIDIA", 2021, "datacentre", dram=600e9, rates=half(70e12), drivers=("NVIDIA A10G",),
        **_GRAPHICS,
    ),
    Part(
        "a2", "A2", "NVIDIA", 2021, "datacentre", dram=200e9, rates=half(18e12, 9e12), simt=4.5e12, cache_bytes=2 * MB,
        units=10, boost_hz=1770e6, tensor_fma=512, unchecked=("cache_bytes", "units", "boost_hz"),
        drivers=("NVIDIA A2",), **_GRAPHICS,
    ),
    Part(
        "l40", "L40", "NVIDIA", 2022, "datacentre", dram=864e9, rates=half(181.05e12, 90.5e12), simt=90.5e12, units=142,
        tensor_fma=256, drivers=("NVIDIA L40",), **_GRAPHICS,
    ),
    Part(
        "l4", "L4", "NVIDIA", 2023, "datacentre", dram=300e9, rates=half(121e12, 60e12), simt=30.3e12,
        cache_bytes=48 * MB, units=58, boost_hz=2040e6, tensor_fma=512, drivers=("NVIDIA L4",), **_GRAPHICS,
    ),
    Part(
        "l40s", "L40S", "NVIDIA", 2023, "datacentre", dram=864e9, rates=half(362e12, 183e12), simt=91.6e12,
        cache_bytes=96 * MB, units=142, boost_hz=2520e6, tensor_fma=512, unchecked=("cache_bytes",),
        notes={"cache_bytes": "public tables give 48 or 96 MB of L2: ask the device"}, drivers=("NVIDIA L40S",),
        **_GRAPHICS,
    ),
    Part(
        "l20", "L20", "NVIDIA", 2023, "datacentre", dram=864e9, rates=half(119.5e12, 59.8e12), simt=59.8e12,
        cache_bytes=96 * MB, unchecked=("dram", "rates", "simt", "cache_bytes"), drivers=("NVIDIA L20",), **_GRAPHICS,
    ),
    Part(
        "l2", "L2", "NVIDIA", 2023, "datacentre", dram=300e9, rates=half(96.5e12, 48.3e12), simt=24.1e12,
        cache_bytes=36 * MB, unchecked=("dram", "rates", "simt", "cache_bytes"), drivers=("NVIDIA L2",), **_GRAPHICS,
    ),
)  # fmt: skip

_DATACENTRE_PARTS = (
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
        "a30", "A30", "NVIDIA", 2021, "datacentre", dram=933e9, rates=half(165e12, 82e12), simt=10.3e12,
        cache_bytes=24 * MB, units=56, boost_hz=1440e6, drivers=("NVIDIA A30",), **_AMPERE,
    ),
    Part(
        "h100-pcie", "H100 PCIe 80 GB", "NVIDIA", 2022, "datacentre", dram=2039e9, rates=half(756e12, 378e12),
        simt=51e12, cache_bytes=50 * MB, units=114, boost_hz=1755e6, drivers=("NVIDIA H100 PCIe",), **_HOPPER,
    ),
    Part(
        "h100-sxm", "H100 SXM5 80 GB", "NVIDIA", 2022, "datacentre", dram=3350e9, cache_bytes=50 * MB,
        drivers=("NVIDIA H100 80GB HBM3",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h100-nvl", "H100 NVL 94 GB", "NVIDIA", 2023, "datacentre", dram=3938e9, cache_bytes=50 * MB,
        unchecked=("rates",), drivers=("NVIDIA H100 NVL",), **_HOPPER_NVL, **_HOPPER,
    ),
    Part(
        "gh200-96gb", "GH200 96 GB HBM3", "NVIDIA", 2023, "datacentre", dram=4000e9, cache_bytes=50 * MB,
        unchecked=("boost_hz", "cache_bytes"), drivers=("NVIDIA GH200 480GB",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "gh200-144gb", "GH200 144 GB HBM3e", "NVIDIA", 2024, "datacentre", dram=4900e9, cache_bytes=50 * MB,
        unchecked=("boost_hz", "cache_bytes"), drivers=("NVIDIA GH200 144G HBM3e",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h20", "H20", "NVIDIA", 2024, "datacentre", dram=4000e9, rates=half(148e12, 74e12), simt=44e12,
        cache_bytes=60 * MB, units=78, boost_hz=1980e6, tensor_hz=1830e6,
        unchecked=("dram", "rates", "simt", "cache_bytes", "units", "boost_hz"), drivers=("NVIDIA H20",),
        **{**_HOPPER, "tensor_fma": 512},
    ),
    Part(
        "h200-sxm", "H200 SXM 141 GB", "NVIDIA", 2024, "datacentre", dram=4800e9, cache_bytes=50 * MB,
        notes={"cache_bytes": "tables give 50 MB of L2, one device reported 60 MB: ask the device"},
        drivers=("NVIDIA H200",), **_HOPPER_SXM, **_HOPPER,
    ),
    Part(
        "h200-nvl", "H200 NVL 141 GB", "NVIDIA", 2024, "datacentre", dram=4800e9, cache_bytes=50 * MB,
        unchecked=("rates",), drivers=("NVIDIA H200 NVL",), **_HOPPER_NVL, **_HOPPER,
    ),
    Part(
        "b200-sxm", "B200 SXM", "NVIDIA", 2024, "datacentre", boost_hz=1965e6, special=16, drivers=("NVIDIA B200",),
        **_BLACKWELL,
    ),
    Part(
        "gb200", "GB200 (one of its two GPUs)", "NVIDIA", 2024, "datacentre", dram=8000e9, rates=half(2500e12, 1250e12),
        simt=80e12, notes=dict.fromkeys(("dram", "rates", "simt"), "half of what is stated for two GPUs"),
        drivers=("NVIDIA GB200",),
    ),
    Part(
        "b300-sxm", "B300 SXM", "NVIDIA", 2025, "datacentre", unchecked=("cache_bytes", "units"),
        drivers=("NVIDIA B300 SXM6 AC",), **_BLACKWELL,
    ),
    Part(
        "gb300", "GB300 (one GPU of 72)", "NVIDIA", 2025, "datacentre", dram=8000e9, rates=half(2500e12, 1250e12),
        simt=80e12, notes=dict.fromkeys(("dram", "rates", "simt"), "a 72nd of what is stated for the rack"),
        drivers=("NVIDIA GB300",),
    ),
)  # fmt: skip

NVIDIA = _OLD_PARTS + _GRAPHICS_PARTS + _DATACENTRE_PARTS
