"""The data of the machine catalogue: one `Part` per accelerator, in SI units.

Sources: vendors' datasheets and architecture papers, the CUDA programming guide for on-chip sizes and
special-function rates by compute capability, cloud providers' pages for TPUs. Rates are dense (no sparsity) with
float32 accumulation. What could not be checked against the vendor's sheet is named in `unchecked` and printed as
assumed.
"""

from __future__ import annotations

from .catalogue_nvidia import NVIDIA
from .catalogue_part import KB, MB, Part, half

_INFINITY = {"cache_bytes": "the Infinity Cache; the L2 of a chiplet is not shared with the others"}
_AMD = (
    Part(
        "mi250x", "Instinct MI250X (both dies)", "AMD", 2021, "datacentre", dram=3277e9, rates=half(383e12),
        simt=47.9e12, cache_bytes=16 * MB, units=220, shared_bytes=64 * KB, register_bytes=512 * KB,
        boost_hz=1700e6, tensor_fma=512, simt_fma=64, unchecked=("units", "shared_bytes", "register_bytes"),
        notes={"cache_bytes": "8 MB of L2 on each die, shared only inside it"},
    ),
    Part(
        "mi300x", "Instinct MI300X", "AMD", 2023, "datacentre", dram=5300e9, rates=half(1307e12, 653.7e12),
        simt=163.4e12, cache_bytes=256 * MB, units=304, shared_bytes=64 * KB, register_bytes=512 * KB,
        boost_hz=2100e6, tensor_fma=1024, simt_fma=128, unchecked=("units", "shared_bytes", "register_bytes"),
        notes=_INFINITY,
    ),
    Part(
        "mi325x", "Instinct MI325X", "AMD", 2024, "datacentre", dram=6000e9, rates=half(1307e12, 653.7e12),
        simt=163.4e12, cache_bytes=256 * MB, units=304, shared_bytes=64 * KB, register_bytes=512 * KB,
        boost_hz=2100e6, tensor_fma=1024, simt_fma=128,
        unchecked=("cache_bytes", "units", "shared_bytes", "register_bytes"), notes=_INFINITY,
    ),
    Part(
        "mi355x", "Instinct MI355X", "AMD", 2025, "datacentre", dram=8000e9, rates=half(2500e12), simt=157.3e12,
        cache_bytes=256 * MB, units=256, shared_bytes=160 * KB, register_bytes=512 * KB, boost_hz=2400e6,
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
        shared_bytes=64 * KB, boost_hz=350e6, unchecked=("dram",),
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

PARTS: tuple[Part, ...] = NVIDIA + _AMD + _TPU + _IN_MEMORY
