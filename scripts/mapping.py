"""`seqroof map`: which wall binds a recurrence over batch and hidden size, on a catalogue machine or that of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from seqroof.roofline import regime, regime_chart
from seqroof.roofline.attribution import SEEN_WORDS
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Grid
from seqroof.roofline.regime import Spot
from seqroof.roofline.units import percent

from . import pictures
from .asking import kernel_named
from .exits import Exit, Stop
from .reading import load_run
from .supposing import machine_named
from .sweep import one_case

# Kernels with a batch, steps and one hidden size: those whose weights are what the argument is about.
MAPPED = ("lstm", "gru", "rnn")
STYLES = {"C": "bold", "D": "blue", "L": "cyan", "S": "magenta"}
MOST_LISTED = 12


def show_map(name: str, on: str, dtype: str, steps: int, as_json: bool, files: dict[str, Path | None]) -> None:
    """Print both maps, the boundaries between walls, and how far experiments bear the measured points out."""
    if name not in MAPPED:
        raise Stop(f"There is no map of {name!r}; there is one of {', '.join(MAPPED)}.", Exit.USAGE)
    if steps not in regime.STEPS:
        raise Stop(f"--steps {steps} is not drawn; it is one of {', '.join(map(str, regime.STEPS))}.", Exit.USAGE)
    dtype, _ = one_case(dtype)
    for path in files.values():
        pictures.check_writable(path)
    kernel, machine = kernel_named(name), machine_named(on)
    grids = regime.grids(name, lambda B, H, T: _work(kernel, dtype, B, H, T), dtype, machine)
    run = load_run(Path(on)) if Path(on).exists() else None
    spots = regime.spots(run.points, name, dtype) if run else []
    for format, path in files.items():
        if path is not None:
            draw = {"svg": regime_chart.to_svg, "png": regime_chart.to_png}[format]
            pictures.write(path, partial(draw, grids, spots, steps, machine.name))
    if as_json:
        print(json.dumps({"machine": machine.id, "grids": [grid.model_dump(mode="json") for grid in grids]}))
    else:
        _print(grids, spots, steps, machine, Console(highlight=False))


def _work(kernel: Any, dtype: str, B: int, H: int, T: int) -> Any:
    return kernel.module.work(kernel.shape(B=B, T=T, I=H, H=H), dtype, "forward")


def _print(grids: Sequence[Grid], spots: Sequence[Spot], steps: int, machine: Machine, console: Console) -> None:
    kernel, dtype, name = grids[0].kernel, grids[0].dtype, escape(machine.name)
    console.print(f"[bold]{kernel}[/bold] {dtype}, I = H, {steps} steps, caches cold, on {name} (modelled)")
    console.print(f"{regime.KEY}; * measured\n")
    for grid in grids:
        console.print(f"{regime_chart.TITLES[grid.design]}: {regime.share_in_words(grid, steps)}")
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
    told = [spot for spot in spots if spot.agrees is not None]
    if not spots:
        console.print("No measured point of it: give a run as --on, made with --attribution, to see points on the map.")
        return
    agreed = sum(spot.agrees is True for spot in told)
    console.print(f"{len(spots)} measured points; experiments without floors name a wall for {len(told)} of them")
    if told:
        share = percent(agreed / len(told))
        console.print(f"and agree with the modelled wall of the point's own design on {agreed} ({share}).")
    for spot in [spot for spot in told if not spot.agrees][:MOST_LISTED]:
        place = f"B={spot.B}, H={spot.H}, T={spot.T} {spot.implementation}"
        seen = SEEN_WORDS[spot.seen or "undetermined"]
        console.print(f"  {place}: {spot.modelled} modelled, {seen} seen", markup=False)
