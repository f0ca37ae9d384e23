"""Device seconds by CUDA events, and what the driver says about a GPU: shared by the gauges of a GPU.

Launches are queued behind a short sleep of the device, so that the pace of the host does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

# Sleeps that hide the queueing of a few launches and of hundreds: about 0.2 and 20 ms at 1.8 GHz.
SHORT_SLEEP_CYCLES = 400_000
LONG_SLEEP_CYCLES = 36_000_000
# 64 Ki registers of 4 bytes: every SM that Triton compiles for.
REGISTER_BYTES_PER_SM = 256 * 2**10
TORCH_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


# Tensor cores multiply 8-bit floats from Ada on.
FP8_CAPABILITY = (8, 9)


def is_slice(properties: Any) -> bool:
    """Whether torch's device properties are those of a MIG slice: its name or its UUID says so."""
    return " MIG " in f"{properties.name} " or str(getattr(properties, "uuid", "")).startswith("MIG-")


@dataclass(frozen=True)
class Facts:
    """A GPU as the driver describes it; on a MIG slice these are the slice's.

    sms : streaming multiprocessors. cache, shared_per_sm, free : bytes of L2, of shared memory per SM, of free memory.
    tensor_dtypes : what its tensor cores multiply. capability : compute capability as (major, minor).
    bus_bits, memory_hz, sm_hz : width of the memory bus and largest clocks; None where torch does not tell.
    mig : whether this is a slice of a GPU; bus and memory clock are then those of the whole GPU.
    """

    device: str
    sms: int
    cache: int
    shared_per_sm: int
    free: int
    tensor_dtypes: tuple[str, ...]
    capability: tuple[int, int] = (0, 0)
    bus_bits: int | None = None
    memory_hz: float | None = None
    sm_hz: float | None = None
    mig: bool = False

    @staticmethod
    def of(device: str, properties: Any, free: int) -> Facts:
        """From torch's device properties, which state clocks in kHz.

        fp16 needs compute capability 7, tf32 and bf16 need 8, fp8 needs 8.9.
        """
        capability = properties.major, getattr(properties, "minor", 0)
        dtypes = {7: ("fp16",)}.get(properties.major, ("tf32", "fp16", "bf16") if properties.major >= 8 else ())
        memory_hz, sm_hz = (getattr(properties, name, 0) * 1e3 for name in ("memory_clock_rate", "clock_rate"))
        return Facts(
            device=device,
            sms=properties.multi_processor_count,
            cache=properties.L2_cache_size,
            shared_per_sm=properties.shared_memory_per_multiprocessor,
            free=free,
            tensor_dtypes=(*dtypes, "fp8") if capability >= FP8_CAPABILITY else dtypes,
            capability=capability,
            bus_bits=getattr(properties, "memory_bus_width", 0) or None,
            memory_hz=memory_hz or None,
            sm_hz=sm_hz or None,
            mig=is_slice(properties),
        )

    @staticmethod
    def here(device: str) -> Facts:
        """Ask the driver about "cuda:N"."""
        return Facts.of(device, torch.cuda.get_device_properties(device), torch.cuda.mem_get_info(device)[0])

    @property
    def chip_bytes(self) -> int:
        """Shared memory and registers of all SMs."""
        return self.sms * (self.shared_per_sm + REGISTER_BYTES_PER_SM)


def event_seconds(call: Callable[[], object], repeats: int, sleep_cycles: int = SHORT_SLEEP_CYCLES) -> float:
    """Device seconds per call of a queue of calls, between two events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(sleep_cycles)
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / repeats


def timed(call: Callable[[], object], repeats: int = 3, sleep_cycles: int = SHORT_SLEEP_CYCLES) -> Callable[[], float]:
    """A sample in device time."""
    return lambda: event_seconds(call, repeats, sleep_cycles)


def slope(call: Callable[[int], object], counts: tuple[int, int]) -> Callable[[], float]:
    """A sample of what one more step costs: `call(steps)` for two numbers of steps, the difference divided."""
    few, many = counts

    def sample() -> float:
        return (event_seconds(partial(call, many), 1) - event_seconds(partial(call, few), 1)) / (many - few)

    return sample


def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
    """Start so many programs of a Triton kernel."""
    kernel[(programs,)](*arguments, **options)


def random_values(count: int, device: str, dtype: str = "fp32") -> torch.Tensor:
    """`count` normal numbers on a device."""
    return torch.randn(count, device=device, dtype=TORCH_DTYPES[dtype])
