"""What this machine can and cannot measure: each obstacle with its cause and its fix. Starts no worker."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from typing import Literal

from . import host, host_layout
from .packages import version_of
from .second_clock import Waiting, raw_ns
from .unused_gpu import DriverSilent, listed, obstacle, torch_of_child

# Below this much free memory the standard suite's largest references do not fit.
COMFORTABLE_MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    state: Literal["ok", "limited", "missing"]
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which a user would mend them."""
    return [
        _python(),
        _torch(),
        _gpu(),
        _triton(),
        _compiler(),
        _report(),
        _processor(),
        _layout(),
        _clocks(),
        _memory(),
    ]


def _python() -> Finding:
    return Finding("python", "ok", platform.python_version())


def _torch() -> Finding:
    version = version_of("torch")
    if not version:
        return Finding(
            "torch",
            "missing",
            "not installed: results can be read, nothing can be measured",
            "run scripts/profile once, or in the checkout: pip install '.[run]'",
        )
    return Finding("torch", "ok", version)


def _gpu() -> Finding:
    try:
        found = listed("name,driver_version,mig.mode.current,memory.total")
    except DriverSilent as silent:
        return Finding("GPU", "limited", str(silent), "reload or reinstall the driver")
    if not found:
        return Finding(
            "GPU",
            "missing",
            "no NVIDIA driver here (nvidia-smi not found): kernels run on the CPU, Triton rows are skipped",
            "on a machine with an NVIDIA GPU, install its driver",
        )
    names = "; ".join(found)
    unused = obstacle(torch_of_child()) if version_of("torch") else None
    if unused:
        return Finding("GPU", "limited", f"{names}: not used, kernels run on the CPU, as {unused[0]}", unused[1])
    if "Enabled" in names:
        return Finding("GPU", "limited", f"{names}: a slice of a GPU; roofs are measured on the slice")
    if names.count(";"):
        names += "; all at once: torchrun --nproc-per-node=gpu -m seqroof.scripts.fleet profile --out FOLDER"
    return Finding("GPU", "ok", names)


def _triton() -> Finding:
    version = version_of("triton")
    if version:
        return Finding(
            "triton", "ok", f"{version}: kernels compile here for any NVIDIA target, and run interpreted on a CPU"
        )
    fix = "pip install triton" if platform.system() == "Linux" else "triton installs on Linux only"
    return Finding("triton", "missing", "not installed: Triton rows are skipped", fix)


def _compiler() -> Finding:
    found = next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), "")
    if found:
        return Finding("C++ compiler", "ok", f"{found}: torch.compile rows run")
    return Finding(
        "C++ compiler", "missing", "none found: torch.compile rows are skipped on a CPU", "install g++ or clang"
    )


def _report() -> Finding:
    missing = [
        name
        for name, module in (("jinja2", "jinja2"), ("vl-convert-python", "vl_convert"))
        if not importlib.util.find_spec(module)
    ]
    if missing:
        fix = "run scripts/profile once, or in the checkout: pip install '.[report]'"
        return Finding("page and chart", "missing", f"{' and '.join(missing)} not installed", fix)
    return Finding("page and chart", "ok", "HTML, SVG, PNG and PDF can be written")


def _processor() -> Finding:
    cores, load = host.usable_cores(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    caches = host.caches()
    text = f"{host.processor_name()}, {cores} cores, last cache {caches['last'] / 2**20:.0f} MiB as reported"
    if load > 0.5 * cores:
        return Finding(
            "processor",
            "limited",
            f"{text}; load {load:.1f}: other programs disturb the clock",
            "stop them, or expect wide intervals",
        )
    return Finding("processor", "ok", text)


def _layout() -> Finding:
    return Finding("units and nodes", "ok", f"{host_layout.units().text}; {host_layout.memory_nodes()}")


def _clocks() -> Finding:
    missing = [] if raw_ns() is not None else ["no raw clock: the host's time has no second one"]
    if Waiting(host.usable_cores()).before is None:
        missing.append("/proc tells no waiting for a processor: noise is seen, its cause is not")
    if missing:
        return Finding("clocks", "limited", "; ".join(missing), "measure on Linux, where both are told")
    gpu = "; a GPU's records by torch.profiler" if shutil.which("nvidia-smi") else ""
    return Finding("clocks", "ok", f"monotonic, beside it the raw one and the waiting for a processor{gpu}")


def _memory() -> Finding:
    free = host.available_memory_bytes()
    text = f"{free / 2**30:.1f} GiB free"
    if free < COMFORTABLE_MEMORY_BYTES:
        return Finding("memory", "limited", text, "use the quick suite or smaller shapes")
    return Finding("memory", "ok", text)
