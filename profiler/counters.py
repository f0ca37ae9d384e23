"""Hardware counters from child processes: `ncu` on an NVIDIA GPU, `perf stat` on a CPU.

The child runs one case a few times (`counted_case`). Only counts are taken, never durations, and clocks are left alone.
Whether counters are there and permitted is found out by trying, with a copy of known size. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..roofline import ncu
from ..roofline.telemetry import Counted
from . import perf

RUNNER = "seqroof.profiler.counted_case"
# Starting Python, torch and the device takes ten seconds, and ncu runs every kernel once per pass of counters.
DEADLINE_S = 180.0
# A copy that no cache holds, small enough for every device: what a probe counts.
PROBE_BYTES = 2**28
# Name of the kernel of torch.cuda._sleep, which the runner starts before every case.
MARKER = "spin_kernel"
# Places where the CUDA toolkit and Nsight Compute put ncu without telling PATH.
_NCU_PLACES = ("/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")
_PERMISSION_FIX = (
    "load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0, or run as root; a container needs "
    "--cap-add=SYS_ADMIN"
)


class CountersDenied(Exception):
    """Counters that cannot be read here. The text is the cause, `fix` what to do."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.fix = fix


class Tool(Protocol):
    """Something that runs the runner and counts."""

    name: str

    def count(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Counted]:
        """Counts per call by implementation; raises `CountersDenied`."""
        ...


def tool_for(kind: str) -> Tool:
    """The tool of a "cuda" or "cpu" device; raises `CountersDenied` where it is not installed."""
    if kind == "cuda":
        found = shutil.which("ncu") or next(
            (str(path) for place in _NCU_PLACES for path in sorted(Path("/").glob(place[1:]))), None
        )
        if found is None:
            raise CountersDenied(
                "ncu is not installed", "install Nsight Compute, or report --ncu with a file of another machine"
            )
        return Ncu(found)
    found = shutil.which("perf")
    if found is None:
        raise CountersDenied("perf is not installed", "install the package linux-perf or linux-tools of this kernel")
    return Perf(found)


def probe(tool: Tool, device: str) -> Counted:
    """Count a copy of known size; raises `CountersDenied` with cause and fix where that is not possible."""
    found = counted_bytes(tool, {"device": device, "copy_bytes": PROBE_BYTES})
    if found.dram_read_bytes is None:
        raise CountersDenied(
            found.reason or "no bytes were counted",
            "measure on a machine that offers them, or add a file of ncu: seqroof report RUN --ncu FILE",
        )
    return found


def counted_bytes(tool: Tool, request: Mapping[str, Any], deadline_s: float = DEADLINE_S) -> Counted:
    """Counts of one call of one case, or of a copy of `copy_bytes`; raises `CountersDenied`."""
    found = tool.count(request, deadline_s)
    return next(iter(found.values()), Counted(reason="nothing was counted"))


