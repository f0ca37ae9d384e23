"""A stand-in for the module pynvml: one GPU whose answers a test chooses, and functions that fail as NVML's do."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

UUID = "GPU-11111111-2222-3333-4444-555555555555"
PCI = "00000000:1B:00.0"
MIG_UUID = "MIG-99999999-2222-3333-4444-555555555555"


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlSystemGetDriverVersion": b"580.159.04",
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetPowerUsage": 412_000,
    "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
    "nvmlDeviceGetTemperature": 54,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=40),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
    "nvmlDeviceGetProcessUtilization": [SimpleNamespace(pid=os.getpid(), smUtil=90, timeStamp=1)],
    "nvmlDeviceGetName": "NVIDIA H200 MIG 1g.18gb",
}


def _found(asked: str, known: str) -> str:
    if asked != known:
        raise NVMLError_NotFound("Not Found")
    return f"handle of {asked}"


class FakeNvml:
    """`FakeNvml(nvmlDeviceGetPowerUsage=350_000)` answers so; an exception is raised, and `missing` does not exist."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, missing: tuple[str, ...] = (), uuid: str = UUID, **answers: Any) -> None:
        own = {
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1755, 2: 3201}[kind],
            "nvmlDeviceGetHandleByUUID": lambda asked: _found(asked, uuid),
            "nvmlDeviceGetHandleByPciBusId": lambda asked: _found(asked, PCI),
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: "handle of the whole GPU",
        }
        self._answers = {**ANSWERS, **own, **answers}
        self._missing = missing
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml") or name in self._missing or name not in self._answers:
            raise AttributeError(name)
        return lambda *arguments: self._answer(name, arguments)

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        self.called.append(name)
        answer = self._answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer(*arguments) if callable(answer) else answer
