"""What stands in the way of clean numbers on this machine's devices: power limits, slices, tenants, meters, counters.

Part of the doctor's report. GPUs are named by the UUIDs that nvidia-smi lists. Imports no torch.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence

from ..roofline.throttling import decode, reason_named
from . import counters, perf
from .energy import GpuMeter, RaplMeter
from .health import Finding
from .nvml import Gpu
from .unused_gpu import DriverSilent, listed

# A tool that counts a process that does nothing answers at once.
DEADLINE_S = 30.0


def obstacles() -> list[Finding]:
    """Findings about every GPU, and about energy and counters of what kernels would run on."""
    uuids = gpu_uuids()
    gpus = [Gpu(uuid) for uuid in uuids]
    found = [finding for gpu in gpus for finding in of_gpu(gpu)]
    return [*found, energy(gpus), gpu_counters() if gpus else cpu_counters()]


def gpu_uuids() -> list[str]:
    """The UUIDs of all GPUs of the driver; empty without a driver, or where it does not answer."""
    try:
        return listed("uuid")
    except DriverSilent:
        return []


def of_gpu(gpu: Gpu) -> list[Finding]:
    """What NVML says of one GPU at this moment."""
    if not gpu.found:
        cause = f"NVML does not answer: {gpu.reasons['device']}; clocks, power and throttling stay unknown"
        return [
            Finding("GPU telemetry", "limited", cause, "pip install nvidia-ml-py, and see that the driver is loaded")
        ]
    found = [_clocks(gpu), _tenants(gpu)]
    limit, default = gpu.power_limit_w, gpu.power_default_w
    if limit is not None and default is not None and limit < default:
        detail = f"limit {limit:.0f} W, {default:.0f} W by default: kernels may run slower than this device allows"
        found.append(
            Finding("GPU power", "limited", detail, "whoever set it can lift it: nvidia-smi -pl; or compare under it")
        )
    if gpu.mig not in ("", "off"):
        detail = f"in slices (MIG {gpu.mig}): memory and multiprocessors are divided"
        found.append(Finding("GPU slice", "limited", detail, "compare with roofs of the same slice only"))
    return found


def _clocks(gpu: Gpu) -> Finding:
    bits = gpu.throttle_bits()
    names = [name for name in decode(bits or 0) if reason_named(name).kind not in ("idle", "power cap")]
    if bits is None:
        detail = f"throttle reasons are not told: {gpu.reasons['throttle']}"
        return Finding("GPU clocks", "limited", detail, "watch the clock-normalised times instead")
    if names:
        fix = "; ".join(reason_named(name).fix for name in names)
        return Finding("GPU clocks", "limited", f"held down now by: {', '.join(names)}", fix)
    clock = gpu.highest_clock_hz
    return Finding("GPU clocks", "ok", "not held down now" + (f"; up to {clock / 1e6:.0f} MHz" if clock else ""))


def _tenants(gpu: Gpu) -> Finding:
    # The doctor itself uses no GPU, so whatever keeps one busy belongs to somebody else.
    busy = gpu.busy_share()
    if busy is None:
        reason = gpu.reasons.get("busy_share", "not told")
        return Finding("GPU tenants", "limited", f"utilisation is not told: {reason}", "ask the owner of the machine")
    if busy > 0:
        detail = f"busy for {busy:.0%} of the last second, and not with this program"
        return Finding("GPU tenants", "limited", detail, "wait for the other program, or choose another GPU")
    return Finding("GPU tenants", "ok", "nobody else computes on it now")


def energy(gpus: Sequence[Gpu]) -> Finding:
    """Whether energy per call can be measured."""
    meter = GpuMeter(gpus[0]) if gpus else RaplMeter()
    if meter.reason:
        readable = "let root make it readable: chmod o+r /sys/class/powercap/*/energy_uj"
        fix = readable if "root only" in meter.reason else "measure on a machine whose device tells its energy"
        return Finding("energy", "missing", f"not measured: {meter.reason}", fix)
    return Finding("energy", "ok", meter.how)


def gpu_counters(find: Callable[[str], counters.Tool] = counters.tool_for) -> Finding:
    """Whether ncu is here and permitted: it counts a kernel of known traffic, which takes some seconds."""
    what = "hardware counters"
    try:
        found = counters.probe(find("cuda"), "cuda:0")
    except counters.CountersDenied as denied:
        state = "missing" if "not installed" in str(denied) else "limited"
        return Finding(what, state, f"{denied}: bytes are modelled", denied.fix)
    ratio = (found.dram_read_bytes or 0.0) / counters.PROBE_BYTES
    return Finding(
        what, "ok", f"ncu counts; a kernel of known traffic read {ratio:.2f} x its bytes: profile --counters"
    )


def cpu_counters() -> Finding:
    """Whether perf is here, permitted, and offered anything by the processor."""
    what, tool = "hardware counters", shutil.which("perf")
    if tool is None:
        return Finding(what, "missing", "perf is not installed: bytes are modelled", "install linux-perf")
    events, how, _ = perf.events()
    command = [tool, "stat", "-x", ",", *events, "--", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(what, "missing", f"perf does not answer ({type(error).__name__}): bytes are modelled")
    refused = perf.denied(done.stderr)
    if refused:
        return Finding(what, "limited", f"{refused[0]}: bytes are modelled", refused[1])
    found = perf.counted(done.stderr, 1, how, "")
    if found.dram_read_bytes is None:
        return Finding(what, "missing", f"{found.reason}: bytes are modelled", "measure on the bare machine")
    return Finding(what, "ok", f"perf, {how}: profile --counters")
