"""`seqroof scaling`: how time grows with the length of a sequence, from recorded runs or measured here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.profiler.request import Request
from seqroof.roofline import scaling, scaling_chart, scaling_table
from seqroof.roofline._view import run_letter
from seqroof.roofline.record import Fraction, Run
from seqroof.roofline.scaling import Curve

from . import pictures, with_measure
from .asking import catalog_of_kernels, kernel_named
from .claiming import PLACES
from .exits import Exit, Stop
from .options import Destination
from .reading import load_run, unless_unreadable
from .sweep import check_device, one_case, parse_shape

# What is measured where nothing else is asked for, in sizes of a batch, a length and a width: a recurrence, its lighter
# sibling, full and hierarchical attention, and a stack of convolutions of a fixed number of layers.
MEASURED: dict[str, Callable[[int, int, int], dict[str, int]]] = {
    "lstm": lambda B, T, width: {"B": B, "T": T, "I": width, "H": width},
    "gru": lambda B, T, width: {"B": B, "T": T, "I": width, "H": width},
    "attention": lambda B, T, width: {"B": B, "N": 2, "S": T, "P": width // 2},
    "hierarchical_attention": lambda B, T, width: {"B": B, "T": T, "P": width, "F": 16},
    "dilated_conv": lambda B, T, width: {"B": B, "T": T, "C": width, "W": 3, "L": 6},
}
AXES = {"B": [1], "T": [64, 128, 256, 512, 1024], "width": [128]}
# Seconds for each kernel and length: the default set of 25 takes a minute and a half with its roofs and its checks.
GROUP_S = 1.0
MOST_LISTED = 6
# Narrower terminals leave out what is known from the kernel alone.
WIDE = 118
LEFT_OUT = ("lengths", "model", "operations", "steps")


def show_scaling(
    paths: Sequence[Path],
    measure: bool,
    shape: list[str] | None,
    dtype: str,
    device: str,
    all_points: bool,
    as_json: bool,
    files: dict[str, Path | None],
    to: Destination,
) -> None:
    """Print the exponents of recorded runs, or of one measured now, with a chart if asked."""
    if measure and paths:
        raise Stop("--measure makes a run of its own; leave the RUN out, or --measure.", Exit.USAGE)
    with_measure.check(measure, to)
    if shape and not measure:
        raise Stop("--shape says what --measure measures; a recorded run has its shapes.", Exit.USAGE)
    for path in files.values():
        pictures.check_writable(path)
    made = with_measure.measured(_request(shape, dtype, check_device(device)), to) if measure else None
    runs = [made.run] if made else [load_run(path) for path in paths] or _newest(Path())
    with with_measure.ending(made):
        found = scaling.curves(runs)
        shown = found if all_points else [curve for curve in found if curve.last.headline]
        _draw(shown, files)
        if as_json:
            print(json.dumps(_plain(found, runs)))
        else:
            _print(shown, runs, Console(highlight=False))


def _newest(folder: Path) -> list[Run]:
    """The newest run below a folder that has a curve long enough; a sentence where there is none."""
    paths = [path for place in PLACES for path in folder.glob(place)]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, str(path)), reverse=True):
        run = unless_unreadable(load_run, path)
        if run is not None and scaling_table.fitted(scaling.curves([run])):
            return [run]
    raise Stop(
        f"No run here has a kernel at {scaling.LEAST_LENGTHS} lengths. Name one, or measure: seqroof scaling --measure",
        Exit.USAGE,
    )


def _request(shape: list[str] | None, dtype: str, device: str) -> Request:
    axes = AXES | parse_shape(shape or [])
    if set(axes) != set(AXES) or len(axes["B"]) != 1 or len(axes["width"]) != 1:
        raise Stop(
            "scaling takes one batch, one width and any lengths: --shape B=1,T=64:1024:x2,width=128.", Exit.USAGE
        )
    lengths = sorted(set(axes["T"]))
    if len(lengths) < scaling.LEAST_LENGTHS:
        raise Stop(f"An exponent needs {scaling.LEAST_LENGTHS} lengths, such as T=64:1024:x2.", Exit.USAGE)
    dtype, direction = one_case(dtype)
    (batch,), (width,) = axes["B"], axes["width"]
    cases = [
        {"kernel": kernel, "shape": _checked(kernel, sizes(batch, T, width)), "dtype": dtype, "direction": direction}
        for kernel, sizes in MEASURED.items()
        for T in lengths
    ]
    return Request(
        kernels=list(MEASURED), cases=cases, dtypes=[dtype], directions=[direction], device=device, group_s=GROUP_S
    )


def _checked(kernel: str, sizes: dict[str, int]) -> dict[str, int]:
    """All sizes of a case; those that the kernel refuses end the command with its sentence."""
    try:
        return dataclasses.asdict(kernel_named(kernel).shape(**sizes))
    except catalog_of_kernels().ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error


def _draw(curves: Sequence[Curve], files: dict[str, Path | None]) -> None:
    wanted = {kind: path for kind, path in files.items() if path is not None}
    if wanted and not scaling_chart.chosen(curves):
        raise Stop("No forward pass has lengths enough for an exponent, so there is nothing to draw.", Exit.USAGE)
    for kind, path in wanted.items():
        draw = {"svg": scaling_chart.to_svg, "png": scaling_chart.to_png}[kind]
        pictures.write(path, partial(draw, curves))


def _plain(curves: Sequence[Curve], runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "curves": [_curve(curve, runs) for curve in curves if curve.power],
        "lacking": [lack.text for lack in scaling_table.lacking(curves)],
    }


def _curve(curve: Curve, runs: Sequence[Run]) -> dict[str, Any]:
    point = curve.last
    names = ("kernel", "implementation", "dtype", "direction", "cache", "clock", "device")
    return {
        "machine": runs[curve.run].machine.id,
        "created": runs[curve.run].created,
        **{name: getattr(point, name) for name in names},
        "fixed": curve.fixed,
        "size": curve.size,
        "lengths": curve.lengths,
        "times_s": [one.time_s.median for one in curve.points if one.time_s],
        "exponent": _fraction(curve.power),
        "end_exponent": _fraction(curve.end_power),
        "model_exponent": curve.model_power,
        "flops_exponent": curve.flops_power,
        "depth_exponent": curve.path.power if curve.path else None,
        "path": curve.path.words if curve.path else None,
        "step_s": _fraction(curve.step_s),
        "launch_tax_s": _fraction(curve.tax_s),
        "launch_tax_note": "" if curve.tax_s else scaling_table.NO_TAX,
    }


def _fraction(value: Fraction | None) -> dict[str, float] | None:
    return value.model_dump() if value else None


def _print(curves: Sequence[Curve], runs: Sequence[Run], console: Console) -> None:
    fits = scaling_table.fitted(curves)
    for index, run in enumerate(runs):
        letter = f"{run_letter(index)}: " if len(runs) > 1 else ""
        console.print(escape(f"{letter}{run.machine.name}, {run.created[:10]} (measured)"))
        mine = [curve for curve in fits if curve.run == index]
        widths = [max(map(len, column)) for column in zip(scaling_table.HEADINGS, *map(scaling_table.cells, mine))]
        for told, members in groupby(mine, key=scaling_table.heading):
            console.print(f"[bold]{escape(told)}[/bold]")
            console.print(_table(list(members), widths, console.width))
        if not mine:
            console.print(f"No kernel was timed at {scaling.LEAST_LENGTHS} lengths here: seqroof scaling --measure")
    if fits:
        console.print(f"\n{scaling_table.EXPLAINED}")
    console.print("\nLaunch tax per step: " + escape("; ".join(scaling_table.tax_lines(fits))))
    _print_lacking(curves, console)


def _print_lacking(curves: Sequence[Curve], console: Console) -> None:
    """Cases of several lengths, but too few; those of a single one are counted, unless there are no others."""
    every = scaling_table.lacking(curves)
    several = [lack for lack in every if lack.lengths > 1] or every
    if every:
        console.print("\nToo few lengths for an exponent:")
    for lack in several[:MOST_LISTED]:
        console.print(f"  {escape(lack.text)}")
    if len(every) > len(several[:MOST_LISTED]):
        console.print(f"  and {len(every) - len(several[:MOST_LISTED])} more cases, in --json")


def _table(curves: Sequence[Curve], widths: Sequence[int], room: int) -> Table:
    """One row for each curve, with the widths that all tables of a run share; narrow terminals leave out columns."""
    table = Table(box=None, pad_edge=False)
    shown = [index for index, name in enumerate(scaling_table.HEADINGS) if room >= WIDE or name not in LEFT_OUT]
    for index in shown:
        name = scaling_table.HEADINGS[index]
        left = name in ("implementation", "dtype", "path")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, min_width=widths[index])
    for curve in curves:
        texts = scaling_table.cells(curve)
        table.add_row(*(escape(texts[index]) for index in shown))
    return table
