"""What roofs depend on besides the machine's name, in the worker: two runs that agree in all of it may share them."""

from __future__ import annotations

from typing import Any

import torch

from . import host, host_layout
from .packages import version_of
from .versions import hashed

Identity = dict[str, str | float | int | None]


def roof_identity(device: Any) -> Identity:
    """Device, driver, largest clocks and software of an opened device. Without a `device` nothing may be shared."""
    shared: Identity = {"torch": torch.__version__, "triton": version_of("triton")}
    return shared | (_cpu() if device.kind == "cpu" else _gpu(device.properties, device.describe()))


def _cpu() -> Identity:
    """A processor is known by the boot of its system: not even an equal one next to it has the same."""
    boot = host_layout.boot_identity()
    return {
        "device": hashed(boot + host.processor_name()) if boot else "",
        "threads": torch.get_num_threads(),
        "nodes": host_layout.memory_nodes(),
        "clock_hz": host_layout.highest_frequency_hz(),
    }


def _gpu(properties: Any, environment: Any) -> Identity:
    """A GPU, or a slice of one, is known by its UUID.

    Clocks are the largest that the driver states for the device: those of the moment change at rest, and a lower limit
    that somebody has set does not show here but in the product that is timed again.
    """
    uuid = str(getattr(properties, "uuid", ""))
    return {
        "device": hashed(uuid) if uuid else "",
        "driver": environment.driver,
        "cuda": environment.cuda,
        "sms": properties.multi_processor_count,
        "clock_hz": _hertz(properties, "clock_rate"),
        "memory_clock_hz": _hertz(properties, "memory_clock_rate"),
        "power_limit_w": environment.power_limit_w,
    }


def _hertz(properties: Any, name: str) -> float | None:
    """A clock that CUDA states in kHz; None where this torch does not pass it on."""
    value = getattr(properties, name, None)
    return value * 1e3 if value else None
