"""The verbs that answer without measuring: predict, list, doctor."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.roofline.record import WALLS
from seqroof.roofline.units import seconds, si

from .exits import Exit, Stop
from .sweep import parse_directions, parse_dtypes, parse_shape


def _catalog() -> Any:
    try:
        from seqroof.kernels import _catalog
    except ImportError as error:
        raise Stop(
            f"Kernel files need torch ({error}); install it with pip install 'seqroof[run]'.", Exit.NO_DEVICE
        ) from error
    return _catalog


def _kernel(source: str) -> Any:
    catalog = _catalog()
    try:
        return catalog.load(source)
    except ImportError as error:
        raise Stop(
            f"Kernel files need torch ({error}); install it with pip install 'seqroof[run]'.", Exit.NO_DEVICE
        ) from error
    except catalog.ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise Stop(f"{option} {value!r} is not known; it is one of {', '.join(allowed)}.", Exit.USAGE)
    return value


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
    """Print the floors of one case on a machine of the catalogue."""
    from seqroof.roofline import catalogue
    from seqroof.roofline.predict import prediction

    kernel = _kernel(source)
    axes = parse_shape(shape or [])
    swept = [name for name, values in axes.items() if len(values) > 1]
    if swept:
        raise Stop(f"predict takes one shape; {', '.join(swept)} has several values.", Exit.USAGE)
    try:
        sizes = kernel.shape(**{name: values[0] for name, values in axes.items()})
        machine = catalogue.machine(on)
    except _catalog().ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error
    except KeyError as error:
        raise Stop(str(error.args[0]), Exit.USAGE) from error
    (dtype,), (direction,) = parse_dtypes([dtype])[:1], parse_directions([direction])[:1]
    made = prediction(
        kernel.module.work(sizes, dtype, direction),
        dtype,
        _choice("--weights", weights, ("reread", "kept")),
        _choice("--chain", chain, ("launch", "graph", "barrier", "inside")),
        machine,
        _choice("--cache", cache, ("cold", "warm")),
    )
    made = {"kernel": kernel.name, "shape": dataclasses.asdict(sizes), "direction": direction, **made}
    if as_json:
        print(json.dumps(made))
    else:
        _print_prediction(made)


def _print_prediction(made: dict[str, Any]) -> None:
    console = Console(highlight=False)
    work = made["work"]
    sizes = ",".join(f"{name}={value}" for name, value in made["shape"].items())
    console.print(
        f"[bold]{escape(made['kernel'])}[/bold] {sizes} {made['dtype']} {made['direction']} "
        f"on {made['machine']['name']}"
    )
    console.print(
        f"{si(work['matmul_flops'], 'FLOP')} in products, {si(work['pointwise_flops'], 'FLOP')} pointwise, "
        f"{si(work['special_ops'], 'op')} special; {si(work['compulsory_bytes'], 'B')} compulsory, "
        f"{si(work['streamed_bytes'], 'B')} streamed; {work['depth']} dependent step(s)  (modelled)\n"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("wall")
    table.add_column(f"{made['weights']}, {made['chain']}", justify="right")
    table.add_column("because", overflow="fold")
    table.add_column("best possible", justify="right")
    for wall in WALLS:
        mark = "  <- bound" if wall == made["bound"] else ""
        best = "  <- bound" if wall == made["best_bound"] else ""
        own, ideal = made["floors_s"][wall], made["best_floors_s"][wall]
        table.add_row(
            wall,
            (seconds(own) if own is not None else "not known") + mark,
            made["floor_notes"][wall],
            (seconds(ideal) if ideal is not None else "not known") + best,
        )
    console.print(table)
    console.print(
        "\nFloors are least possible times, derived from the catalogue; an estimate for this design: "
        f"{seconds(made['estimate_s'])} (modelled, never scored)."
    )


def list_all(as_json: bool) -> None:
    """Print kernels and machines."""
    from seqroof.roofline import catalogue

    catalog = _catalog()
    kernels = [_described(_kernel(name)) for name in catalog.kernel_names()]
    machines = [
        {"id": m.id, "name": m.name, "class": m.machine_class, "year": m.year} for m in catalogue.machines().values()
    ]
    if as_json:
        print(json.dumps({"kernels": kernels, "machines": machines}))
        return
    console = Console(highlight=False)
    for kernel in kernels:
        console.print(f"[bold]{kernel['name']}[/bold]  {escape(kernel['equation'])}")
        sizes = ", ".join(n if d is None else f"{n}={d}" for n, d in kernel["sizes"].items())
        console.print(f"  sizes            {sizes}", soft_wrap=True)
        console.print(f"  implementations  {', '.join(kernel['implementations'])}", soft_wrap=True)
        counts = ", ".join(f"{suite} ({len(shapes)} shapes)" for suite, shapes in kernel["suites"].items())
        console.print(f"  suites           {counts}\n")
    console.print("[bold]machines[/bold] for `seqroof predict --on`:")
    console.print("  " + ", ".join(machine["id"] for machine in machines))


def _described(kernel: Any) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "equation": kernel.equation,
        "sizes": kernel.sizes(),
        "implementations": list(kernel.implementations),
        "suites": {suite: [dataclasses.asdict(s) for s in shapes] for suite, shapes in kernel.module.SHAPES.items()},
    }


def doctor(as_json: bool) -> None:
    """Print what can and cannot be measured here."""
    from seqroof.profiler.health import examine

    findings = examine()
    if as_json:
        print(json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}))
        return
    console = Console(highlight=False)
    marks = {"ok": "[green]ok     [/green]", "limited": "[yellow]limited[/yellow]", "missing": "[red]missing[/red]"}
    for finding in findings:
        console.print(
            f"{marks[finding.state]}  [bold]{escape(finding.what)}[/bold]: {escape(finding.detail)}", soft_wrap=False
        )
        if finding.fix:
            console.print(f"           fix: {escape(finding.fix)}")
