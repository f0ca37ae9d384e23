"""`seqroof compare`, and the gate at the end of `seqroof profile --against`. Needs neither torch nor triton."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from seqroof.roofline.compare import (
    Comparison,
    Comparisons,
    compare_runs,
    differences,
    noise_between,
    not_told,
    set_up,
)
from seqroof.roofline.configuration import configuration_doubts
from seqroof.roofline.ratio import Ratio
from seqroof.roofline.record import Run

from .exits import Exit, Stop, exit_code
from .progress import say
from .reading import load_run
from .stored_noise import stored_noise

# A wider band would call twice the time the same.
WIDEST_BAND = 1.0


def parse_band(text: str) -> float:
    """Read `1%` or `0.01` into a fraction; raises `Stop` with a sentence."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value < WIDEST_BAND:
        raise Stop(f"--band: {text!r} is no share below 100 %; write it as 1% or 0.01.", Exit.USAGE)
    return value


def compare(base: Path, new: Path, band: str, across_machines: bool, everything: bool, as_json: bool) -> int:
    """Compare two runs; returns the exit code."""
    share = parse_band(band)
    return int(print_comparison(load_run(base), load_run(new), share, across_machines, everything, as_json))


def print_comparison(
    base: Run,
    new: Run,
    band: float,
    across_machines: bool = False,
    everything: bool = False,
    as_json: bool = False,
    to_stderr: bool = False,
) -> Exit:
    """Print a comparison; returns the exit code.

    1 when a point, or all of them together, became slower; that of a failed case when one that BASE measured is wrong,
    invalid or failed in NEW; 2 when nothing was compared and no failed case says why. Points that NEW skipped or does
    not hold may be left out on purpose: they are named and fail nothing.
    """
    there, here = (set_up(run.machine.id, run.environment) for run in (base, new))
    differing = differences(there, here)
    if differing and not across_machines:
        raise Stop(
            f"The runs come from different machines or set-ups ({'; '.join(differing)}), so ratios would compare "
            "machines; add --across-machines to see them all the same.",
            Exit.NO_DEVICE,
        )
    made = compare_runs(base, new, noise_between(base, new, stored_noise(new)), band, everything)
    notes = _notes(base, new, differing)
    if as_json:
        print(json.dumps(_document(made, notes, not differing), allow_nan=False))
    else:
        from seqroof.roofline import compare_table

        compare_table.render(made, Console(stderr=to_stderr, highlight=False), notes, everything)
    failed = exit_code(made.lost)
    if not made.found and failed is Exit.OK:
        say(f"seqroof: Nothing could be compared, so nothing is known: {_nothing(made)}.")
        return Exit.USAGE
    return exit_code([], failed, Exit.GATE_FAILED if made.slower else Exit.OK)


def _nothing(made: Comparisons) -> str:
    """Why no point was compared, and what to do."""
    if made.hidden:
        return "no headline is in either run; --all compares the other cache states and clocks too"
    if made.left_out:
        return "no point was measured in both runs; measure the same cases with `seqroof profile --against BASE`"
    return "neither run holds a measured point; measure both again"


def _notes(base: Run, new: Run, differing: list[str]) -> list[str]:
    """What a reader has to know of the two set-ups."""
    from seqroof.roofline.diagnoses import warn

    notes = []
    if untold := not_told(*(set_up(run.machine.id, run.environment) for run in (base, new))):
        notes.append(untold)
    if differing:
        doubt = warn("compared-across-machines", base=base.machine.name, new=new.machine.name)
        notes.append(f"compared-across-machines: {doubt.cause} ({'; '.join(differing)}); {doubt.advice}.")
    for doubt in configuration_doubts(base, new):
        notes.append(f"{doubt.id}: {doubt.cause}; {doubt.advice}.")
    for name, run in (("BASE", base), ("NEW", new)):
        if run.state == "interrupted":
            notes.append(f"{name} was interrupted, so points are missing there.")
    return notes


def _document(made: Comparisons, notes: list[str], same: bool) -> dict[str, Any]:
    """The comparison as one JSON document."""
    return {
        "points": [_entry(comparison) for comparison in made.found],
        "not_compared": [{"key": left.point.key, "why": left.why, "lost": left.lost} for left in made.left_out],
        "not_headline": made.hidden,
        "overall": _ratio(made.overall) | {"verdict": made.verdict} if made.overall else None,
        "band": made.band,
        "noise": {"between_runs": made.noise.value, "provenance": made.noise.provenance, "source": made.noise.source},
        "same_machine": same,
        "notes": notes,
    }


def _entry(comparison: Comparison) -> dict[str, Any]:
    named = {"key": comparison.point.key, **_ratio(comparison.ratio)}
    return named | {"verdict": comparison.verdict, "advice": comparison.advice}


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}
