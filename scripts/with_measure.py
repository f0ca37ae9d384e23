"""`--measure` of contrast, scaling and explain: where its run is kept, and how such a command ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from seqroof.profiler.request import Request
from seqroof.roofline.record import Run

from . import measuring
from .exits import Exit, Stop
from .options import Destination


@dataclass(frozen=True)
class Measured:
    """A run that was measured for a command: its record, its folder, and the exit code that its points ask for."""

    run: Run
    folder: Path
    code: Exit


def check(measure: bool, to: Destination) -> None:
    """Raise `Stop` where options say where a run goes, and none is made."""
    if not measure and to != Destination():
        raise Stop("--out, --resume and --force are about the run that --measure makes; add --measure.", Exit.USAGE)


def measured(request: Request, to: Destination) -> Measured:
    """Measure, and keep the run as any other."""
    return Measured(*measuring.profile(request, to.out, to.resume, to.force))


@contextlib.contextmanager
def ending(found: Measured | None) -> Iterator[None]:
    """Show what the block shows, then name the run, whatever became of the block, and leave with the run's exit code.

    Nothing follows the block where nothing was measured.
    """
    try:
        yield
    finally:
        if found is not None:
            measuring.say_written(found.run, found.folder)
    if found is not None:
        raise typer.Exit(int(measuring.final_code(found.code)))
