"""`seqroof map`: which wall binds a recurrence over batch and hidden size, on a catalogue machine or that of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from seqroof.roofline import regime, regime_chart
from seqroof.roofline._view import clean
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Grid
from seqroof.roofline.regime import Spot

from . import pictures
from .asking import kernel_named
from .exits import Exit, Stop
from .reading import load_run
from .supposing import machine_named
from .sweep import one_case

STYLES = {"C": "bold", "D": "blue", "L": "cyan", "S": "magenta"}
MOST_LISTED = 12


def show_map(name: str, on: str, dtype: str, steps: int, as_json: bool, files: dict[str, Path | None]) -> None:
    """Print both maps, the boundaries between walls, and how far experiments bear the measured points out."""
    if name not in regime.MAPPED:
        raise Stop(f"There is no map of {name!r}; there is one of {', '.join(regime.MAPPED)}.", Exit.USAGE)
    if steps not in regime.STEPS:
        raise Stop(f"--steps {steps} is not drawn; it is one of {', '.join(map(str, regime.STEPS))}.", Exit.USAGE)
    for path in files.values():
        pictures.check_writable(path)
    run = load_run(Path(on)) if Path(on).exists() else None
    machine = run.machine if run else machine_named(on)
    dtype, _ = one_case(dtype or regime.main_dtype(machine))
    grids = regime.kept(run, name, dtype) if run else None
    grids = grids or regime.grids(name, regime.work_of(kernel_named(name), dtype), dtype, machine)
    spots = regime.spots(run.points, name, dtype) if run else []
    for format, path in files.items():
        if path is not None:
            draw = {"svg": regime_chart.to_svg, "png": regime_chart.to_png}[format]
            pictures.write(path, partial(draw, grids, spots, steps, machine.name))
    if as_json:
        print(json.dumps({"machine": machine.id, "grids": [grid.model_dump(mode="json") for grid in grids]}))
    else:
        _print(grids, spots, steps, machine, Console(highlight=False))


def _print(grids: Sequence[Grid], spots: Sequence[Spot], steps: int, machine: Machine, console: Console) -> None:
    kernel, dtype, name = grids[0].kernel, grids[0].dtype, escape(machine.name)
    console.print(f"[bold]{kernel}[/bold] {dtype}, I = H, {steps} steps, caches cold, on {name} (modelled)")
    console.print(f"{regime.KEY}; {regime.MARKS_KEY}\n")
    for grid in grids:
        console.print(f"{regime.TITLES[grid.design]}: {regime.share_in_words(grid, steps)}")
        for line in regime.drawn(grid, steps, spots):
            console.print(_coloured(line), soft_wrap=True)
        for text in regime.changes(grid, steps):
            console.print(f"  {text}")
        console.print()
    _print_spots(spots, console)


def _coloured(line: str) -> Text:
    """Letters in the colours of their walls; the colour repeats what the letter says."""
    text = Text(line)
    for letter, style in STYLES.items():
        text.highlight_regex(rf"(?<= ){letter}(?=[ *]|$)", style)
    return text


def _print_spots(spots: Sequence[Spot], console: Console) -> None:
    """How far experiments without floors agree with the model on the measured points."""
    if not spots:
        console.print("No measured point of it: give a run as --on, made with --attribution, to see points on the map.")
        return
    console.print(regime.agreement(spots))
    for text in regime.disagreements(spots)[:MOST_LISTED]:
        console.print(f"  {clean(text)}", markup=False)
