"""The data of the machine catalogue: what it lists, the rows of all vendors but NVIDIA, and all rows in one tuple.

Sources: vendors' datasheets and architecture papers, the CUDA programming guide for on-chip sizes and
special-function rates by compute capability, cloud providers' pages for TPUs. Rates are dense (no sparsity) with
float32 accumulation where the vendor tells. What could not be checked against the vendor's sheet, or against a text
that quotes it, is named in `unchecked` and printed as assumed. A year is that of the launch, or of the first
deliveries where those came later.

Datacentre parts, to which growth is fitted, are listed by a rule and not by choice: every accelerator sold for
datacentres from 2016 to 2025, for deep learning or scientific computing, of NVIDIA, AMD and Intel (with Habana), whose
vendor states a dense 16-bit rate, in fp16 or bf16, and a DRAM bandwidth. Versions of one GPU that differ in neither
figure share a row: sizes of memory, versions for export (A800, H800), PCIe cards (A100 40 GB, Gaudi 3) and boards with
a network card (A100X, H100 CNX). TPUs are a class of their own; the remaining classes and the parts before 2016 are
examples. Looked at and not listed:

- no dense 16-bit rate stated, as far as could be found: Tesla P4, P6 and P40, Xeon Phi, Goya, NNP-I, and RTX PRO 6000
  Server, of which one figure is told and not whether it is dense;
- figures not found: A30X, V100 SXM3, H20 with 141 GB, MI308X, Max 1450, Radeon PRO V620 and V710, Alveo V70;
- for desktops, graphics, video or games: Tesla M10, A16, L40G, Quadro RTX, Radeon PRO V340 and V520, Flex 140 and 170;
- announced, with no sign of a sale: B100, Lake Crest, Max 1350, Greco;
- made for one customer: A100 and H100 with 64 GB; delivered after 2025: MI350P, Rubin.
"""

from __future__ import annotations

from typing import Any

from .catalogue_nvidia import NVIDIA
from .catalogue_part import KB, MB, Part, half

_PACKED = {"rates": "no matrix units: the 16-bit rate is that of packed pairs on the vector units; no bf16"}
_UNPACKED = {"rates": "no matrix units: the 16-bit rate is the float32 rate of the vector units; no bf16"}
_INFINITY = {"cache_bytes": "the Infinity Cache; the L2 of a chiplet is not shared with the others"}
_TWO_DIES = {"cache_bytes": "8 MB of L2 on each die, shared only inside it"}
# Sizes of a compute unit: AMD's table of GPU hardware specifications.
_GCN: dict[str, Any] = {"shared_bytes": 64 * KB, "register_bytes": 256 * KB, "simt_fma": 64}
_CDNA: dict[str, Any] = {"shared_bytes": 64 * KB, "register_bytes": 512 * KB}

