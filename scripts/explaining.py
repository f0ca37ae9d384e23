"""`seqroof explain`: the cost of a case term by term, its four walls, and why its time is not the best possible one."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.profiler.request import Request
from seqroof.roofline import _view, gap
from seqroof.roofline.machine import Machine
from seqroof.roofline.predict import prediction
from seqroof.roofline.record import Point, Run
from seqroof.roofline.units import percent, seconds, si
from seqroof.roofline.walls import WALL_WORDS
from seqroof.roofline.what_if import Case
from seqroof.roofline.work import Work

from . import with_measure
from .asking import kernel_named, one_shape
from .options import Destination
from .predicting import print_walls
from .reading import load_run
from .supposing import machine_named
from .sweep import check_device, one_case

# The quantities of a work in the order in which a reader meets them, with their units.
QUANTITIES = {
    "matmul_flops": ("operations of matrix products", "FLOP"),
    "pointwise_flops": ("other operations", "FLOP"),
    "special_ops": ("special functions", "op"),
    "read_bytes": ("read once", "B"),
    "write_bytes": ("written once", "B"),
    "streamed_bytes": ("moved when every step reads its weights again", "B"),
    "hoisted_bytes": ("the same, with the input product done once for all steps", "B"),
    "exchange_bytes": ("exchanged at each step when the weights stay on chip", "B"),
}
# The bar of a time: so many characters, and one kind of them for each of its parts.
BAR, MARKS = 30, "#=."


def explain(
    source: str,
    on: str,
    shape: list[str] | None,
    dtype: str,
    direction: str,
    measure: bool,
    device: str,
    to: Destination,
) -> None:
    """Print cost, walls and estimate of a case, what was measured of it, and what would move it."""
    with_measure.check(measure, to)
    device = check_device(device)
    kernel = kernel_named(source)
    sizes = one_shape(kernel, shape, "explain")
    dtype, direction = one_case(dtype, direction)
    case = {"shape": dataclasses.asdict(sizes), "dtype": dtype, "direction": direction}
    made = with_measure.measured(_request(source, case, device), to) if measure else None
    on = str(made.folder) if made else on
    run = made.run if made else load_run(Path(on)) if Path(on).exists() else None
    with with_measure.ending(made):
        _print_case(source, kernel, sizes, case, run, on, measure)


def _print_case(
    source: str, kernel: Any, sizes: Any, case: dict[str, Any], run: Run | None, on: str, measured: bool
) -> None:
    """Print all that is known of a case, on the machine of a run or of the catalogue."""
    dtype, direction = case["dtype"], case["direction"]
    machine = run.machine if run else machine_named(on)
    found = _of_case(run, kernel.name, case) if run else []
    work = kernel.module.work(sizes, dtype, direction)
    console = Console(highlight=False)
    text = ",".join(f"{name}={value}" for name, value in case["shape"].items())
    console.print(f"[bold]{escape(kernel.name)}[/bold] {text} {dtype} {direction} on {escape(machine.name)}")
    console.print(escape((kernel.module.__doc__ or "").strip().split("\n\n")[0]), "\n")
    _print_cost(work, console)
    _print_design(work, dtype, machine, found, console)
    words = f"{shlex.quote(source)} --shape {shlex.quote(text)} --dtype {dtype} --direction {direction}"
    if not found and not measured:
        where = "" if run else f" It is for {escape(machine.name)}; what is measured is this machine."
        console.print(f"This is the prediction.{where} Now measure: seqroof explain {words} --measure", soft_wrap=True)
    for point in found:
        _print_gap(point, console)
    if found:
        _print_remedies(found[0], machine, console)
        how = f"--weights {found[0].weights} --chain {found[0].chain} --cache {found[0].cache}"
        console.print(f"More: seqroof what-if {words} {how} --on {shlex.quote(on)}", soft_wrap=True)
    for point in _others(run, kernel.name, case) if run else ():
        console.print(escape(_view.clean(f"{point.implementation}: {point.status}, {point.reason}")), style="yellow")


def _request(source: str, case: dict[str, Any], device: str) -> Request:
    """The request for a run of this case alone."""
    return Request(
        kernels=[source],
        axes={name: [size] for name, size in case["shape"].items()},
        dtypes=[case["dtype"]],
        directions=[case["direction"]],
        device=device,
        attribution=True,
    )


def _others(run: Run, kernel: str, case: dict[str, Any]) -> list[Point]:
    """What of a case could not be timed or may not be believed, with its reason."""
    return [
        point
        for point in run.points
        if point.kernel == kernel and point.headline and point.status not in ("ok", "skipped")
        if all(getattr(point, name) == value for name, value in case.items())
    ]


def _of_case(run: Run, kernel: str, case: dict[str, Any]) -> list[Point]:
    """The scored headline points of a case, the fastest first."""
    found = [
        point
        for point in run.points
        if point.kernel == kernel and point.headline and point.status == "ok" and point.time_s
        if all(getattr(point, name) == value for name, value in case.items())
    ]
    return sorted(found, key=lambda point: point.time_s.median if point.time_s else 0.0)


def _print_cost(work: Work, console: Console) -> None:
    """Every term of a work under its quantity, with its reason."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for quantity, (words, unit) in QUANTITIES.items():
        terms = [term for term in work.terms if term.quantity == quantity]
        if not terms:
            continue
        total = sum(term.amount for term in terms)
        table.add_row(f"[bold]{si(total, unit)}[/bold]", f"[bold]{words}[/bold]", "")
        for term in terms:
            table.add_row(si(term.amount, unit), escape(term.label), escape(term.reason), style="dim")
    console.print(table)
    intensity = work.flops / work.compulsory_bytes if work.compulsory_bytes else 0.0
    streamed = work.flops / work.streamed_bytes if work.streamed_bytes else 0.0
    steps = f"{work.depth} dependent steps" if work.depth > 1 else "nothing waits"
    console.print(
        f"\n{intensity:.3g} operations per byte if everything moves once, {streamed:.3g} if every step reads its "
        f"weights again; {steps}. (modelled)\n"
    )


