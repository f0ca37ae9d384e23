"""`seqroof what-if`: what more of a resource, another design, batch, dtype or machine would buy, by the model."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.roofline import catalogue, what_if
from seqroof.roofline.floors import best_residency
from seqroof.roofline.machine import Machine
from seqroof.roofline.units import seconds, si
from seqroof.roofline.what_if import FACTORS, RESOURCES, Case

from .asking import kernel_named, one_shape
from .exits import Exit, Stop
from .predicting import design
from .reading import load_run
from .sweep import one_case

NOTE = (
    "All of this is modelled: the latency of the chain plus the largest other floor. It is never scored, and "
    "`seqroof what-if RUN` shows how far measured pairs bear it out."
)
# What can be run here or anywhere to see whether the model is right about a change.
EXPERIMENTS = {
    "compute": "another dtype: seqroof profile {kernel} --shape {shape} --dtype fp32 --dtype bf16",
    "dram": "its cold row against its warm one: seqroof profile {kernel} --shape {shape}, then report --all",
    "cache": "sizes that do and do not fit: seqroof profile {kernel} --shape {smaller}",
    "latency": "the same steps launched, as a graph and in one launch: its triton rows and their graph clock on a GPU",
    "capacity": "where weights stop fitting: seqroof predict {kernel} --on MACHINE --shape with a range of sizes",
    "memory": "weights one level nearer: seqroof profile {kernel} --shape {smaller}, cold against warm, and claim C5",
    "batch": "seqroof profile {kernel} --shape {batches}",
}


def what_if_kernel(
    source: str,
    on: str,
    shape: list[str] | None,
    dtype: str,
    direction: str,
    weights: str,
    chain: str,
    cache: str,
    as_json: bool,
) -> None:
    """Print what each change would buy for one case on a machine of the catalogue, or on that of a run."""
    kernel, machine = kernel_named(source), machine_named(on)
    sizes = one_shape(kernel, shape, "what-if")
    dtype, direction = one_case(dtype, direction)
    case = Case(kernel.module.work(sizes, dtype, direction), dtype, **design(weights, chain, cache))
    if case.weights == "kept" and best_residency(case.work, machine) != "chip":
        held = si(case.work.recurrent_bytes, "B")
        raise Stop(f"{held} of weights that meet the state do not fit on the chip of {machine.id}.", Exit.USAGE)
    if not what_if.time_s(case, machine):
        raise Stop(
            f"The time of this case on {machine.id} cannot be estimated: the rate of {dtype} or the latency of "
            f"{chain} is not known there. Take another machine, --dtype or --chain, or a run of your own as --on.",
            Exit.USAGE,
        )
    made = {"kernel": source, "shape": dataclasses.asdict(sizes), "dtype": dtype, "direction": direction}
    made |= supposed(case, machine) | {"batch": _batches(kernel, sizes, case, direction, machine)}
    made |= {"machine": machine.id, "machines": _machines(case)}
    names = [name for name in EXPERIMENTS if name != "batch" or made["batch"]]
    made["experiments"] = {name: experiment(name, source, made["shape"]) for name in names}
    print(json.dumps(made)) if as_json else _print(made)


def machine_named(on: str) -> Machine:
    """A machine of the catalogue, or the one that a run was made on."""
    if Path(on).exists():
        return load_run(Path(on)).machine
    try:
        return catalogue.machine(on)
    except KeyError as error:
        raise Stop(f"{error.args[0]} The path of a run will do as well.", Exit.USAGE) from error


def supposed(case: Case, machine: Machine) -> dict[str, Any]:
    """Elasticities and gains of a design and of the best possible one, and what other designs and dtypes would take."""
    now = what_if.time_s(case, machine) or 0.0
    names = {"design": case, "best": case.best}
    others = {name: what_if.time_s(other, machine) for name, other in what_if.designs(case, machine).items()}
    words, small, faster = what_if.narrower(case, machine)
    return {
        "estimate_s": {name: what_if.time_s(one, machine) for name, one in names.items()},
        "elasticities": {name: what_if.elasticities(one, machine) for name, one in names.items()},
        "gains": {name: what_if.gains(one, machine) for name, one in names.items()},
        "designs": {name: _gain(now, time) for name, time in others.items()},
        "half_width": {"change": words} | _gain(now, what_if.time_s(small, faster)),
        "inside_memory": {
            f"inside the memory, at {factor:g} x its bandwidth": _gain(
                now, what_if.time_s(case, what_if.inside_memory(machine, factor))
            )
            for factor in what_if.INSIDE_FACTORS
        },
    }


def _gain(now: float, then: float | None) -> dict[str, float | None]:
    return {"estimate_s": then, "times_as_fast": now / then if then else None}


def _batches(kernel: Any, sizes: Any, case: Case, direction: str, machine: Machine) -> dict[str, Any]:
    """Times as many tokens per second with larger batches; empty where the kernel has none."""
    batch, now = getattr(sizes, "B", 0), what_if.time_s(case, machine)
    if not batch or not now:
        return {}
    found = {}
    for factor in FACTORS:
        larger = dataclasses.replace(sizes, B=int(batch * factor))
        work = kernel.module.work(larger, case.dtype, direction)
        then = what_if.time_s(dataclasses.replace(case, work=work), machine)
        tokens = work.tokens / case.work.tokens
        found[str(larger.B)] = {"estimate_s": then, "times_as_fast": tokens * now / then if then else None}
    return found


def _machines(case: Case) -> dict[str, Any]:
    """Estimates on every machine of the catalogue, and the largest known floor where something is not known."""
    found = {}
    for id, machine in catalogue.machines().items():
        row: dict[str, Any] = {"year": machine.year, "class": machine.machine_class}
        for name, one in {"design": case, "best": case.best}.items():
            row |= {name: what_if.time_s(one, machine), f"{name}_least_s": what_if.least_s(one, machine)}
        found[id] = row
    return found


def _print(made: dict[str, Any]) -> None:
    console = Console(highlight=False)
    sizes = ",".join(f"{name}={value}" for name, value in made["shape"].items())
    case = f"{sizes} {made['dtype']} {made['direction']}"
    console.print(f"[bold]{escape(made['kernel'])}[/bold] {case} on {escape(made['machine'])}")
    design, best = (made["estimate_s"][name] for name in ("design", "best"))
    console.print(f"This design {seconds(design)}, the best possible {_known(best)} (modelled).\n")
    _print_resources(made, console)
    _print_changes(made, console)
    _print_machines(made, console)
    console.print(NOTE)
    strongest = max(made["elasticities"]["design"], key=made["elasticities"]["design"].__getitem__)
    for name in (name for name in (strongest, "batch", "memory") if name in made["experiments"]):
        console.print(f"To check it ({name}): {made['experiments'][name]}", soft_wrap=True)


def experiment(name: str, kernel: str, shape: dict[str, int]) -> str:
    """The nearest experiment that can be run to see whether the model is right about a change."""
    text = shlex.quote(",".join(f"{size}={value}" for size, value in shape.items()))
    batch = shape.get("B", 1)
    batches = ",".join(f"{size}={batch}:{8 * batch}:x2" if size == "B" else f"{size}={n}" for size, n in shape.items())
    smaller = ",".join(f"{size}={n}|{max(1, n // 4)}" if size in "HCPM" else f"{size}={n}" for size, n in shape.items())
    sizes = {"batches": shlex.quote(batches), "smaller": shlex.quote(smaller)}
    return EXPERIMENTS[name].format(kernel=shlex.quote(kernel), shape=text, **sizes)


def _print_resources(made: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False, title="Times as fast with more of a resource", title_justify="left")
    table.add_column("resource")
    for owner in ("design", "best"):
        table.add_column(f"{owner}: %", justify="right")
        for factor in FACTORS:
            table.add_column(f"{factor:g} x", justify="right")
    for resource, (words, _) in RESOURCES.items():
        cells = []
        for owner in ("design", "best"):
            share, gained = made["elasticities"][owner].get(resource), made["gains"][owner].get(resource, {})
            cells.append("-" if share is None else f"{share:.2f}")
            cells += [_times(gained.get(factor)) for factor in FACTORS]
        table.add_row(words, *cells)
    console.print(table)
    console.print("%: percent of time that one percent more saves. On the right, the best possible design.\n")


def _print_changes(made: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False, title="Times as fast with another design", title_justify="left")
    table.add_column("change", overflow="fold")
    table.add_column("estimate", justify="right")
    table.add_column("times as fast", justify="right")
    rows = dict(made["designs"])
    rows |= {f"batch of {batch} (per token)": gain for batch, gain in made["batch"].items()}
    rows[made["half_width"]["change"]] = made["half_width"]
    rows |= made["inside_memory"]
    for name, gain in rows.items():
        table.add_row(name, _known(gain["estimate_s"]), _times(gain["times_as_fast"]))
    console.print(table)
    console.print(f"{what_if.INSIDE_WORDS}\n")


def _print_machines(made: dict[str, Any], console: Console) -> None:
    table = Table(
        box=None,
        pad_edge=False,
        title="Elsewhere, by the catalogue (datasheet, published and assumed figures)",
        title_justify="left",
    )
    for title in ("machine", "year", "this design", "times as fast", "best possible", "times as fast"):
        table.add_column(title, justify="left" if title == "machine" else "right")
    shown = {id: row for id, row in made["machines"].items() if row["best"] or row["class"] == "compute-in-memory"}
    for id, row in shown.items():
        cells = []
        for name in ("design", "best"):
            least = row[f"{name}_least_s"]
            cells.append(_known(row[name]) if row[name] or not least else f">= {seconds(least)}")
            cells.append(_over(made["estimate_s"][name], row[name]))
        table.add_row(id, str(row["year"] or ""), *cells)
    console.print(table)
    console.print(
        f">=: by the known floors alone. {len(made['machines']) - len(shown)} more machines, whose latencies are not "
        "known, are in --json.\n"
    )


def _known(value: float | None) -> str:
    return seconds(value) if value else "not known"


def _times(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def _over(now: float | None, then: float | None) -> str:
    return _times(now / then) if now and then else "-"