class Ncu:
    """Nsight Compute's command line."""

    name = "ncu"

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Counted]:
        """Count all cases of a request in one process; a metric that this device lacks is left out."""
        names = request.get("implementations", ["copy"])
        with tempfile.TemporaryDirectory() as folder:
            log, status = Path(folder, "ncu.csv"), Path(folder, "status.json")
            for metrics in (ncu.METRICS, ncu.METRICS[:3]):
                said = run_child(self._command(metrics, log, request, status), deadline_s)
                text = log.read_text(errors="replace") if log.exists() else ""
                if not _lacks_metric(said + text):
                    break
            _refuse_if_denied(said + text)
            told = json.loads(status.read_text()) if status.exists() else {}
        try:
            launches = ncu.parse(text)
        except ncu.NcuError as error:
            last = next((line for line in reversed((text + said).splitlines()) if "==ERROR==" in line), "")
            raise CountersDenied(f"ncu gave {error} {last}".strip()[:300], "run ncu by hand and see") from error
        return _by_case(launches, names, told, self._how(request))

    def _command(self, metrics: Sequence[str], log: Path, request: Mapping[str, Any], status: Path) -> list[str]:
        cold = request.get("cache", "cold") == "cold"
        options = ["--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log), "--force-overwrite"]
        options += ["--metrics", ",".join(metrics), "--clock-control", "none", "--profile-from-start", "off"]
        options += ["--cache-control", "all" if cold else "none", "--target-processes", "all"]
        return [self.path, *options, *runner(request, status)]

    def _how(self, request: Mapping[str, Any]) -> str:
        cold = request.get("cache", "cold") == "cold"
        return "ncu in a process of its own, every kernel replayed, caches " + (
            "flushed before each kernel" if cold else "as the kernel before left them"
        )


class Perf:
    """Linux's perf stat. It counts a whole process, so every implementation has one of its own."""

    name = "perf"

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Counted]:
        """Count each case between two signals of the runner."""
        events, how, provenance = perf.events()
        found = {}
        for name in request.get("implementations", ["copy"]):
            with tempfile.TemporaryDirectory() as folder:
                out, status = Path(folder, "perf.csv"), Path(folder, "status.json")
                control, ack = (Path(folder, end) for end in ("control", "ack"))
                os.mkfifo(control)
                os.mkfifo(ack)
                options = ["stat", "-x", ",", "-o", str(out), "-D", "-1", "--control", f"fifo:{control},{ack}"]
                options += [*events, "--", *runner({**request, "implementations": [name]}, status, (control, ack))]
                said = run_child([self.path, *options], deadline_s)
                text = out.read_text(errors="replace") if out.exists() else ""
                told = json.loads(status.read_text()) if status.exists() else {}
            denied = perf.denied(said + text)
            if denied:
                raise CountersDenied(*denied)
            failed = told.get("failed", {}).get(name)
            calls = told.get("calls", 1)
            found[name] = Counted(reason=failed, how=how) if failed else perf.counted(text, calls, how, provenance)
        return found


def runner(request: Mapping[str, Any], status: Path, control: tuple[Path, Path] | None = None) -> list[str]:
    """The command that runs the cases of a request; it writes to `status` what it has done."""
    command = [sys.executable, "-m", RUNNER, "--request", json.dumps(dict(request)), "--status", str(status)]
    return command + (["--control", *map(str, control)] if control else [])


def run_child(command: Sequence[str], deadline_s: float) -> str:
    """Run a tool with everything it starts; returns what it said. Past its deadline all of it is killed."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise CountersDenied(f"{Path(command[0]).name} does not start: {error.strerror}", "reinstall it") from error
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            cause = f"{Path(command[0]).name} had not ended after {deadline_s:.0f} s and was killed"
            raise CountersDenied(cause, "count fewer or smaller cases") from None
        except BaseException:
            _kill(process)
            raise
        said.seek(0)
        return said.read().decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lacks_metric(text: str) -> bool:
    return "Failed to find metric" in text or "is not available on" in text


def _refuse_if_denied(text: str) -> None:
    """Raise what ncu's known refusals mean."""
    if "ERR_NVGPUCTRPERM" in text:
        raise CountersDenied("the driver gives GPU counters to administrators only (ERR_NVGPUCTRPERM)", _PERMISSION_FIX)
    if "LibraryNotLoaded" in text or "Failed to initialize the profiler" in text:
        raise CountersDenied(
            "ncu cannot reach the driver's profiler, as in some sandboxes", "run on the host or in a plain container"
        )
    if "No kernels were profiled" in text:
        raise CountersDenied("ncu saw no kernel", "run ncu by hand on a small program and see what it says")


def _by_case(
    launches: Sequence[ncu.Launch], names: Sequence[str], told: Mapping[str, Any], how: str
) -> dict[str, Counted]:
    """Part the launches at the markers; what failed in the runner has its reason instead."""
    parts: list[list[ncu.Launch]] = []
    for launch in launches:
        if MARKER in launch.name:
            parts.append([])
        elif parts:
            parts[-1].append(launch)
    begun = told.get("begun", names)
    found = {name: ncu.summed(part, told.get("calls", 1), how) for name, part in zip(begun, parts)}
    failed = {name: Counted(reason=reason, how=how) for name, reason in told.get("failed", {}).items()}
    silent = {name: Counted(reason="the case did not come to its turn", how=how) for name in names}
    return silent | found | failed