def _print_design(work: Work, dtype: str, machine: Machine, found: Sequence[Point], console: Console) -> None:
    """The walls of the fastest measured design, or of the plain one where nothing was measured."""
    like = found[0] if found else None
    cache = like.cache if like else "warm" if work.depth > 1 else "cold"
    weights, chain = (like.weights, like.chain) if like and like.weights and like.chain else ("reread", "launch")
    how = {"hoists": like.hoists, "depth": like.depth} if like else {}
    made = prediction(work, dtype, weights, chain, machine, cache, **how)
    if like:
        console.print(f"The four walls of [bold]{escape(_view.clean(like.implementation))}[/bold], the fastest row:")
    console.print(f"Caches {cache}, as the headline of such a kernel is timed.")
    print_walls(made, console)
    if made["estimate_s"]:
        console.print(f"\nEstimate of this design: {seconds(made['estimate_s'])} (modelled, never scored).\n")


def _print_gap(point: Point, console: Console) -> None:
    """The measured time of a row, and the three parts of it."""
    assert point.time_s is not None
    name = escape(_view.clean(point.implementation))
    console.print(
        f"[bold]{name}[/bold] measured {seconds(point.time_s.median)} "
        f"({seconds(point.time_s.low)} to {seconds(point.time_s.high)}), {point.cache}"
    )
    found = gap.parts(point)
    for index, (part, mark) in enumerate(zip(found, MARKS)):
        if part.share == 0:
            continue
        before = round(BAR * sum(earlier.share for earlier in found[:index]))
        bar = " " * before + mark * (round(BAR * (before / BAR + part.share)) - before)
        wall = f": {WALL_WORDS[part.wall]}" if part.wall else ""
        console.print(f"  |{bar:<{BAR}}| {percent(part.share):>6} {part.name}{wall}", markup=False)
    for doubt in point.warnings:
        console.print(f"  {escape(doubt.cause)}; {escape(doubt.advice)}", style="yellow")


def _print_remedies(point: Point, machine: Machine, console: Console) -> None:
    """What would move the fastest point, by the model."""
    case = Case.of(point)
    found = gap.remedies(case, machine) if case else []
    console.print()
    for remedy in found:
        console.print(f"Would save {percent(remedy.saves)} of the estimate: {remedy.change}. (modelled)")
    parts = gap.parts(point)
    if parts and parts[-1].share > max(part.share for part in parts[:-1]):
        console.print(
            "Most of its time lies beyond its own floor, so running this design better (starting costs, idle units, "
            "bytes moved twice) comes before another design."
        )
    if not found:
        console.print("No other design known here would save a tenth of the estimate.")
