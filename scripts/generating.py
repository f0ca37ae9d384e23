"""`seqroof generations`: how rate, bandwidth and ridge point of machines grew, and an LSTM step on each of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from seqroof.roofline import catalogue, generations, generations_chart
from seqroof.roofline.generations import BATCHES, PERIOD_YEARS, Rated, Use, WorkOf
from seqroof.roofline.work import Work

from . import pictures
from .asking import kernel_named

# A step whose weights, 16.8 MB and 268 MB in 16 bits, fit in the last cache of newer parts, and in that of none.
HIDDEN = (1024, 4096)
NOTES = (
    "units: the most of a part's arithmetic that an LSTM step (I = H) can keep busy, by the best possible design; "
    "from: the batch from which arithmetic binds it. machine: the best possible floor over the time of a step "
    "that is launched and reads its weights; '-' where the latency of a launch is not known. Modelled, caches cold."
)


def show_generations(as_json: bool, files: dict[str, Path | None]) -> None:
    """Print parts, growths and the use that an LSTM step makes of them, with a chart if asked."""
    for path in files.values():
        pictures.check_writable(path)
    machines = list(catalogue.machines().values())
    parts = generations.parts(machines)
    growths = generations.growths(machines)
    used = {hidden: generations.uses(parts, _step(hidden)) for hidden in HIDDEN}
    for kind, path in files.items():
        if path is not None:
            draw = {"svg": generations_chart.to_svg, "png": generations_chart.to_png}[kind]
            pictures.write(path, partial(draw, parts))
    left = generations.left_out(machines)
    if as_json:
        print(json.dumps(_plain(parts, growths, left, used)))
        return
    console = Console(highlight=False)
    console.print(f"[bold]Datacentre parts[/bold], {parts[0].year} to {parts[-1].year} (vendors' figures)")
    console.print(_table(generations.PART_HEADINGS, [generations.part_cells(part) for part in parts], ("figures",)))
    for part in parts:
        if part.note:
            console.print(f"{part.id}: {part.note}.")
    for reason, ids in left.items():
        console.print(f"Left out, {reason}: {', '.join(ids)}.")
    console.print(f"\n[bold]Growth in {PERIOD_YEARS:.0f} years[/bold], with its 95 % interval (derived)")
    titles = ("of", "factor", "interval")
    console.print(_table(titles, [generations.growth_cells(*entry) for entry in growths], ()))
    for hidden, found in used.items():
        console.print(f"\n[bold]LSTM step, H={hidden}, 16 bits[/bold] (modelled)")
        console.print(_table(generations.USE_HEADINGS, [generations.use_cells(use) for use in found], ()))
    console.print(f"\n{NOTES}")


def _step(hidden: int) -> WorkOf:
    """The work of a step of an LSTM that is as wide as its inputs."""
    kernel = kernel_named("lstm_step")

    def work_of(batch: int, dtype: str) -> Work:
        return kernel.module.work(kernel.shape(B=batch, I=hidden, H=hidden), dtype, "forward")

    return work_of


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]], left: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        aligned = "left" if title in (titles[0], *left) else "right"
        table.add_column(title, justify=aligned, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _plain(
    parts: list[Rated], growths: list[Any], left: dict[str, list[str]], used: dict[int, list[Use]]
) -> dict[str, Any]:
    return {
        "parts": [_part(part) for part in parts],
        "left_out": left,
        "years": PERIOD_YEARS,
        "growth": {name: growth.model_dump() for name, growth in growths},
        "lstm_step": {
            str(hidden): {
                use.part.id: {
                    "units": dict(zip(map(str, BATCHES), use.units)),
                    "machine": dict(zip(map(str, BATCHES), use.machine)),
                    "compute_from_batch": use.takes_over,
                }
                for use in found
            }
            for hidden, found in used.items()
        },
    }


def _part(part: Rated) -> dict[str, Any]:
    return {
        "id": part.id,
        "name": part.machine.name,
        "year": part.year,
        "dtype": part.dtype,
        "flops_per_s": part.rate,
        "bytes_per_s": part.bandwidth,
        "ridge_flops_per_byte": part.over,
        "provenance": dict(zip(("flops_per_s", "bytes_per_s"), part.marks)),
        "note": part.note,
    }
