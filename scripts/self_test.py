"""`seqroof doctor --aa`: identical code against itself, to find the smallest change that this machine can resolve."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from seqroof.profiler.identical import PATIENCE, Worker, measure_identical
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Refused, Supervisor, WorkerDied
from seqroof.roofline.comparison_model import Noise
from seqroof.roofline.noise import AA, compare_identical, in_words, noise_of

from .exits import Exit, Stop, room_for
from .measuring import open_worker, planned
from .progress import Reporter, say
from .stored_noise import NOISE, store_noise

# One kernel of every kind of memory traffic: weights, tiles, a chain of steps, a stream.
KERNELS = ("lstm_step", "attention", "lstm", "gated_conv")
# Five processes give ten pairs of runs; half a minute is what one waits for an answer about a machine.
WORKERS, BUDGET_S = 5, 30.0


@dataclass
class SelfTest:
    """What was measured: by process, the ratios, and the record made of them."""

    workers: list[Worker]
    found: AA
    noise: Noise


def self_test(
    device: str, workers: int = WORKERS, repeats: int = 1, budget_s: float = BUDGET_S, patience: float = PATIENCE
) -> SelfTest:
    """Measure pairs of identical code within and between processes; raises `Stop` where nothing could be measured.

    Arguments as for `measure_identical`.
    """
    with Reporter() as reporter:

        def plan(supervisor: Supervisor) -> list[dict[str, Any]]:
            # tf32 and half precision share the clock and the caches with it, and not every machine has them.
            request = Request(kernels=list(KERNELS), dtypes=["fp32"], device=device)
            return planned(Session(request, supervisor, reporter))

        reporter.stage("timing identical code against itself")
        try:
            measured, opened = measure_identical(
                lambda: open_worker(device),
                plan,
                workers,
                repeats,
                budget_s,
                lambda text: reporter.stage("timing identical code against itself", text),
                patience,
            )
            for subject, why in {name: why for worker in measured for name, why in worker.deaths.items()}.items():
                say(f"seqroof: {subject} could not always be timed: {why}")
            found = compare_identical([worker.pairs for worker in measured])
        except (WorkerDied, Refused, ValueError) as error:
            raise Stop(f"Identical code could not be timed against itself: {error}", Exit.NO_DEVICE) from error
    environment = opened["environment"]
    noise = noise_of(
        found,
        len(measured),
        sorted({name for worker in measured for name in worker.pairs}),
        datetime.now(UTC).isoformat(timespec="seconds"),
        machine=opened["id"],
        device_hash=environment["device_hash"],
        computer_hash=environment["computer_hash"],
        threads=environment["threads"],
    )
    return SelfTest(measured, found, noise)


def run_self_test(device: str, as_json: bool) -> None:
    """Measure, print and keep what this machine can resolve."""
    started = time.monotonic()
    noise = self_test(device).noise
    if as_json:
        print(noise.model_dump_json())
    else:
        _print(noise)
    with room_for(NOISE, "what is shown was measured, but not kept: repeat it in a folder that can be written"):
        file = store_noise(noise)
    if not as_json:
        say(f"seqroof: {time.monotonic() - started:.0f} s; kept in {file}, `seqroof compare` counts with it")


def _print(noise: Noise) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{escape(noise.machine)}[/bold]: identical code against itself (measured)")
    for what, text in in_words(noise):
        console.print(f"  [bold]{what}[/bold]: {escape(text)}")
    console.print(f"  timed: {escape(', '.join(noise.subjects))}", style="dim")
