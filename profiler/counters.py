"""Hardware counters from child processes: `ncu` on an NVIDIA GPU, `perf stat` on a CPU.

The child runs one case a few times (`counted_case`). Only counts are taken, never durations, and clocks are left alone.
Whether counters are there and permitted is found out by trying, with a kernel of known traffic: it negates an array. A
copy would not do, since the driver's own copies and fills are no kernels, and `ncu` does not see them. Nothing here
imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
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
# An array that no cache holds, small enough for every device: what the probe reads, and writes as much.
PROBE_BYTES = 2**28
PROBE = "negation"
# ncu says of every kernel how many times it ran for all metrics.
_PASSES = re.compile(r"^==PROF== Profiling.* (\d+) pass", re.MULTILINE)
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


class NotOffered(CountersDenied):
    """Counters that this machine does not offer: no tool, no permission, no way to the driver."""


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
            raise NotOffered(
                "ncu is not installed", "install Nsight Compute, or report --ncu with a file of another machine"
            )
        return Ncu(found)
    found = shutil.which("perf")
    if found is None:
        raise NotOffered("perf is not installed", "install the package linux-perf or linux-tools of this kernel")
    return Perf(found)


def probe(tool: Tool, device: str) -> Counted:
    """Count a kernel of known traffic; raises `CountersDenied` with cause and fix where that is not possible."""
    found = counted_bytes(tool, {"device": device, "probe_bytes": PROBE_BYTES})
    if found.dram_read_bytes is None:
        raise CountersDenied(
            found.reason or "no bytes were counted",
            "measure on a machine that offers them, or add a file of ncu: seqroof report RUN --ncu FILE",
        )
    return found


def counted_bytes(tool: Tool, request: Mapping[str, Any], deadline_s: float = DEADLINE_S) -> Counted:
    """Counts of one call of one case, or of a negation of `probe_bytes`; raises `CountersDenied`."""
    found = tool.count(request, deadline_s)
    return next(iter(found.values()), Counted(reason="nothing was counted"))


class Ncu:
    """Nsight Compute's command line."""

    name = "ncu"

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Counted]:
        """Count all cases of a request; the bytes in a process of their own, so that every kernel runs only once.

        Another process looks at the tensor pipe. What it finds out is extra, and so is what this device cannot count.
        """
        names = request.get("implementations", [PROBE])
        for metrics in (ncu.MEMORY, ncu.BYTES):
            text, told = self._counted(metrics, request, deadline_s)
            if not _lacks_metric(text) and _passes(text) <= 1:
                break
        if _cold(request) and _passes(text) > 1:
            reason = f"ncu ran every kernel {_passes(text)} times, and only the first run met flushed caches"
            return {name: Counted(reason=reason) for name in names}
        found = _by_case(_launches(text, ncu.BYTES), names, told, self._how(request))
        if PROBE in names:
            return found
        try:
            text, told = self._counted(ncu.PIPE, request, deadline_s)
            busy = _by_case(_launches(text, ncu.PIPE), names, told, "")
        except CountersDenied:
            return found
        return {
            name: counted.model_copy(update={"tensor_share": busy[name].tensor_share})
            for name, counted in found.items()
        }

    def _counted(
        self, metrics: Sequence[str], request: Mapping[str, Any], deadline_s: float
    ) -> tuple[str, Mapping[str, Any]]:
        """All that ncu wrote about these metrics, and what the runner told."""
        with tempfile.TemporaryDirectory() as folder:
            log, status = Path(folder, "ncu.csv"), Path(folder, "status.json")
            said = run_child(self._command(metrics, log, request, status), deadline_s)
            text = said + "\n" + (log.read_text(errors="replace") if log.exists() else "")
            told = json.loads(status.read_text()) if status.exists() else {}
            _refuse_if_denied(text, told)
            return text, told

    def _command(self, metrics: Sequence[str], log: Path, request: Mapping[str, Any], status: Path) -> list[str]:
        options = ["--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log), "--force-overwrite"]
        options += ["--metrics", ",".join(metrics), "--clock-control", "none", "--profile-from-start", "off"]
        # The runner flushes the caches before a cold call, as the clock does. ncu would flush them before every kernel.
        options += ["--cache-control", "none", "--target-processes", "all"]
        return [self.path, *options, *runner(request, status)]

    def _how(self, request: Mapping[str, Any]) -> str:
        caches = "flushed before the call" if _cold(request) else "as the call before left them"
        how = f"ncu in a process of its own, caches {caches}"
        return f"{how}; copies and fills by the driver are no kernels and not counted"


class Perf:
    """Linux's perf stat. It counts a whole process, so every implementation has one of its own."""

    name = "perf"

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Counted]:
        """Count each case between two signals of the runner."""
        events, how, provenance = perf.events()
        found = {}
        for name in request.get("implementations", [PROBE]):
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
                raise NotOffered(*denied)
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


def _cold(request: Mapping[str, Any]) -> bool:
    return request.get("cache", "cold") == "cold"


def _lacks_metric(text: str) -> bool:
    return "Failed to find metric" in text or "is not available on" in text


def _passes(text: str) -> int:
    """How many times a kernel ran at most; 1 where ncu does not say."""
    return max((int(count) for count in _PASSES.findall(text)), default=1)


def _launches(text: str, wanted: Sequence[str]) -> list[ncu.Launch]:
    """The launches in what ncu wrote, with one of these metrics.

    Raises `CountersDenied` with its last error where there are none.
    """
    try:
        return ncu.parse(text, wanted)
    except ncu.NcuError as error:
        last = next((line for line in reversed(text.splitlines()) if "==ERROR==" in line), "")
        raise CountersDenied(f"ncu gave {error} {last}".strip()[:300], "run ncu by hand and see") from error


def _refuse_if_denied(text: str, told: Mapping[str, Any]) -> None:
    """Raise what ncu's known refusals mean. told : by the runner, whose failures leave ncu without a kernel too."""
    if "ERR_NVGPUCTRPERM" in text:
        raise NotOffered("the driver gives GPU counters to administrators only (ERR_NVGPUCTRPERM)", _PERMISSION_FIX)
    if "LibraryNotLoaded" in text or "Failed to initialize the profiler" in text:
        raise NotOffered(
            "ncu cannot reach the driver's profiler, as in some sandboxes", "run on the host or in a plain container"
        )
    if "No kernels were profiled" in text:
        cause = next(iter(told.get("failed", {}).values()), "ncu saw no kernel")
        raise CountersDenied(cause, "run ncu by hand on a small program and see what it says")


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