_AMD = (
    Part(
        "mi6", "Radeon Instinct MI6", "AMD", 2017, "datacentre", dram=224e9, rates={"fp16": 5.7e12}, simt=5.7e12,
        cache_bytes=2 * MB, units=36, tensor_fma=64, notes=_UNPACKED, **_GCN,
    ),
    Part(
        "mi8", "Radeon Instinct MI8", "AMD", 2017, "datacentre", dram=512e9, rates={"fp16": 8.2e12}, simt=8.2e12,
        cache_bytes=2 * MB, units=64, tensor_fma=64, notes=_UNPACKED, **_GCN,
    ),
    Part(
        "mi25", "Radeon Instinct MI25", "AMD", 2017, "datacentre", dram=484e9, rates={"fp16": 24.6e12}, simt=12.3e12,
        cache_bytes=4 * MB, units=64, tensor_fma=128, notes=_PACKED, **_GCN,
    ),
    Part(
        "mi50", "Radeon Instinct MI50", "AMD", 2018, "datacentre", dram=1024e9, rates={"fp16": 26.5e12}, simt=13.3e12,
        cache_bytes=4 * MB, units=60, boost_hz=1725e6, tensor_fma=128, notes=_PACKED, **_GCN,
    ),
    Part(
        "mi60", "Radeon Instinct MI60", "AMD", 2018, "datacentre", dram=1024e9, rates={"fp16": 29.5e12}, simt=14.7e12,
        cache_bytes=4 * MB, units=64, boost_hz=1800e6, tensor_fma=128, notes=_PACKED, **_GCN,
    ),
    Part(
        "mi100", "Instinct MI100", "AMD", 2020, "datacentre", dram=1229e9, rates={"fp16": 184.6e12, "bf16": 92.3e12},
        simt=23.1e12, cache_bytes=8 * MB, units=120, boost_hz=1502e6, tensor_fma=512, simt_fma=64, **_CDNA,
    ),
    Part(
        "mi250", "Instinct MI250 (both dies)", "AMD", 2021, "datacentre", dram=3277e9, rates=half(362.1e12),
        simt=45.3e12, cache_bytes=16 * MB, units=208, boost_hz=1700e6, tensor_fma=512, simt_fma=64, notes=_TWO_DIES,
        **_CDNA,
    ),
    Part(
        "mi250x", "Instinct MI250X (both dies)", "AMD", 2021, "datacentre", dram=3277e9, rates=half(383e12),
        simt=47.9e12, cache_bytes=16 * MB, units=220, shared_bytes=64 * KB, register_bytes=512 * KB,
        boost_hz=1700e6, tensor_fma=512, simt_fma=64, unchecked=("units", "shared_bytes", "register_bytes"),
        notes=_TWO_DIES,
    ),
    Part(
        "mi210", "Instinct MI210", "AMD", 2022, "datacentre", dram=1638e9, rates=half(181e12), simt=22.6e12,
        cache_bytes=8 * MB, units=104, boost_hz=1700e6, tensor_fma=512, simt_fma=64, **_CDNA,
    ),
    Part(
        "mi300a", "Instinct MI300A", "AMD", 2023, "datacentre", dram=5300e9, rates=half(980.6e12, 490.3e12),
        simt=122.6e12, cache_bytes=256 * MB, units=228, boost_hz=2100e6, tensor_fma=1024, simt_fma=128,
        notes=_INFINITY, **_CDNA,
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
        "mi350x", "Instinct MI350X", "AMD", 2025, "datacentre", dram=8000e9, rates=half(2300e12), simt=144.2e12,
        cache_bytes=256 * MB, units=256, shared_bytes=160 * KB, register_bytes=512 * KB, boost_hz=2200e6,
        tensor_fma=2048, simt_fma=128, notes=_INFINITY,
    ),
    Part(
        "mi355x", "Instinct MI355X", "AMD", 2025, "datacentre", dram=8000e9, rates=half(2500e12), simt=157.3e12,
        cache_bytes=256 * MB, units=256, shared_bytes=160 * KB, register_bytes=512 * KB, boost_hz=2400e6,
        tensor_fma=2048, simt_fma=128, unchecked=("cache_bytes", "units", "shared_bytes", "register_bytes"),
        notes=_INFINITY,
    ),
)  # fmt: skip

_INTEL = (
    Part(
        "nnp-t-1300", "Nervana NNP-T 1300", "Intel", 2019, "datacentre", dram=1229e9, rates={"bf16": 93.4e12},
        unchecked=("rates",),
    ),
    Part("nnp-t-1400", "Nervana NNP-T 1400", "Intel", 2019, "datacentre", dram=1229e9, rates={"bf16": 119e12}),
    Part("gaudi", "Gaudi (HL-205)", "Intel", 2019, "datacentre", dram=900e9, rates={"bf16": 60e12}),
    Part("gaudi-2", "Gaudi 2", "Intel", 2022, "datacentre", dram=2460e9, rates={"bf16": 432e12}),
    Part(
        "max-1550", "Data Center GPU Max 1550 (both stacks)", "Intel", 2023, "datacentre", dram=3277e9,
        rates=half(839e12, 419e12), simt=52e12, cache_bytes=408 * MB, units=128, boost_hz=1600e6, tensor_fma=2048,
        simt_fma=128,
    ),
    Part(
        "max-1100", "Data Center GPU Max 1100", "Intel", 2023, "datacentre", dram=1229e9, rates=half(352e12),
        simt=22.2e12, units=56, unchecked=("dram", "rates", "simt"),
    ),
    Part(
        "gaudi-3", "Gaudi 3", "Intel", 2024, "datacentre", dram=3670e9, rates={"bf16": 1835e12}, cache_bytes=96 * MB,
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

PARTS: tuple[Part, ...] = NVIDIA + _AMD + _INTEL + _TPU + _IN_MEMORY
