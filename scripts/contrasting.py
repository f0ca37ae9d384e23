"""`seqroof contrast`: complete layers for the same task at equal parameters, operations or width, side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from seqroof.profiler.request import Request
from seqroof.roofline import _view, contrast, contrast_chart
from seqroof.roofline.contrast import NAMES, Basis, Row
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Run
from seqroof.roofline.units import percent, si

from . import contrast_table, pictures, with_measure
from .asking import catalog_of_kernels, kernel_named
from .exits import Exit, Stop
from .options import Destination
from .predicting import choice
from .reading import load_run
from .supposing import machine_named
from .sweep import check_device, one_case, parse_directions, parse_shape


@dataclass(frozen=True)
class Layer:
    """A layer in the contrast: the sizes of its kernel from one width, which is what a token has in numbers.

    multiple : what the width must be a multiple of.
    """

    name: str
    kernel: str
    sizes: Callable[[int], dict[str, int]]
    multiple: int = 1


LAYERS = (
    Layer(NAMES["lstm"], "lstm", lambda width: {"I": width, "H": width}),
    Layer(NAMES["gru"], "gru", lambda width: {"I": width, "H": width}),
    Layer(NAMES["rnn"], "rnn", lambda width: {"I": width, "H": width}),
    Layer(NAMES["transformer_block"], "transformer_block", lambda width: {"M": width, "N": 4}, multiple=4),
    Layer(NAMES["hierarchical_attention"], "hierarchical_attention", lambda width: {"P": width, "F": 100}),
    Layer(NAMES["gated_conv_block"], "gated_conv_block", lambda width: {"C": width, "W": 4}),
    Layer(NAMES["dilated_conv"], "dilated_conv", lambda width: {"C": width, "W": 3, "L": 6}),
)
# A million parameters is an LSTM of 360 units: its weights fit in the caches of a processor and on the chip of a GPU.
# Fewer operations than these leave sizes so small that a step of one is more than a percent.
BUDGETS: dict[Basis, str] = {"parameters": "1M", "flops": "32G", "width": "256"}
# Seconds for each layer, length and direction; 42 of them and the checks of long recurrences take a quarter of an hour.
GROUP_S = 2.0
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
ROWS = ("reference", "torch", "compile", "triton")


@dataclass(frozen=True)
class Asked:
    """What is contrasted: everything but the layers."""

    basis: Basis
    budget: float
    batch: int
    lengths: tuple[int, ...]
    dtype: str
    directions: tuple[str, ...]
    rows: str


def contrast_layers(
    basis: str,
    budget: str | None,
    shape: list[str] | None,
    dtype: str,
    direction: list[str] | None,
    rows: str,
    on: str,
    measure: bool,
    device: str,
    as_json: bool,
    svg: Path | None,
    to: Destination,
) -> None:
    """Solve for the sizes, measure them if asked, and print one table, with a picture if asked."""
    with_measure.check(measure, to)
    wanted: Basis = choice("--equal", basis, tuple(BUDGETS))
    axes = {"B": [4], "T": [128, 512, 2048]} | parse_shape(shape or [])
    if set(axes) != {"B", "T"} or len(axes["B"]) != 1:
        raise Stop("contrast takes one batch and any number of lengths: --shape B=4,T=128:2048:x4.", Exit.USAGE)
    asked = Asked(
        wanted,
        _amount(budget or BUDGETS[wanted]),
        axes["B"][0],
        tuple(axes["T"]),
        one_case(dtype)[0],
        tuple(parse_directions(direction or ["forward", "both"])),
        choice("--rows", rows, ROWS),
    )
    pictures.check_writable(svg)
    cases = _cases(asked)
    made = with_measure.measured(_request(cases, asked, check_device(device)), to) if measure else None
    run = made.run if made else load_run(Path(on)) if Path(on).exists() else None
    machine = run.machine if run else machine_named(on)
    with with_measure.ending(made):
        found = _rows(cases, asked, run, machine)
        if svg is not None:
            pictures.write(svg, lambda: contrast_chart.to_svg(found, asked.dtype))
        if as_json:
            print(json.dumps({"equal": asked.basis, "budget": asked.budget, "rows": [_plain(row) for row in found]}))
        else:
            _print(found, asked, machine, measure)


def _amount(text: str) -> float:
    """A number with an optional k, M, G or T."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "")
    try:
        value = float(number) * UNITS[unit]
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise Stop(f"--budget {text!r} is no amount; write 250k, 1M or 2G.", Exit.USAGE)
    return value


