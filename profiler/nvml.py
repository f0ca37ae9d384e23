"""An NVIDIA GPU through NVML, found by UUID or PCI id and never by index; it is only read, nothing is ever set.

A function may be missing from the package or the driver, unsupported by the device, or not permitted. The fact is then
None, and `reasons` says why. Nothing here raises. The package is nvidia-ml-py; its module is imported when a GPU is
opened.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

# What NVML's common refusals mean for a reader; others are told in NVML's own words.
_REFUSALS = {
    "NotSupported": "this device does not report it",
    "NoPermission": "not permitted to this user",
    "FunctionNotFound": "the driver is too old to report it",
    "LibraryNotFound": "the driver's library libnvidia-ml is not here",
    "DriverNotLoaded": "the NVIDIA driver is not loaded",
    "NotFound": "NVML knows no such device",
    "InvalidArgument": "NVML knows no such device",
    "GpuIsLost": "the GPU has fallen off the bus",
}


class Gpu:
    """One GPU. Facts are methods and properties that return None where nothing is known.

    uuid : with or without its prefix GPU- or MIG-. pci : "00000000:1B:00.0", tried where no UUID matches.
    module : stands in for pynvml in tests.
    """

    def __init__(self, uuid: str = "", pci: str = "", module: Any = None) -> None:
        self.reasons: dict[str, str] = {}
        self._handle: Any = None
        self._slice: Any = None
        self._seen_us = 0
        try:
            self._nvml = module if module is not None else importlib.import_module("pynvml")
        except ImportError:
            self._nvml = None
            self.reasons["device"] = "the package nvidia-ml-py is not installed"
            return
        self._ask("device", "nvmlInit")
        if "device" not in self.reasons:
            self._find(uuid, pci)

    def _find(self, uuid: str, pci: str) -> None:
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        for lookup, name in (
            ("nvmlDeviceGetHandleByUUID", f"GPU-{bare}" if bare else ""),
            ("nvmlDeviceGetHandleByUUID", f"MIG-{bare}" if bare else ""),
            ("nvmlDeviceGetHandleByPciBusId", pci),
        ):
            found = self._ask("device", lookup, name) if name else None
            if found is not None:
                self.reasons.pop("device", None)
                self._handle = found
                if name.startswith("MIG-"):
                    self._slice = found
                    self._handle = self._ask("device", "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", found) or found
                return
        self.reasons.setdefault("device", "neither a UUID nor a PCI id of this device is known")

    @property
    def found(self) -> bool:
        """Whether NVML knows the device."""
        return self._handle is not None

    def _ask(
        self, fact: str, function: str, *arguments: Any, read: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        """What `read` makes of an NVML answer; None, with the reason noted under `fact`, where there is none."""
        known = getattr(self._nvml, function, None)
        if known is None:
            self.reasons[fact] = f"the installed nvidia-ml-py has no {function}"
            return None
        try:
            answer = known(*arguments)
        except Exception as error:  # whatever a driver answers, a fact is no reason to lose a measurement
            name = type(error).__name__.removeprefix("NVMLError_")
            self.reasons[fact] = _REFUSALS.get(name, f"{function}: {error}"[:160])
            return None
        try:
            return read(answer)
        except (TypeError, ValueError, AttributeError, LookupError):
            self.reasons[fact] = f"{function} answered {answer!r}"[:160]
            return None

    def _of_device(self, fact: str, function: str, *arguments: Any, read: Callable[[Any], Any]) -> Any:
        if self._handle is None:
            self.reasons[fact] = self.reasons["device"]
            return None
        return self._ask(fact, function, self._handle, *arguments, read=read)

    def _scaled(self, fact: str, unit: float, function: str, *constants: str) -> float | None:
        """A number of the device in SI units; `constants` are names of arguments in the module."""
        arguments = [getattr(self._nvml, name, None) for name in constants]
        if self._nvml is not None and None in arguments:
            self.reasons[fact] = "the installed nvidia-ml-py does not know this quantity"
            return None
        return self._of_device(fact, function, *arguments, read=lambda answer: float(answer) * unit)

    @cached_property
    def driver(self) -> str:
        """The driver's version, empty where it is not known."""
        return self._ask("driver", "nvmlSystemGetDriverVersion", read=_text) or ""

    def clock_hz(self) -> float | None:
        """Frequency of the multiprocessors now."""
        return self._scaled("clock_hz", 1e6, "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM")

    def memory_clock_hz(self) -> float | None:
        """Frequency of the memory now."""
        return self._scaled("memory_clock_hz", 1e6, "nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM")

    @cached_property
    def highest_clock_hz(self) -> float | None:
        """The highest frequency that the multiprocessors can have."""
        return self._scaled("reference_clock_hz", 1e6, "nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM")

    def power_w(self) -> float | None:
        """Power drawn; on recent devices the driver's mean over a second or less."""
        return self._scaled("power_w", 1e-3, "nvmlDeviceGetPowerUsage")

    def energy_j(self) -> float | None:
        """Energy drawn since the driver was loaded."""
        return self._scaled("energy_j", 1e-3, "nvmlDeviceGetTotalEnergyConsumption")

    def temperature_c(self) -> float | None:
        """Temperature of the chip."""
        return self._scaled("temperature_c", 1.0, "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU")

    @cached_property
    def power_limit_w(self) -> float | None:
        """The limit that the driver enforces."""
        return self._scaled("power_limit_w", 1e-3, "nvmlDeviceGetEnforcedPowerLimit")

    @cached_property
    def power_default_w(self) -> float | None:
        """The limit that the device is delivered with."""
        return self._scaled("power_default_w", 1e-3, "nvmlDeviceGetPowerManagementDefaultLimit")

    def throttle_bits(self) -> int | None:
        """Reasons why clocks are held down, one bit each; the function has an older name in older packages."""
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        answer = None
        # A package may know a name that its driver does not.
        for name in [name for name in names if hasattr(self._nvml, name)] or names[:1]:
            answer = self._of_device("throttle", name, read=int) if answer is None else answer
        return answer

    def busy_share(self) -> float | None:
        """Share of the driver's last sampling period in which any kernel ran."""
        return self._of_device("busy_share", "nvmlDeviceGetUtilizationRates", read=lambda rates: rates.gpu / 100)

    @cached_property
    def mig(self) -> str:
        """ "off", "on", or the name of the slice; empty where it is not known."""
        if self._slice is not None:
            return self._ask("mig", "nvmlDeviceGetName", self._slice, read=_text) or "on"
        return self._of_device("mig", "nvmlDeviceGetMigMode", read=_current_mode) or ""

    @property
    def sliced(self) -> bool:
        """Whether the device is a slice of a GPU, whose power and energy NVML tells for the whole GPU only."""
        return self._slice is not None or self.mig == "on"

    @cached_property
    def ecc(self) -> str:
        """Whether memory errors are corrected: "on" or "off"; empty where it is not known."""
        return self._of_device("ecc", "nvmlDeviceGetEccMode", read=_current_mode) or ""

    def others(self) -> int | None:
        """Processes on this device, or on its slice, besides this one.

        In a container NVML numbers processes as the host does, so one of those that it lists is taken for this one.
        """
        if self._handle is None:
            self.reasons["other_processes"] = self.reasons["device"]
            return None
        handle = self._slice if self._slice is not None else self._handle
        pids = self._ask("other_processes", "nvmlDeviceGetComputeRunningProcesses", handle, read=_pids)
        if pids is None:
            return None
        if not pids:
            self.reasons["other_processes"] = "NVML lists not even this process, as in some containers"
            return None
        return len(pids) - 1

    def others_share(self) -> float | None:
        """Share of the multiprocessors' time that other processes took since the last look."""
        samples = self._of_device("other_share", "nvmlDeviceGetProcessUtilization", self._seen_us, read=_shares)
        if not samples:
            if self.reasons.get("other_share") in (None, _REFUSALS["NotFound"]):  # that is how NVML says "none"
                self.reasons["other_share"] = "NVML has no utilisation by process since the last look"
            return None
        self._seen_us = max(at for _, at, _ in samples)
        if os.getpid() not in {pid for pid, _, _ in samples}:
            self.reasons["other_share"] = "NVML numbers processes as the host does, so this one is not told from others"
            return None
        return sum(share for pid, _, share in samples if pid != os.getpid())


def _text(answer: Any) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


def _current_mode(answer: Any) -> str:
    """NVML tells modes as a pair: the current one, and the one after the next start."""
    return "on" if answer[0] else "off"


def _pids(answer: Any) -> set[int]:
    return {process.pid for process in answer}


def _shares(answer: Any) -> list[tuple[int, int, float]]:
    """Process, time stamp in microseconds, and share of the multiprocessors."""
    return [(sample.pid, sample.timeStamp, sample.smUtil / 100) for sample in answer]


def pci_id(properties: Any) -> str:
    """The PCI id of torch's device properties as NVML writes it; empty where this torch does not tell it."""
    numbers = [getattr(properties, name, None) for name in ("pci_domain_id", "pci_bus_id", "pci_device_id")]
    if any(number is None for number in numbers):
        return ""
    domain, bus, device = numbers
    return f"{domain:08X}:{bus:02X}:{device:02X}.0"
