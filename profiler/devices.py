"""The device under test: what the worker needs of a CPU or an NVIDIA GPU, behind one small interface."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..roofline.catalogue import by_driver_name
from ..roofline.record import CacheState, Clock, Environment
from . import host, host_layout, unused_gpu
from .clock import HostStopwatch, Stopwatch
from .energy import RaplMeter
from .sensors import CpuSensors
from .versions import compiler_name, salted_hash, software

# Operations of the largest call of a suite, per core: with wide vectors they take about half a second.
SUITE_FLOPS_PER_CORE = 5 * 10**10


class DeviceError(Exception):
    """A device that does not exist or cannot be used. The text is for people."""


class CpuDevice:
    """The processor, with all cores that this process may use."""

    kind = "cpu"
    clocks: tuple[tuple[CacheState, Clock], ...] = (("cold", "host"), ("warm", "host"))
    dtypes = ("fp32", "bf16")

    def __init__(self, keep_threads: bool = False) -> None:
        """keep_threads : in a process of the user's own, who has chosen how many threads torch takes."""
        self.torch_device = "cpu"
        self.name = host.processor_name()
        if not keep_threads:
            # Triton's interpreter runs in several workers at once and spends its time in Python.
            torch.set_num_threads(1 if os.environ.get("TRITON_INTERPRET") == "1" else host.usable_cores())
        self.most_suite_flops = SUITE_FLOPS_PER_CORE * host.usable_cores()
        self.sensors, self.meter = CpuSensors(), RaplMeter()

    def last_cache_bytes(self) -> int:
        """Reported size of the last shared cache."""
        return host.caches()["last"]

    def free_memory_bytes(self) -> int:
        """Memory that inputs and references may take."""
        return host.available_memory_bytes()

    def finish(self) -> None:
        """Nothing is queued on a CPU."""

    def release_memory(self) -> None:
        """Memory of a CPU is given back as it is freed."""

    def stopwatch(self, cache: CacheState, clock: Clock) -> Stopwatch:
        """The monotonic clock: call by call when cold, in blocks when warm."""
        return HostStopwatch(block=cache == "warm")

    def allow_tf32(self, allowed: bool) -> None:
        """TF32 does not exist on a CPU."""

    def peak_memory(self, call: Callable[[], object]) -> int | None:
        """Not measured on a CPU: torch keeps no peak of its CPU allocator."""
        return None

    def watch(self, call: Callable[[], object], states: Sequence[CacheState]) -> dict[CacheState, Any]:
        """A CPU leaves no records of kernels; its second clock is read with every sample."""
        return {}

    def describe(self) -> Environment:
        """What the numbers depend on."""
        return Environment(
            **software(),
            cpu=self.name,
            threads=torch.get_num_threads(),
            units=host_layout.units().text,
            memory_nodes=host_layout.memory_nodes(),
            caches=host.caches_in_words(),
            computer_hash=salted_hash(host_layout.machine_identity()),
            compiler=compiler_name(),
        )


def machine_id(name: str) -> str:
    """The catalogue's id of a device, or one made of its name: "AMD EPYC 9B14" becomes "amd-epyc-9b14"."""
    row = by_driver_name(name)
    return row.id if row else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def open_device(wanted: str, keep_threads: bool = False) -> Any:
    """Open "auto", "cpu" or "cuda:N"; raises `DeviceError` with a sentence. keep_threads : as in `CpuDevice`."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return CpuDevice(keep_threads)
    if not torch.cuda.is_available():
        why = unused_gpu.passed_over() or "Torch sees no NVIDIA GPU here; see `seqroof doctor`."
        raise DeviceError(f"{wanted} was asked for and cannot be used; --device cpu needs no GPU. {why}")
    from .devices_cuda import CudaDevice

    index = 0 if wanted in ("auto", "cuda") else int(wanted.removeprefix("cuda:"))
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"There is no cuda:{index}; this machine has {torch.cuda.device_count()} GPU(s), counted from 0."
        )
    return CudaDevice(index)