def _cases(asked: Asked) -> list[tuple[Layer, Any, dict[str, int]]]:
    """Every layer at every length: (layer, its kernel, its shape), with equal parameters, operations or width."""
    found = []
    for layer in LAYERS:
        kernel = kernel_named(layer.kernel)
        for T in asked.lengths:
            try:
                found.append((layer, kernel, dataclasses.asdict(_sized(layer, kernel, T, asked))))
            except (ValueError, catalog_of_kernels().ContractError) as error:
                raise Stop(f"{layer.name} at T={T}: {error}", Exit.USAGE) from error
    return found


def _sized(layer: Layer, kernel: Any, T: int, asked: Asked) -> Any:
    """The shape of a layer whose parameters, operations or width are as asked."""

    def shape_of(width: int) -> Any:
        return kernel.shape(B=asked.batch, T=T, **layer.sizes(width))

    def cost(width: int) -> float:
        return getattr(kernel.module.work(shape_of(width), asked.dtype, "forward"), asked.basis)

    return shape_of(
        int(asked.budget) if asked.basis == "width" else contrast.solved(cost, asked.budget, layer.multiple)
    )


def _request(cases: Sequence[tuple[Layer, Any, dict[str, int]]], asked: Asked, device: str) -> Request:
    wanted = [
        {
            "kernel": layer.kernel,
            "shape": shape,
            "dtype": asked.dtype,
            "direction": direction,
            # Rows of other classes are not shown, and long recurrences in plain PyTorch take minutes.
            "implementations": [name for name in kernel.implementations if contrast.class_of(name) == asked.rows],
        }
        for layer, kernel, shape in cases
        for direction in asked.directions
    ]
    return Request(
        kernels=list(dict.fromkeys(layer.kernel for layer, _, _ in cases)),
        cases=wanted,
        dtypes=[asked.dtype],
        directions=list(asked.directions),
        device=device,
        compile=asked.rows == "compile",
        group_s=GROUP_S,
    )


def _rows(cases: Sequence[tuple[Layer, Any, dict[str, int]]], asked: Asked, run: Run | None, on: Machine) -> list[Row]:
    points = run.points if run else ()
    return [
        contrast.row(
            layer.name,
            layer.kernel,
            shape,
            direction,
            kernel.module.work(kernel.shape(**shape), asked.dtype, direction),
            asked.dtype,
            on,
            points,
            asked.rows,
        )
        for direction in asked.directions
        for layer, kernel, shape in sorted(cases, key=lambda case: case[2]["T"])
    ]


def _plain(row: Row) -> dict[str, Any]:
    point = row.point
    return {
        "layer": row.layer,
        "kernel": row.kernel,
        "shape": row.shape,
        "direction": row.direction,
        "parameters": row.work.parameters,
        "flops": row.work.flops,
        "compulsory_bytes": row.work.compulsory_bytes,
        "depth": row.work.depth,
        "saved_bytes": row.work.saved_bytes,
        "least_s": row.least_s,
        "bound": row.bound,
        "implementation": point.implementation if point else None,
        "token_s": row.token_s,
        "tokens_per_s": row.tokens_per_s,
        "joules_per_token": row.joules_per_token,
        "peak_memory_bytes": point.peak_memory_bytes if point else None,
        "fractions": [one.model_dump() if one else None for one in row.fractions],
    }


def _print(rows: Sequence[Row], asked: Asked, machine: Machine, measured: bool) -> None:
    console = Console(highlight=False)
    layout = contrast_table.layout(rows, console.width)
    unit = {"parameters": "parameters", "flops": "FLOP in a forward pass", "width": "numbers per token"}[asked.basis]
    asked_for = f"{si(asked.budget, '').strip()} {unit}"
    console.print(
        f"Equal {asked.basis}: {asked_for}, batch {asked.batch}, {asked.dtype}, caches warm, on {escape(machine.name)}"
    )
    for direction in asked.directions:
        for T in asked.lengths:
            here = [row for row in rows if (row.direction, row.shape["T"]) == (direction, T)]
            solved = asked.basis != "width" and direction == "forward"
            apart = f", within {percent(contrast.spread(here, asked.basis))} of one another" if solved else ""
            console.print(f"\n[bold]T={T}, {contrast_chart.DIRECTIONS[direction]}[/bold]{apart}")
            console.print(contrast_table.table(here, *layout))
    console.print(
        f"\nTime, energy and peak memory: measured, the fastest {asked.rows} row of each layer. Modelled: what is "
        "saved for gradients; and the least time, the best possible floor on this machine, with its wall. Shares: of "
        "the machine, of this design, the classic roofline."
    )
    lost = [f"{row.layer} T={row.shape['T']} {row.direction}, {text}" for row in rows for text in row.lost]
    for text in dict.fromkeys(lost):
        console.print(escape(_view.clean(text)), style="yellow")
    if not measured and not any(row.point for row in rows) and not lost:
        console.print("Nothing was measured of these; add --measure.")
