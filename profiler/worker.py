"""The worker process: holds torch and the device, and does what the parent asks, one JSON line at a time.

Requests come on standard input, answers go to a file descriptor of their own, each behind a secret that came with the
request, so nothing that a kernel prints or writes there unknowingly passes for a result. The parent starts it as
`python -m seqroof.profiler.worker --answers FD --catalog MODULE --parent PID`, and it ends with that parent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from ..roofline import claims, regime
from ..roofline.machine import Ceiling, Machine
from . import ceilings, guard
from .calibration_copy import timed_copy
from .cases import Group, run_group
from .claim_plan import claim_cases, for_verdicts
from .devices import DeviceError, machine_id, open_device
from .identity import roof_identity
from .lifeline import end_with_parent
from .paired_times import paired_times
from .plan import PlanError, check_names, check_sources, groups_of, kernels_of, only, shapes_of
from .probes import PROBES
from .settings import SETTINGS
from .surroundings import look_around
from .twins import time_twins
from .unused_gpu import passed_over
from .versions import CodeChanged, code_of, refuse_other_code


class Worker:
    """Answers requests. `catalog` is the module that loads kernel files; it reaches the profiler by name, as data."""

    def __init__(self, answer: Callable[..., None], catalog: Any) -> None:
        self.answer = answer
        self.catalog = catalog
        self.device: Any = None
        self.loaded: dict[str, Any] = {}
        self.code: dict[str, str] = {}  # hashes of the files that the run began with; empty where it is yet to begin
        self.replaced: dict[str, list[str]] = {}  # what a kernel file replaced when it was loaded
        self.chosen: dict[str, list[str]] = {}  # settings of the process that it changed then

    def handle(self, request: dict[str, Any]) -> None:
        """Do one request and close it with `done`, or with `refused` and a sentence."""
        try:
            getattr(self, "do_" + request.pop("op"))(**request)
            self.answer("done")
        except (DeviceError, PlanError, CodeChanged, self.catalog.ContractError) as error:
            self.answer("refused", reason=str(error), kind=type(error).__name__)

    def kernel(self, source: str) -> Any:
        """Load a kernel file once; raises `CodeChanged` where it is no longer the one that the run began with."""
        if source not in self.loaded:
            guard.GUARD.watch()
            kernel = self.catalog.load(source)
            self.replaced[source] = guard.GUARD.replaced()
            self.chosen[source] = SETTINGS.changed()
            refuse_other_code(kernel.module, self.code)
            self.loaded[source] = kernel
        return self.loaded[source]

    def do_open(self, device: str, threads: int | None = None) -> None:
        """Open the device and describe it. threads : the most that PyTorch may take on a CPU; None for one per core."""
        self.device = open_device(device)
        if threads and self.device.kind == "cpu":
            torch.set_num_threads(min(threads, torch.get_num_threads()))
        SETTINGS.remember()
        self.answer(
            "opened",
            name=self.device.name,
            id=machine_id(self.device.name),
            kind=self.device.kind,
            torch_device=self.device.torch_device,
            dtypes=list(self.device.dtypes),
            memory_bytes=self.device.free_memory_bytes(),
            last_cache_bytes=self.device.last_cache_bytes(),
            roof_identity=roof_identity(self.device),
            clocks=[list(pair) for pair in self.device.clocks],
            environment=self.device.describe().model_dump(),
            unused_gpu=passed_over() if device == "auto" and self.device.kind == "cpu" else "",
        )

    def do_look(self, idle: bool) -> None:
        """Tell the state of the device and its host, and with `idle` the power at rest; takes about a second then."""
        self.answer("looked", **look_around(self.device, idle))

    def do_plan(
        self,
        kernels: list[str],
        suite: str,
        axes: dict[str, list[int]],
        dtypes: list[str],
        directions: list[str],
        cases: list[dict],
        **more: Any,
    ) -> None:
        """Plan all groups of a run; no kernels means every kernel of the catalogue, or of the cases."""
        # A named size is measured however long it takes; a suite is for all machines and has to end.
        most_flops = None if axes or cases or suite == claims.SUITE else self.device.most_suite_flops
        request = {"kind": self.device.kind, "most_flops": most_flops, **more}
        for_claims = suite == claims.SUITE and not (axes or cases)
        if for_claims:
            cases = claim_cases(self.device.kind, kernels, self.kernel)
            dtypes, directions = (list(dict.fromkeys(case[name] for case in cases)) for name in ("dtype", "direction"))
        groups: list[dict] = []
        sources = kernels or kernels_of(cases, self.catalog.kernel_names()) or self.catalog.kernel_names()
        loaded = [self.kernel(source) for source in sources]
        check_sources(loaded)
        check_names(loaded, more["implementations"])
        for kernel in loaded:
            shapes = shapes_of(kernel, suite, axes, cases)
            groups += groups_of(kernel, shapes, dtypes or list(self.device.dtypes), directions, request)
        groups = for_verdicts(groups, cases, more["implementations"]) if for_claims else only(groups, cases)
        self.answer("planned", groups=groups, code=code_of([kernel.module for kernel in loaded]))

    def do_calibrate(self) -> None:
        """Time one copy of known traffic by the clock of the kernels."""
        self.answer("calibrated", look=timed_copy(self.device).model_dump())

    def do_ceilings(self, effort: str) -> None:
        """Measure this device's ceilings; each part is answered as it ends, for the last one may hang a device."""
        device = self.device.torch_device
        for part in range(ceilings.part_count(device)):
            found = ceilings.measure_part(device, part, effort, lambda text: self.answer("progress", text=text))
            self.answer("ceilings", ceilings=[ceiling.model_dump() for ceiling in found])

    def do_probe(self, name: str, rounds: int | None, known: list[str]) -> None:
        """Probe the mathematics of a kernel, or time the pairs of cases that claims compare, but for `known` rows."""
        probe = partial(paired_times, self.device, rounds, known=known) if name == claims.PAIRED else PROBES[name]
        for row in probe(self.kernel, lambda text: self.answer("progress", text=text)):
            if row.id not in known:
                self.answer("probed", row=row.model_dump(mode="json"))

    def do_map(self, kernels: list[str], dtype: str, machine: dict) -> None:
        """Compute the regime maps of recurrences, rounded as a record keeps them."""
        on = Machine.model_validate(machine)
        grids = [
            regime.stored(grid)
            for name in kernels
            for grid in regime.grids(name, regime.work_of(self.kernel(name), dtype), dtype, on)
        ]
        self.answer("mapped", grids=[grid.model_dump(mode="json") for grid in grids])

    def do_remeasure(self, known: list[dict]) -> None:
        """Re-time the ceilings that a verdict hangs on."""
        found = ceilings.remeasure(self.device.torch_device, [Ceiling.model_validate(entry) for entry in known])
        self.answer("ceilings", ceilings=[ceiling.model_dump() for ceiling in found])

    def do_group(
        self,
        source: str,
        shape: dict,
        dtype: str,
        direction: str,
        implementations: list[str],
        flops: float,
        seed: int,
        options: dict,
    ) -> None:
        """Check and time one group of cases."""
        kernel = self.kernel(source)
        group = Group(self.device, kernel, kernel.shape(**shape), dtype, direction, seed)
        run_group(group, implementations, flops, options, self.answer, self.replaced[source], self.chosen[source])

    def do_twins(
        self, source: str, shape: dict, dtype: str, direction: str, implementation: str, clock: list, **more: Any
    ) -> None:
        """Time one implementation against itself."""
        kernel = self.kernel(source)
        group = Group(self.device, kernel, kernel.shape(**shape), dtype, direction, seed=0)
        time_twins(group, implementation, (clock[0], clock[1]), emit=self.answer, **more)


def _requests() -> Iterator[dict[str, Any]]:
    """Requests until standard input closes, which from now on is empty for kernels that read it."""
    private = os.dup(0)  # not inheritable, unlike descriptor 0
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    with os.fdopen(private) as requests:
        for line in requests:
            yield json.loads(line)


def main() -> None:
    """Read requests until standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    os.set_inheritable(arguments.answers, False)  # a process that a kernel starts must not keep it open
    answers = os.fdopen(arguments.answers, "w", buffering=1)
    secret = ""

    def answer(event: str, **data: Any) -> None:
        answers.write(f"{secret} {json.dumps({'event': event, **data})}\n")
        answers.flush()

    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    worker = Worker(answer, importlib.import_module(arguments.catalog))
    for request in _requests():
        secret, worker.code = request.pop("secret"), request.pop("code")
        worker.handle(request)


if __name__ == "__main__":
    main()
