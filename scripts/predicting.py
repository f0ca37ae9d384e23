"""`seqroof predict`: the floors of a kernel on a machine of the catalogue, for one shape or a sweep."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.roofline import catalogue
from seqroof.roofline.machine import Machine
from seqroof.roofline.predict import Fit, fits, prediction
from seqroof.roofline.record import WALLS
from seqroof.roofline.units import seconds, si
from seqroof.roofline.work import Work

from .asking import catalog_of_kernels, kernel_named
from .exits import Exit, Stop
from .sweep import one_case, parse_shape

RESIDENCY_WORDS = {"chip": "on chip", "cache": "in the cache", "dram": "in DRAM"}


def predict(
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
    """Print the floors of one case, or of every case of a sweep, on a machine of the catalogue."""
    kernel = kernel_named(source)
    axes = parse_shape(shape or [])
    try:
        machine = catalogue.machine(on)
    except KeyError as error:
        raise Stop(str(error.args[0]), Exit.USAGE) from error
    dtype, direction = one_case(dtype, direction)
    options = design(weights, chain, cache)
    rows = []
    for sizes in shapes_of(kernel, axes):
        work = kernel.module.work(sizes, dtype, direction)
        case = {"kernel": kernel.name, "shape": dataclasses.asdict(sizes), "direction": direction}
        rows.append({**case, **prediction(work, dtype, machine=machine, **options)})
    if len(rows) == 1:
        print(json.dumps(rows[0])) if as_json else _print_prediction(rows[0])
        return
    swept = [name for name, values in axes.items() if len(values) > 1]
    found = _fits_of(rows, swept[0], machine) if len(swept) == 1 else []
    if as_json:
        print(json.dumps({"rows": rows, "fits": [dataclasses.asdict(fit) for fit in found]}))
    else:
        _print_sweep(rows, swept, found)


def shapes_of(kernel: Any, axes: dict[str, list[int]]) -> list[Any]:
    """Every combination of sizes; one that the kernel refuses ends the command with its sentence."""
    catalog = catalog_of_kernels()
    combined = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    try:
        return [kernel.shape(**sizes) for sizes in combined]
    except catalog.ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error


def choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """The value of an option that knows only these; anything else ends the command with a sentence."""
    if value not in allowed:
        raise Stop(f"{option} {value!r} is not known; it is one of {', '.join(allowed)}.", Exit.USAGE)
    return value


def design(weights: str, chain: str, cache: str) -> dict[str, Any]:
    """How a design keeps its weights, waits for its steps and finds the caches, as the model takes them."""
    return {
        "weights": choice("--weights", weights, ("reread", "kept")),
        "chain": choice("--chain", chain, ("launch", "graph", "barrier", "inside")),
        "cache": choice("--cache", cache, ("cold", "warm")),
    }


def _fits_of(rows: list[dict[str, Any]], swept: str, machine: Machine) -> list[Fit]:
    works = [(row["shape"][swept], Work.model_validate(row["work"])) for row in rows]
    return fits(sorted(works, key=lambda pair: pair[0]), machine)


def _heading(row: dict[str, Any], sizes: dict[str, int]) -> str:
    text = ",".join(f"{name}={value}" for name, value in sizes.items())
    return f"[bold]{escape(row['kernel'])}[/bold] {text} {row['dtype']} {row['direction']} on {row['machine']['name']}"


def _known(value: float | None) -> str:
    return seconds(value) if value is not None else "not known"


def _largest(floors: dict[str, float | None]) -> float | None:
    return max((value for value in floors.values() if value is not None), default=None)


def _print_sweep(rows: list[dict[str, Any]], swept: list[str], found: list[Fit]) -> None:
    """One row per shape: both floors with their walls, and where the best design keeps its weights."""
    console = Console(highlight=False)
    first = rows[0]
    console.print(_heading(first, {name: size for name, size in first["shape"].items() if name not in swept}))
    table = Table(box=None, pad_edge=False)
    for name in swept:
        table.add_column(name, justify="right")
    chained = any(row["work"]["depth"] > 1 for row in rows)
    for title in (f"{first['weights']}, {first['chain']}", "best possible", *(["per step"] if chained else [])):
        table.add_column(title, justify="right")
    table.add_column("keeps its weights" if chained else "")
    for row in rows:
        best = _largest(row["best_floors_s"])
        cells = [str(row["shape"][name]) for name in swept]
        cells.append(f"{_known(_largest(row['floors_s']))} {row['bound'] or ''}")
        cells.append(f"{_known(best)} {row['best_bound'] or ''}")
        if chained:
            cells.append(seconds(best / row["work"]["depth"]) if best is not None else "not known")
        table.add_row(*cells, RESIDENCY_WORDS[row["best_residency"]] if row["work"]["depth"] > 1 else "")
    console.print(table)
    for fit in found if chained else []:
        console.print(
            f"The recurrent weights stop fitting into {fit.level} ({si(fit.capacity_bytes, 'B')}) between "
            f"{swept[0]}={fit.last} and {swept[0]}={fit.first_without}; interpolated {swept[0]} = {fit.size:.0f}."
        )
    console.print("Floors are least possible times, derived from the catalogue (modelled).")


def print_walls(made: dict[str, Any], console: Console) -> None:
    """The four floors of a design, why they are what they are, and those of the best possible one."""
    table = Table(box=None, pad_edge=False)
    table.add_column("wall")
    table.add_column(f"{made['weights']}, {made['chain']}", justify="right")
    table.add_column("because", overflow="fold")
    table.add_column("best possible", justify="right")
    for wall in WALLS:
        mark = "  <- bound" if wall == made["bound"] else ""
        best = "  <- bound" if wall == made["best_bound"] else ""
        own, ideal = made["floors_s"][wall], made["best_floors_s"][wall]
        table.add_row(wall, _known(own) + mark, made["floor_notes"][wall], _known(ideal) + best)
    console.print(table)


def _print_prediction(made: dict[str, Any]) -> None:
    console = Console(highlight=False)
    work = made["work"]
    console.print(_heading(made, made["shape"]))
    console.print(
        f"{si(work['matmul_flops'], 'FLOP')} in products, {si(work['pointwise_flops'], 'FLOP')} pointwise, "
        f"{si(work['special_ops'], 'op')} special; {si(work['compulsory_bytes'], 'B')} compulsory, "
        f"{si(work['streamed_bytes'], 'B')} streamed; {work['depth']} dependent step(s)  (modelled)\n"
    )
    print_walls(made, console)
    if work["depth"] > 1:
        console.print(
            f"\nThe best design keeps its recurrent weights {RESIDENCY_WORDS[made['best_residency']]}; "
            f"its chain: {made['best_floor_notes']['serial']}."
        )
    console.print(
        "\nFloors are least possible times, derived from the catalogue; an estimate for this design: "
        f"{seconds(made['estimate_s'])} (modelled, never scored)."
    )
