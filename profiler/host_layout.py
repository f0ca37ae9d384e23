"""What a processor offers besides its size: vector and matrix units, memory nodes, the identity of this boot.

Reads Linux's /proc and /sys; where they are missing the answer is empty. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
_NODES = Path("/sys/devices/system/node")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")

# Flags of /proc/cpuinfo by unit, the widest first; x86 lists them under "flags", Arm under "Features".
_VECTOR = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sve2", "SVE2"),
    ("sve", "SVE"),
    ("asimd", "NEON"),
)
_SIXTEEN_BITS = (
    ("avx512_bf16", "AVX512-BF16"),
    ("avx512_fp16", "AVX512-FP16"),
    ("avx_ne_convert", "AVX-NE-CONVERT"),
    ("bf16", "Arm BF16"),
    ("fphp", "Arm FP16"),
)
_MATRIX = (("amx_bf16", "AMX-BF16"), ("amx_fp16", "AMX-FP16"), ("amx_int8", "AMX-INT8"), ("sme", "SME"))


@dataclass(frozen=True)
class Units:
    """Names of the units that compute: the widest vectors, their 16-bit instructions, and matrix units."""

    vector: str
    sixteen_bits: tuple[str, ...]
    matrix: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of them in words."""
        if not self.vector and not self.matrix:
            return "units not known"
        with_16 = f" with {' and '.join(self.sixteen_bits)}" if self.sixteen_bits else " without 16-bit arithmetic"
        matrix = " and ".join(self.matrix) if self.matrix else "none"
        return f"vector units {self.vector or 'not known'}{with_16}; matrix units {matrix}"

    def serving(self, dtype: str) -> str:
        """What may serve products of a dtype ("fp32", "bf16", "fp16"); a library chooses, so this is no observation."""
        if dtype == "fp32":
            return self.vector
        able = [name for name in (*self.matrix, *self.sixteen_bits) if dtype.upper() in name.replace(" ", "-")]
        return able[0] if able else f"{self.vector}, no {dtype} unit".lstrip(", ")


def units(cpuinfo: Path = _CPUINFO) -> Units:
    """The units of the processor, from its flags."""
    try:
        match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        match = None
    flags = set(match.group(1).split()) if match else set()
    return Units(
        vector=next((name for flag, name in _VECTOR if flag in flags), ""),
        sixteen_bits=tuple(name for flag, name in _SIXTEEN_BITS if flag in flags),
        matrix=tuple(name for flag, name in _MATRIX if flag in flags),
    )


def memory_nodes(nodes: Path = _NODES, status: Path = _STATUS) -> str:
    """How many NUMA nodes there are, and which of their cores and memories this process may use, in words."""
    held = {int(path.name[4:]): _listed(path / "cpulist") for path in nodes.glob("node[0-9]*")}
    if not held:
        return "NUMA nodes not known"
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set().union(*held.values())
    used = [f"{len(cores & own)} of the {len(own)} cores of node {node}" for node, own in sorted(held.items())]
    used = [text for text in used if not text.startswith("0 ")]
    memories = _memories(status) or set(held)
    count = f"{len(held)} NUMA node" + ("s" if len(held) > 1 else "")
    return f"{count}; this process may use {', '.join(used)}; memory of node {_ranges(memories)}"


def boot_identity() -> str:
    """What tells this machine and this boot from all others; empty where the system has no such thing."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def machine_identity(files: Sequence[Path] = _MACHINE_IDS) -> str:
    """What tells this installation from all others for as long as it lives; empty where the system does not say.

    Confidential: only a hash of it may leave this process, with a salt (machine-id(5)).
    """
    for file in files:
        try:
            if identity := file.read_text().strip():
                return identity
        except OSError:
            continue
    return ""


def highest_frequency_hz() -> float | None:
    """The clock that the system allows a core at most; None where it does not say, as on most virtual machines."""
    try:
        return int(_FREQUENCY.read_text()) * 1e3
    except (OSError, ValueError):
        return None


def _listed(path: Path) -> set[int]:
    """Numbers of a list such as "0-3,8"."""
    try:
        return _numbers(path.read_text())
    except OSError:
        return set()


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _memories(status: Path) -> set[int]:
    try:
        match = re.search(r"^Mems_allowed_list:\s*(.+)$", status.read_text(), re.MULTILINE)
    except OSError:
        return set()
    return _numbers(match.group(1)) if match else set()


def _ranges(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
