"""Runs cases a few times for a counting tool around it: `python -m seqroof.profiler.counted_case --request JSON`.

Inputs are drawn and everything is compiled before the tool is told to count. On a GPU a kernel of known name, that of
torch.cuda._sleep, stands before every case, so that the launches of several cases can be told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .calls import Group, call_of, grad_mode
from .copies import rotating_copies
from .counters import PROBE
from .devices import open_device
from .supervisor import CATALOG
from .versions import refuse_other_code

# Calls on a CPU between the two signals: perf's own share of the misses shrinks with them.
CPU_CALLS = 20
# A GPU counts every kernel exactly: one call.
CUDA_CALLS = 1


def main() -> None:
    """Run every case of the request; what fails is written to the status file and costs the others nothing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--request", required=True)
    parser.add_argument("--status", type=Path, required=True)
    parser.add_argument("--control", nargs=2, type=Path, default=None)
    arguments = parser.parse_args()
    request = json.loads(arguments.request)
    device = open_device(request["device"])
    calls = CUDA_CALLS if device.kind == "cuda" else CPU_CALLS
    told: dict[str, Any] = {"begun": [], "failed": {}, "calls": calls}
    for name, prepare in _cases(device, request):
        try:
            with grad_mode(request.get("direction", "forward")):
                call = prepare()
                call()
                if device.kind == "cuda" and request.get("cache", "cold") == "cold":
                    device.flush()
                device.finish()
                told["begun"].append(name)
                with _counting(device, arguments.control):
                    for _ in range(calls):
                        call()
                    device.finish()
        except Exception as error:  # the others can still be counted
            told["failed"][name] = f"{type(error).__name__}: {str(error)[:200]}"
        arguments.status.write_text(json.dumps(told))


def _cases(device: Any, request: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """Names and what makes their calls: a negation of known size, or the implementations of one group."""
    if "probe_bytes" in request:
        count = request["probe_bytes"] // 4
        yield PROBE, lambda: _negation(torch.randn(count, device=device.torch_device))
        return
    device.allow_tf32(request["dtype"] == "tf32")
    kernel = importlib.import_module(CATALOG).load(request["source"])
    shape = kernel.shape(**request["shape"])
    group = Group(device, kernel, shape, request["dtype"], request["direction"], request["seed"])
    for name in request["implementations"]:
        yield name, partial(_call, group, name, request["cache"] == "cold", request.get("code", {}))


def _call(group: Group, name: str, cold: bool, code: dict[str, str]) -> Callable[[], Any]:
    """One case. A GPU's caches are flushed before it; on a CPU cold calls rotate through copies, both as when timed.

    code : hashes of the files that were timed; raises `CodeChanged` where these are others.
    """
    refuse_other_code(group.module, code)
    run = group.kernel.implementations[name].run
    inputs = group.inputs(0)
    if not cold or group.device.kind == "cuda" or group.direction != "forward":
        return call_of(run, group.shape, inputs, group.direction)
    copies = rotating_copies([inputs], group.device.last_cache_bytes(), group.device.free_memory_bytes())
    turns = itertools.cycle([call_of(run, group.shape, copy, group.direction) for copy in copies])
    return lambda: next(turns)()


def _negation(source: torch.Tensor) -> Callable[[], Any]:
    """A kernel that reads one array and writes another. `copy_` would be none: on a GPU the driver copies."""
    target = torch.empty_like(source)
    return lambda: torch.neg(source, out=target)


@contextlib.contextmanager
def _counting(device: Any, control: tuple[Path, Path] | None) -> Iterator[None]:
    """Let the tool count inside: ncu between start and stop of CUDA's profiler, perf between two words in a pipe."""
    if device.kind == "cuda":
        torch.cuda.cudart().cudaProfilerStart()  # type: ignore[attr-defined]
        torch.cuda._sleep(1)
        try:
            yield
        finally:
            torch.cuda.cudart().cudaProfilerStop()  # type: ignore[attr-defined]
    else:
        _tell(control, "enable")
        try:
            yield
        finally:
            _tell(control, "disable")


def _tell(control: tuple[Path, Path] | None, word: str) -> None:
    """Say a word to perf and wait until it has heard."""
    if control is not None:
        control[0].write_text(f"{word}\n")
        with control[1].open() as answers:
            answers.readline()


if __name__ == "__main__":
    main()
